package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/transfer"
)

// Progress is told how a pull or a copy goes on. Done is told of a layer when it
// is here, verified and, if that was asked for, unpacked.
type Progress = transfer.Progress

// PullOptions say how to pull.
type PullOptions struct {
	// Platform to choose from an index; nil is this machine's.
	Platform *v1.Platform
	// Progress may be nil.
	Progress Progress
	// BlobsOnly leaves the layers packed. So it is always without root.
	BlobsOnly bool
	// Foreign allows to fetch layers that are not distributed with the image
	// from the URLs in its manifest; else they fail with ErrForeign.
	Foreign bool

	// Registry to use in place of the one made from what follows.
	Registry Registry
	// Credentials may be nil: anonymous.
	Credentials auth.Source
	// PlainHTTP allows to speak to any registry without encryption; with those
	// on loopback addresses it is always tried.
	PlainHTTP bool
}

func (o PullOptions) registry() (_ Registry, done func()) {
	if o.Registry != nil {
		return o.Registry, func() {}
	}
	options := remote.Options{Credentials: o.Credentials}
	if o.PlainHTTP {
		options.PlainHTTP = func(string) bool { return true }
	}
	c := remote.New(options)
	return c, c.Close
}

// Pull brings an image into the store, under its full name, and unpacks its
// layers. What is here already is not fetched again. All content is verified
// on the way. When Pull fails, nothing has changed but that blobs, or beginnings
// of blobs, may be there for the next attempt.
func (e *Engine) Pull(ctx context.Context, name string, o PullOptions) (Image, error) {
	release, err := e.lease(ctx, unix.LOCK_SH)
	if err != nil {
		return Image{}, err
	}
	defer release()
	e.sweep(ctx)
	return e.pullName(ctx, name, o, e.take(o))
}

// A taker brings the layers of an image into the store, and does with them what
// else is wanted.
type taker func(ctx context.Context, f *fetcher, img *image.Image) error

// take is the usual taker: it unpacks the layers to snapshots on the way.
func (e *Engine) take(o PullOptions) taker {
	return func(ctx context.Context, f *fetcher, img *image.Image) error {
		if o.BlobsOnly || os.Geteuid() != 0 {
			return f.layers(ctx, img.Manifest.Layers)
		}
		return e.unpack(ctx, img, f, f.progress.Done)
	}
}

// pullName is Pull under a lease.
func (e *Engine) pullName(ctx context.Context, name string, o PullOptions, take taker) (Image, error) {
	registry, done := o.registry()
	defer done()
	o.Registry = registry
	ref, err := e.reference(ctx, name, registry)
	if err != nil {
		return Image{}, err
	}
	img, err := e.pull(ctx, ref, o, take)
	if errors.Is(err, image.ErrMismatch) && ctx.Err() == nil {
		// A byte was flipped on the way: what is not right is not kept, so only
		// that is fetched again. If it is the registry that is wrong, it stays so.
		e.options.Warn(fmt.Sprintf("pull %s: %v; trying once more", ref.Familiar(), err))
		img, err = e.pull(ctx, ref, o, take)
	}
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref.Familiar(), err)
	}
	return img, nil
}

func (e *Engine) pull(ctx context.Context, ref distribution.Reference, o PullOptions, take taker) (Image, error) {
	session, err := e.images.Begin(ctx)
	if err != nil {
		return Image{}, err
	}
	defer session.Close()
	registry := o.Registry
	f := &fetcher{session: session, registry: registry, repo: ref.Repository, progress: o.Progress, foreign: foreign{allowed: o.Foreign}}
	if f.progress == nil {
		f.progress = transfer.Silent{}
	}
	target, data, err := registry.Resolve(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	if err := f.session.PutAs(ctx, target, data); err != nil {
		return Image{}, err
	}
	img, err := image.Select(ctx, f, target, platformOr(o.Platform))
	if err != nil {
		return Image{}, err
	}
	if err := take(ctx, f, img); err != nil {
		return Image{}, err
	}
	name := ref.String()
	if err := session.Tag(ctx, name, target); err != nil {
		return Image{}, err
	}
	return ImageOf(name, target, img), nil
}

// parallelLayers is how many layers are fetched or unpacked at a time.
const parallelLayers = 4

// fetcher brings blobs of one repository into the store.
type fetcher struct {
	session  *layout.Session
	registry Registry
	repo     distribution.Repository
	progress Progress
	foreign  foreign
}

// Fetch gets a document from the store, or else from the registry into the
// store: it makes the fetcher an image.Fetcher.
func (f *fetcher) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if there, err := f.session.Has(ctx, desc); err != nil {
		return nil, err
	} else if there {
		data, err := f.session.Fetch(ctx, desc)
		if !errors.Is(err, image.ErrMismatch) {
			return data, err
		}
		if err := f.session.Recheck(ctx, desc); err != nil && !errors.Is(err, image.ErrMismatch) {
			return nil, err
		}
	}
	data, err := fetchDocument(ctx, f.registry, f.repo, desc)
	if err != nil {
		return nil, err
	}
	return data, f.session.PutAs(ctx, desc, data)
}

// layers fetches the layers that are not here.
func (f *fetcher) layers(ctx context.Context, all []v1.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	for _, desc := range all {
		group.Go(func() error {
			if err := f.layer(ctx, desc, nil); err != nil {
				return err
			}
			f.progress.Done(desc.Digest)
			return nil
		})
	}
	return group.Wait()
}

// ahead calls use, which takes an image's layers one after the other: the first
// as it comes, the others as soon as they are here, for they are fetched
// meanwhile.
func (f *fetcher) ahead(ctx context.Context, img *image.Image, use func(context.Context, layers) error) error {
	all := img.Manifest.Layers
	group, ctx := errgroup.WithContext(ctx)
	if len(all) > 1 {
		group.Go(func() error { return f.layers(ctx, all[1:]) })
	}
	group.Go(func() error { return use(ctx, inOrder{f, all}) })
	return group.Wait()
}

// inOrder are layers of which all but the first are fetched, and told of, by
// somebody else: an ingest waits for the one before it.
type inOrder struct {
	*fetcher
	all []v1.Descriptor
}

func (l inOrder) layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error {
	f := *l.fetcher
	if desc.Digest != l.all[0].Digest {
		f.progress = transfer.Silent{}
	}
	err := f.layer(ctx, desc, unpack)
	if err == nil {
		f.progress.Done(desc.Digest)
	}
	return err
}

// layer fetches a layer, unless it is here, and unpacks it unless unpack is nil.
// Where it has to be fetched from its beginning, both happen at once.
func (f *fetcher) layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error {
	in, err := f.session.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if in.Offset() == desc.Size && unpack != nil {
		// Nothing has to be fetched, unless it has come to harm since it was.
		if in, err = f.sound(ctx, in, desc); err != nil {
			return err
		}
		defer in.Close()
	}
	f.progress.Start(desc, in.Offset())
	if in.Offset() > 0 || desc.Size == 0 || unpack == nil {
		if err := f.fill(ctx, in, desc, nil); err != nil {
			return err
		}
		if err := in.Commit(); err != nil || unpack == nil {
			return err
		}
		return stored[*layout.Blob]{f.session.Open}.layer(ctx, desc, unpack)
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(r)
		// Whatever is wrong with what is in the layer, whether it is what its
		// descriptor says comes first; so the rest is taken as well.
		_, _ = io.Copy(io.Discard, r) // ends with fill, which has the error
		unpacked <- err
	}()
	err = f.fill(ctx, in, desc, w)
	w.CloseWithError(err) // nil is io.EOF
	if err == nil {
		err = in.Commit()
	}
	if uerr := <-unpacked; err == nil {
		err = uerr
	}
	return err
}

// sound returns an ingest of a blob that was here whole: in itself, or another
// that begins anew if its content is not right.
func (f *fetcher) sound(ctx context.Context, in *layout.Ingest, desc v1.Descriptor) (*layout.Ingest, error) {
	if err := in.Commit(); err != nil && !errors.Is(err, image.ErrMismatch) {
		return nil, err
	}
	if err := f.session.Recheck(ctx, desc); err == nil || !errors.Is(err, image.ErrMismatch) && !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	return f.session.Ingest(ctx, desc)
}

// fill writes what is missing of a blob, and the same to copyTo unless that is
// nil.
func (f *fetcher) fill(ctx context.Context, in *layout.Ingest, desc v1.Descriptor, copyTo *io.PipeWriter) error {
	if in.Offset() == desc.Size && desc.Size > 0 {
		return nil
	}
	r, err := f.registry.Blob(ctx, f.repo, desc, in.Offset())
	if err != nil {
		r, err = f.foreign.open(ctx, desc, in.Offset(), err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	buffer := make([]byte, 256<<10)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := in.Write(buffer[:n]); err != nil {
				return err
			}
			if copyTo != nil {
				_, _ = copyTo.Write(buffer[:n]) // its reader takes everything
			}
			f.progress.Advance(desc.Digest, int64(n))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
