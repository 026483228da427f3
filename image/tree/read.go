package tree

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
)

// Opener opens a layer's blob. What it yields need not be verified.
type Opener func(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)

// Options say how layers are read.
type Options struct {
	Layers layer.Limits // of each layer
	Sums   bool         // compute the sum of each file's content
	// OnLayer, if set, is told of each layer when it has been merged.
	OnLayer func(number int, l *Layer, r layer.Result) error
}

// Read merges the layers of an image that the tree does not have yet: all, if
// it is new. Every layer is read to its end, once, and verified by its DiffID.
func (t *Tree) Read(ctx context.Context, img *image.Image, open Opener, o Options) error {
	for n := t.layers; n < len(img.Manifest.Layers); n++ {
		desc := img.Manifest.Layers[n]
		l := t.AddLayer()
		r, err := scan(ctx, desc, img.Config.RootFS.DiffIDs[n], open, o.Layers, l.visit(o.Sums))
		if err == nil && o.OnLayer != nil {
			err = o.OnLayer(n, l, r)
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	return nil
}

// visit adds each entry.
func (l *Layer) visit(sums bool) layer.Visit {
	var sum hash.Hash
	if sums {
		sum = sha256.New()
	}
	return func(r *tarstream.Reader, h *tarstream.Header) error {
		f, err := l.Add(h)
		if err != nil || !sums || f == nil || f.Type != tarstream.TypeReg || !l.tree.takeHoles(h) {
			return err
		}
		sum.Reset()
		if _, err := io.Copy(sum, layer.Content(r, h)); err != nil {
			return err
		}
		f.Sum = (*[sha256.Size]byte)(sum.Sum(nil))
		return nil
	}
}

// takeHoles says whether the tree's limit leaves room for the zeros that a file has and its archive has not, and counts them.
func (t *Tree) takeHoles(h *tarstream.Header) bool {
	if !h.Sparse {
		return true
	}
	holes := h.Size
	for _, e := range h.Extents {
		holes -= e.Length
	}
	if holes > t.limits.HolesBytes-t.holes {
		return false
	}
	t.holes += holes
	return true
}

// scan reads one layer. What the config says of its content, the DiffID, is what
// it is verified by; that the blob is its descriptor's follows.
func scan(ctx context.Context, desc v1.Descriptor, diffID digest.Digest, open Opener, limits layer.Limits, visit layer.Visit) (layer.Result, error) {
	blob, err := open(ctx, desc)
	if err != nil {
		return layer.Result{}, err
	}
	defer blob.Close()
	return layer.Scan(ctx, blob, layer.Options{Name: string(desc.Digest), MediaType: desc.MediaType, DiffID: diffID, Limits: limits}, visit)
}

// errDone ends a scan that has found what it was for.
var errDone = errors.New("done")

// Content writes what a regular file of the tree holds. It reads the file's layer
// once more, up to the file, and then checks the content against the file's Sum;
// if it has none, the layer against its DiffID. W has everything before that is
// known.
func (t *Tree) Content(ctx context.Context, img *image.Image, open Opener, o Options, f *File, w io.Writer) error {
	if f.Type != tarstream.TypeReg {
		return errors.New("not a regular file")
	}
	sum := sha256.New()
	entry := -1
	_, err := scan(ctx, img.Manifest.Layers[f.Layer], img.Config.RootFS.DiffIDs[f.Layer], open, o.Layers, func(r *tarstream.Reader, h *tarstream.Header) error {
		if entry++; entry != f.Entry {
			return nil
		}
		if _, err := io.Copy(io.MultiWriter(w, sum), layer.Content(r, h)); err != nil {
			return err
		}
		if f.Sum == nil {
			return nil
		}
		return errDone
	})
	switch {
	case err == nil && f.Sum == nil && entry >= f.Entry:
		return nil
	case err == nil:
		return fmt.Errorf("layer %d: %w: entry %d is not there any more", f.Layer+1, image.ErrMismatch, f.Entry)
	case !errors.Is(err, errDone):
		return fmt.Errorf("layer %d: %w", f.Layer+1, err)
	case f.Sum != nil && [sha256.Size]byte(sum.Sum(nil)) != *f.Sum:
		return fmt.Errorf("layer %d: %w: a file has changed since it was first read", f.Layer+1, image.ErrMismatch)
	}
	return nil
}
