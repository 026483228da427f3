package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/tree"
)

// Contents is an image that is looked into without unpacking it.
type Contents struct {
	Name   string
	Image  *image.Image
	source transfer.Source
	dir    string // for what is too large to keep in memory
}

// OpenContents finds an image, which may be named as for OpenSource, for a
// platform; nil is this machine's.
func (e *Engine) OpenContents(ctx context.Context, name string, platform *v1.Platform, registry Registry) (*Contents, error) {
	src, err := e.OpenSource(ctx, name, registry)
	if err != nil {
		return nil, err
	}
	img, err := selectOrOnly(ctx, src, src.Root(), platform)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image %s: %w", name, err), src.Close())
	}
	return &Contents{name, img, src, e.options.Root}, nil
}

// selectOrOnly is Select for looking at an image, not for running it: one that
// is no index is the one that is meant, whatever it is for, unless a platform
// was asked for.
func selectOrOnly(ctx context.Context, f image.Fetcher, root v1.Descriptor, platform *v1.Platform) (*image.Image, error) {
	if platform == nil && image.KindOf(root) == image.KindManifest {
		return image.Load(ctx, f, root)
	}
	return image.Select(ctx, f, root, platformOr(platform))
}

// Close gives the image up.
func (c *Contents) Close() error { return c.source.Close() }

func (c *Contents) open(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return c.source.Blob(ctx, desc, 0)
}

// ConfigBytes is the configuration as it was written.
func (c *Contents) ConfigBytes(ctx context.Context) ([]byte, error) {
	return c.source.Fetch(ctx, c.Image.Manifest.Config)
}

// Tree merges the image's layers. With sums the contents of files can be
// compared.
func (c *Contents) Tree(ctx context.Context, sums bool) (*tree.Tree, error) {
	t := tree.New(tree.Limits{})
	return t, c.named(t.Read(ctx, c.Image, c.open, tree.Options{Sums: sums}))
}

func (c *Contents) named(err error) error {
	if err != nil {
		return fmt.Errorf("image %s: %w", c.Name, err)
	}
	return nil
}

// LayerContents is what one layer does to those below it.
type LayerContents struct {
	Number    int // counted from 1
	Desc      v1.Descriptor
	History   v1.History // that made it
	SizeBytes int64      // uncompressed
	Entries   int
	Changes   []tree.Change
}

// Layers calls visit with each layer, the lowest first.
func (c *Contents) Layers(ctx context.Context, visit func(LayerContents) error) error {
	var history []v1.History
	for _, h := range c.Image.Config.History {
		if !h.EmptyLayer {
			history = append(history, h)
		}
	}
	return c.named(tree.New(tree.Limits{}).Read(ctx, c.Image, c.open, tree.Options{
		Sums: true,
		OnLayer: func(n int, l *tree.Layer, r layer.Result) error {
			lc := LayerContents{Number: n + 1, Desc: c.Image.Manifest.Layers[n], SizeBytes: r.SizeBytes, Entries: r.Entries, Changes: l.Changes()}
			if n < len(history) {
				lc.History = history[n]
			}
			return visit(lc)
		},
	}))
}

// maxHeldBytes is how large a file may be to be held back until it is verified.
const maxHeldBytes = 1 << 30

// Cat writes the content of a file to w: once all of it has been read and
// verified, or, if it is larger than 1 GiB, as it comes. What turns out to be
// wrong then is an error at the end.
func (c *Contents) Cat(ctx context.Context, t *tree.Tree, f *tree.File, w io.Writer) (err error) {
	if f.Type != tarstream.TypeReg {
		return errors.New("not a regular file")
	}
	if f.SizeBytes > maxHeldBytes {
		return c.named(t.Content(ctx, c.Image, c.open, tree.Options{}, f, w))
	}
	tmp, err := transfer.UnnamedFile(c.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Close()) }()
	if err := t.Content(ctx, c.Image, c.open, tree.Options{}, f, tmp); err != nil {
		return c.named(err)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, tmp)
	return err
}

// CompareImages merges the layers of two images; those that both begin with are
// read once.
func CompareImages(ctx context.Context, a, b *Contents) ([]tree.Change, error) {
	shared := 0
	ids, other := a.Image.Config.RootFS.DiffIDs, b.Image.Config.RootFS.DiffIDs
	for shared < min(len(ids), len(other)) && ids[shared] == other[shared] {
		shared++
	}
	if shared == len(ids) && shared == len(other) {
		return nil, nil
	}
	base := tree.New(tree.Limits{})
	below := *a.Image
	below.Manifest.Layers = below.Manifest.Layers[:shared]
	options := tree.Options{Sums: true}
	if err := base.Read(ctx, &below, a.open, options); err != nil {
		return nil, a.named(err)
	}
	from, to := base, base.Clone()
	if err := from.Read(ctx, a.Image, a.open, options); err != nil {
		return nil, a.named(err)
	}
	if err := to.Read(ctx, b.Image, b.open, options); err != nil {
		return nil, b.named(err)
	}
	return tree.Compare(from, to), nil
}
