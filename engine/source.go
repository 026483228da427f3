package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
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

// layoutPrefix begins the name of an image in a layout of somebody else's.
const layoutPrefix = "oci:"

// source finds an image by its name in the store, pulls it if it is missing
// there, its layers by take, or finds it in the layout that is named. The caller
// holds a lease.
func (e *Engine) source(ctx context.Context, name string, platform *v1.Platform, o PullOptions, take taker) (*source, error) {
	if rest, ok := strings.CutPrefix(name, layoutPrefix); ok {
		return e.sourceInLayout(ctx, name, rest, platform)
	}
	found, err := e.Resolve(ctx, name, platform)
	if errors.Is(err, ErrNoImage) && !strings.HasPrefix(name, "sha256:") {
		var ref distribution.Reference
		if ref, err = distribution.ParseReference(name); err != nil {
			return nil, err
		}
		o.Platform = platform
		found, err = e.pullReference(ctx, ref.WithDefaultTag(), o, take)
	}
	if err != nil {
		return nil, err
	}
	// What the store has was verified when it came, and the DiffID is again.
	return &source{found.Name, found.Image, stored[*layout.Blob]{e.images.Open}, func() error { return nil }}, nil
}

func (e *Engine) sourceInLayout(ctx context.Context, name, where string, platform *v1.Platform) (*source, error) {
	dir, tag := layout.SplitName(where)
	store, err := layout.Open(dir, layout.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	desc, err := store.Resolve(ctx, tag)
	var img *image.Image
	if err == nil {
		img, err = image.Select(ctx, store, desc, platformOr(platform))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image %s: %w", name, err), store.Close())
	}
	return &source{name, img, stored[io.ReadCloser]{store.OpenVerified}, store.Close}, nil
}
