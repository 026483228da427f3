package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tare-oci/tare/image"
)

// parallelBlobs is how many blobs are copied at a time.
const parallelBlobs = 4

// Options say what to copy of what a source has. By default, of an index the
// image for this machine's platform is copied, without the index; anything
// else is copied as it is.
type Options struct {
	// All copies an index with all that it lists.
	All bool
	// Platforms names the images to copy of an index. A manifest has to be
	// for that platform. More than one is possible with Sparse only.
	Platforms []v1.Platform
	// Sparse keeps the index, and so its digest, although not all that it
	// lists is copied: only the images for the platforms, or with All those
	// that the source has.
	Sparse bool
	// Progress may be nil.
	Progress Progress
}

// Result says what a copy did.
type Result struct {
	Root        v1.Descriptor // of what the destination now has under its name
	Blobs       int           // that were copied as they are; those that were there are not counted
	CopiedBytes int64         // of them
}

// Copy copies what src was opened for to dst. It does not commit.
func Copy(ctx context.Context, dst Destination, src Source, o Options) (Result, error) {
	if o.Progress == nil {
		o.Progress = Silent{}
	}
	if w, ok := dst.(ImageWriter); ok {
		return copyImage(ctx, w, src, o)
	}
	p, err := makePlan(ctx, src, o)
	if err != nil {
		return Result{}, err
	}
	c := copier{source: src, destination: dst, progress: o.Progress}
	if err := c.putBlobs(ctx, p.blobs); err != nil {
		return Result{}, err
	}
	for _, d := range p.documents[:len(p.documents)-1] {
		if err := dst.PutManifest(ctx, d.desc, d.data); err != nil {
			return Result{}, err
		}
	}
	root := p.root()
	err = dst.PutRoot(ctx, root.desc, root.data)
	return Result{root.desc, int(c.blobs.Load()), c.bytes.Load()}, err
}

// copyImage is Copy for a form that holds images and no indexes.
func copyImage(ctx context.Context, dst ImageWriter, src Source, o Options) (Result, error) {
	if o.All || o.Sparse {
		return Result{}, errors.New("the destination's form has no indexes: it takes the image for one platform; a layout, an OCI archive and a registry take all")
	}
	chosen, err := choose(ctx, src, o)
	if err != nil {
		return Result{}, err
	}
	if len(chosen) == 0 {
		img, err := image.Load(ctx, src, src.Root())
		if err != nil {
			return Result{}, err
		}
		chosen = append(chosen, img)
	}
	img := chosen[0]
	root, err := dst.PutImage(ctx, src, img, o.Progress)
	return Result{Root: root}, err
}

type copier struct {
	source       Source
	destination  Destination
	progress     Progress
	blobs, bytes atomic.Int64
}

func (c *copier) putBlobs(ctx context.Context, blobs []v1.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	for _, desc := range blobs {
		group.Go(func() error {
			err := ctx.Err()
			if err == nil {
				err = c.putBlob(ctx, desc)
			}
			if err != nil {
				return fmt.Errorf("copy blob %s: %w", desc.Digest, err)
			}
			c.progress.Done(desc.Digest)
			return nil
		})
	}
	return group.Wait()
}

func (c *copier) putBlob(ctx context.Context, desc v1.Descriptor) error {
	if there, err := c.destination.HasBlob(ctx, desc); err != nil {
		return err
	} else if there {
		c.progress.Start(desc, desc.Size)
		return nil
	}
	opened := false
	open := func(offset int64) (io.ReadCloser, error) {
		r, err := c.source.Blob(ctx, desc, offset)
		if err != nil {
			return nil, err
		}
		opened = true
		c.progress.Start(desc, offset)
		return Counted(r, desc.Digest, c.progress), nil
	}
	err := c.destination.PutBlob(ctx, desc, open)
	if errors.Is(err, image.ErrMismatch) && ctx.Err() == nil {
		err = c.destination.PutBlob(ctx, desc, open) // a bit flipped on the way will not flip again
	}
	if err != nil {
		return err
	}
	if !opened {
		c.progress.Start(desc, desc.Size)
		return nil
	}
	c.blobs.Add(1)
	c.bytes.Add(desc.Size)
	return nil
}
