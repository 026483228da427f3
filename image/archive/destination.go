package archive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/transfer"
)

// imageNameAnnotation has the whole name where containerd and Docker look for
// it, who leave only the tag in org.opencontainers.image.ref.name.
const imageNameAnnotation = "io.containerd.image.name"

// ImageName is what containerd or Docker has called something in an index.json;
// empty if they have not.
func ImageName(desc v1.Descriptor) string { return desc.Annotations[imageNameAnnotation] }

// Name says what something in an archive is called. All may be empty.
type Name struct {
	Ref   string // in index.json, org.opencontainers.image.ref.name
	Image string // the whole name, for containerd and Docker
	Tag   string // in manifest.json, such as debian:12; in a docker archive only
}

func (n Name) annotations() map[string]string {
	all := map[string]string{}
	if n.Ref != "" {
		all[v1.AnnotationRefName] = n.Ref
	}
	if n.Image != "" {
		all[imageNameAnnotation] = n.Image
	}
	return all
}

// ociDestination is a name in an OCI archive.
type ociDestination struct {
	*Writer
	name  Name
	owned bool
}

// Destination prepares to give a name to something that is to come: in a docker
// archive it is a transfer.ImageWriter. Committing and closing it does the same
// to the archive if owned says so.
func (w *Writer) Destination(name Name, owned bool) transfer.Destination {
	d := &ociDestination{w, name, owned}
	if w.opts.Form == Docker {
		return &dockerDestination{d}
	}
	return d
}

// HasBlob says whether a blob was written already.
func (d *ociDestination) HasBlob(_ context.Context, desc v1.Descriptor) (bool, error) {
	return d.hasBlob(desc)
}

// PutBlob writes a blob. They come one after the other.
func (d *ociDestination) PutBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	return d.named(d.putBlob(ctx, desc, open))
}

func (d *ociDestination) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write archive %s: %w", d.Writer.name, err)
}

// PutManifest writes a manifest or an index.
func (d *ociDestination) PutManifest(_ context.Context, desc v1.Descriptor, data []byte) error {
	return d.named(d.putDocument(desc, data))
}

// PutRoot writes a manifest or an index, to which index.json will lead.
func (d *ociDestination) PutRoot(_ context.Context, desc v1.Descriptor, data []byte) error {
	if err := d.putDocument(desc, data); err != nil {
		return d.named(err)
	}
	d.addName(desc, d.name.annotations())
	return nil
}

// Commit finishes the archive, if that is to happen with this name.
func (d *ociDestination) Commit(ctx context.Context) error {
	if !d.owned {
		return nil
	}
	return d.Writer.Commit(ctx)
}

// Close closes the archive, if that is to happen with this name.
func (d *ociDestination) Close() error {
	if !d.owned {
		return nil
	}
	return d.Writer.Close()
}

// dockerDestination is a name in a docker archive.
type dockerDestination struct{ *ociDestination }

// PutImage writes an image with its layers uncompressed, as docker save does.
// The image keeps its config and so its ID, but not its manifest.
func (d *dockerDestination) PutImage(ctx context.Context, src transfer.Source, img *image.Image, p transfer.Progress) (v1.Descriptor, error) {
	config, err := src.Fetch(ctx, img.Manifest.Config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	configDesc := v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: img.Manifest.Config.Digest, Size: img.Manifest.Config.Size}
	if err := d.putDocument(configDesc, config); err != nil {
		return v1.Descriptor{}, d.named(err)
	}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: configDesc,
		Layers: []v1.Descriptor{}}
	for i, l := range img.Manifest.Layers {
		desc, err := d.putLayer(ctx, src, l, img.Config.RootFS.DiffIDs[i], p)
		if err != nil {
			return v1.Descriptor{}, d.named(fmt.Errorf("layer %s: %w", l.Digest, err))
		}
		manifest.Layers = append(manifest.Layers, desc)
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	platform := image.NormalizePlatform(img.Config.Platform)
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data)), Platform: &platform}
	if err := d.PutRoot(ctx, desc, data); err != nil {
		return v1.Descriptor{}, err
	}
	d.addImage(manifest, d.name.Tag)
	return desc, nil
}

// addImage makes an entry of manifest.json, or adds a tag to it.
func (w *Writer) addImage(m v1.Manifest, tag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.images {
		w.images[i].RepoTags = slices.DeleteFunc(w.images[i].RepoTags, func(t string) bool { return t == tag })
	}
	i := slices.IndexFunc(w.images, func(s savedImage) bool { return s.digest == m.Config.Digest })
	if i < 0 {
		i = len(w.images)
		saved := savedImage{Config: blobName(m.Config.Digest), Layers: []string{}, digest: m.Config.Digest}
		for _, l := range m.Layers {
			saved.Layers = append(saved.Layers, blobName(l.Digest))
		}
		w.images = append(w.images, saved)
	}
	if tag != "" {
		w.images[i].RepoTags = append(w.images[i].RepoTags, tag)
	}
}

// putLayer writes a layer uncompressed, unless it is there.
func (d *dockerDestination) putLayer(ctx context.Context, src transfer.Source, l v1.Descriptor, diffID digest.Digest,
	p transfer.Progress) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: diffID}
	if err := image.CheckDigest(diffID); err != nil {
		return desc, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	sizeBytes, there := d.have[blobName(diffID)]
	if desc.Size = sizeBytes; there {
		p.Start(l, l.Size)
		p.Done(l.Digest)
		return desc, nil
	}
	blob, err := src.Blob(ctx, l, 0)
	if err != nil {
		return desc, err
	}
	p.Start(l, 0)
	r, err := unpacked(ctx, transfer.Counted(blob, l.Digest, p), l, diffID)
	if err != nil {
		return desc, errors.Join(err, blob.Close())
	}
	desc.Size, err = d.stream(blobName(diffID), r)
	if err = errors.Join(err, r.Close()); err != nil {
		return desc, err
	}
	p.Done(l.Digest)
	return desc, nil
}

// maxLayerBytes bounds an uncompressed layer.
const maxLayerBytes = 128 << 30

// unpacked reads what is in a layer's blob: it ends well only if the blob has
// the digest that its descriptor says, and what is in it has the DiffID.
// Inflating and hashing go on beside the reader, who also closes the blob.
func unpacked(ctx context.Context, blob io.ReadCloser, l v1.Descriptor, diffID digest.Digest) (io.ReadCloser, error) {
	h, err := image.NewHash(diffID)
	if err != nil {
		return nil, err
	}
	v, err := image.VerifyReader(&contextReader{ctx, blob}, l)
	if err != nil {
		return nil, err
	}
	packed := &counter{r: v}
	buffered := bufio.NewReaderSize(packed, copyBytes)
	inflated, err := layer.Decompress(buffered, l.MediaType)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	u := &unpacking{PipeReader: pr, blob: blob, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		defer inflated.Close()
		_, err := io.CopyBuffer(io.MultiWriter(pw, h), &bounded{r: inflated, packed: packed, maxBytes: maxLayerBytes}, make([]byte, copyBytes))
		if err == nil {
			_, err = io.Copy(io.Discard, buffered) // to the verdict
		}
		if err == nil && image.CheckSum(diffID, h) != nil {
			err = fmt.Errorf("%w %s", layer.ErrDiffID, diffID)
		}
		pw.CloseWithError(err)
	}()
	return u, nil
}

// unpacking is a layer that another goroutine inflates.
type unpacking struct {
	*io.PipeReader
	blob io.Closer
	done chan struct{}
}

// Close ends the goroutine.
func (u *unpacking) Close() error {
	err := errors.Join(u.PipeReader.Close(), u.blob.Close())
	<-u.done
	return err
}
