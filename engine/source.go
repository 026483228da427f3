package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

// A source is an image that can be unpacked, and where its layers are.
type source struct {
	name   string
	image  *image.Image
	layers layers
	close  func() error
}

// source finds an image by its name in the store, pulls it if it is missing
// there, its layers by take, or finds it in the layout or archive that is named.
// The caller holds a lease.
func (e *Engine) source(ctx context.Context, name string, platform *v1.Platform, o PullOptions, take taker) (*source, error) {
	l, err := transport.Parse(name)
	if err != nil {
		return nil, err
	}
	switch l.Kind {
	case transport.Plain:
	case transport.Registry:
		name = l.Name
	default:
		return e.sourceElsewhere(ctx, name, platform)
	}
	found, err := e.Resolve(ctx, name, platform)
	if errors.Is(err, ErrNoImage) && !strings.HasPrefix(name, "sha256:") {
		o.Platform = platform
		found, err = e.pullName(ctx, name, o, take)
	}
	if err != nil {
		return nil, err
	}
	// What the store has was verified when it came, and the DiffID is again.
	return &source{found.Name, found.Image, ownLayers{e.images}, func() error { return nil }}, nil
}

// ownLayers are those of an image in the store.
type ownLayers struct{ store *layout.Store }

// layer looks, where a layer cannot be unpacked, whether its blob has come to
// harm. One that has is removed, so that the next pull brings it.
func (l ownLayers) layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error {
	err := stored[*layout.Blob]{l.store.Open}.layer(ctx, desc, unpack)
	if err == nil || ctx.Err() != nil {
		return err
	}
	session, serr := l.store.Begin(ctx)
	if serr != nil {
		return err
	}
	defer session.Close()
	if damaged := session.Recheck(ctx, desc); errors.Is(damaged, image.ErrMismatch) {
		return fmt.Errorf("%w (%w; it is removed, and the next pull fetches it again)", damaged, err)
	}
	return err
}

func (e *Engine) sourceElsewhere(ctx context.Context, name string, platform *v1.Platform) (*source, error) {
	src, err := e.OpenSource(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	img, err := image.Select(ctx, src, src.Root(), platformOr(platform))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image %s: %w", name, err), src.Close())
	}
	open := func(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
		r, err := src.Blob(ctx, desc, 0)
		if err != nil {
			return nil, err
		}
		return verified(r, desc)
	}
	return &source{name, img, stored[io.ReadCloser]{open}, src.Close}, nil
}

// verified makes a reader that vouches for what it yields.
func verified(r io.ReadCloser, desc v1.Descriptor) (io.ReadCloser, error) {
	v, err := image.VerifyReader(r, desc)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{v, r}, nil
}
