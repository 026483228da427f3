package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/changeset"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/tree"
	"github.com/tare-oci/tare/safepath"
)

// changedTree is a file tree, and what has changed in it since it was an image.
type changedTree struct {
	root    *safepath.Root
	origin  origin
	options changeset.Options
	set     *changeset.Set
	release func() error // of who keeps it from changing; may be nil
	closed  bool
}

// close gives the tree up. It may be called twice.
func (c *changedTree) close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.root.Close()
	if c.release != nil {
		err = errors.Join(err, c.release())
	}
	return err
}

// Changes lists what has changed in a container, or in a bundle that Unpack has made: a name that has a slash, or is no
// container's, is a directory.
func (e *Engine) Changes(ctx context.Context, name string, o ChangeOptions) ([]changeset.Change, error) {
	c, err := e.changedTreeOf(ctx, name, o)
	if err != nil {
		return nil, fmt.Errorf("changes of %s: %w", name, err)
	}
	return c.set.Changes(), c.close()
}

// ChangeOptions say which changes count.
type ChangeOptions struct {
	// Mask has paths whose changes do not count.
	Mask []string
	// KeepVolumes counts the changes in the image's volumes, too, of a bundle. A container's have their own mounts.
	KeepVolumes bool
}

func (e *Engine) changedTreeOf(ctx context.Context, name string, o ChangeOptions) (*changedTree, error) {
	c, err := e.findContainer(name)
	switch {
	case err == nil:
		return e.changedContainer(ctx, c, o)
	case errors.Is(err, ErrNoContainer):
		st, serr := os.Stat(name)
		switch {
		case serr == nil && st.IsDir():
			return e.changedBundle(ctx, name, o)
		case strings.Contains(name, "/") && serr != nil: // no container's name has one
			return nil, serr
		case strings.Contains(name, "/"):
			return nil, fmt.Errorf("not a bundle: %w", unix.ENOTDIR)
		}
	}
	return nil, err
}

// changedBundle compares a bundle's files with their record.
func (e *Engine) changedBundle(ctx context.Context, bundle string, o ChangeOptions) (*changedTree, error) {
	from, err := readOrigin(bundle)
	if err != nil {
		return nil, err
	}
	c := &changedTree{origin: from, options: from.changesetOptions()}
	c.options.Mask, c.options.Warn = o.Mask, e.options.Warn
	if !o.KeepVolumes {
		volumes, err := e.volumesOf(ctx, from)
		if err != nil {
			return nil, err
		}
		c.options.Mask = append(volumes, c.options.Mask...)
	}
	if err := c.compare(ctx, filepath.Join(bundle, rootfsName), filepath.Join(bundle, recordFile)); err != nil {
		return nil, err
	}
	if c.set.Unsure() == 0 {
		return c, nil
	}
	if err := e.confirm(ctx, c); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// confirm compares files that may be copies of the image's with those. Where the image cannot be read, they count as changed.
func (e *Engine) confirm(ctx context.Context, c *changedTree) error {
	src, img, err := e.openOrigin(ctx, c.origin)
	if err != nil {
		return err
	}
	original := tree.New(tree.Limits{})
	err = original.Read(ctx, img, func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) { return src.Blob(ctx, d, 0) }, tree.Options{Sums: true})
	if err := errors.Join(ctx.Err(), src.Close()); err != nil {
		return err
	}
	if err != nil {
		e.options.Warn(fmt.Sprintf("%d files that may be copies count as changed: image %s: %v", c.set.Unsure(), c.origin.Image, err))
		return nil
	}
	return c.set.Confirm(ctx, c.root, original, c.options)
}

// compare compares a tree with its record.
func (c *changedTree) compare(ctx context.Context, rootfs, record string) (err error) {
	f, err := os.Open(record)
	if err != nil {
		return err
	}
	defer f.Close()
	if c.root, err = safepath.OpenRoot(rootfs); err != nil {
		return err
	}
	if c.set, err = changeset.Compare(ctx, c.root, f, c.options); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

// volumesOf are the volumes that the image names.
func (e *Engine) volumesOf(ctx context.Context, o origin) ([]string, error) {
	src, img, err := e.openOrigin(ctx, o)
	if err != nil {
		return nil, err
	}
	var volumes []string
	for path := range img.Config.Config.Volumes {
		if clean, err := safepath.Clean(path); err == nil && clean != "." {
			volumes = append(volumes, clean)
		}
	}
	return volumes, src.Close()
}

// NewImageOptions say what becomes of changes.
type NewImageOptions struct {
	Changes ChangeOptions
	Pack    layer.PackOptions
	// History describes the new layer, or that there is none.
	History v1.History
	// Author is the image's from now on, unless it is empty.
	Author string
	// Edits change the configuration.
	Edits []mutate.Edit
	// LatestTime takes the place of later times of files, in seconds since 1970: SOURCE_DATE_EPOCH.
	LatestTime *int64
	// Registry is for images on one; nil is an anonymous client.
	Registry PushRegistry
}

// NewImage is an image that was made of changes.
type NewImage struct {
	Descriptor v1.Descriptor  // of its manifest
	Layer      *v1.Descriptor // that was added; nil if no file has changed
	Changes    int            // of names
}

// put closes the tree and makes an image of the changes on top of what the tree was made from, and gives it a name wherever that is. Blobs that
// are there already are not copied.
func (e *Engine) put(ctx context.Context, c *changedTree, name string, o NewImageOptions) (n NewImage, err error) {
	if _, err := transport.Parse(name); err != nil && name != "" { // before the work, not after it
		return n, err
	}
	made, n, err := e.compose(ctx, c, o)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	dst, err := e.destinationOf(ctx, name, n.Descriptor, o.Registry, made.Sources()...)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	r, err := transfer.Copy(ctx, dst, made, transfer.Options{})
	if err != nil {
		return n, err
	}
	n.Descriptor = r.Root // in a docker archive it has another
	return n, dst.Commit(ctx)
}

// compose closes the tree and makes an image of the changes on top of what the tree was made from, which nobody but the caller has.
func (e *Engine) compose(ctx context.Context, c *changedTree, o NewImageOptions) (made *transfer.Composed, n NewImage, err error) {
	src, base, err := e.openOrigin(ctx, c.origin)
	if err != nil {
		return nil, n, err
	}
	made = transfer.Compose(e.options.Root, src)
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Close())
		}
	}()
	change := mutate.Change{Created: o.History.Created, Config: func(cfg *v1.Image) {
		if o.Author != "" {
			cfg.Author = o.Author
		}
		for _, edit := range o.Edits {
			edit(cfg)
		}
	}}
	n.Changes = len(c.set.Changes())
	if c.set.Empty() {
		change.History = []v1.History{o.History}
	} else {
		l, err := writeLayer(ctx, made, c, o)
		if err != nil {
			return made, n, err
		}
		n.Layer, change.Layers = &l.Desc, []mutate.Layer{l}
	}
	if err := c.close(); err != nil { // a container need not wait for the rest
		return made, n, err
	}
	if n.Descriptor, err = mutate.Apply(ctx, made, &base.Descriptor, change); err != nil {
		return made, n, err
	}
	made.SetRoot(n.Descriptor)
	return made, n, nil
}

// destinationOf is where an image of that name goes. One without a name is called by its digest in the store: what has no name at
// all is nobody's, and GC's.
func (e *Engine) destinationOf(ctx context.Context, name string, desc v1.Descriptor, registry PushRegistry,
	sources ...transfer.Source) (transfer.Destination, error) {
	if name != "" {
		return e.destination(ctx, name, registry, sources...)
	}
	session, err := e.images.Begin(ctx)
	if err != nil {
		return nil, err
	}
	dst, err := session.Destination(desc.Digest.String(), session)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return dst, nil
}

// writeLayer packs the changes into a layer.
func writeLayer(ctx context.Context, to *transfer.Composed, c *changedTree, o NewImageOptions) (mutate.Layer, error) {
	l := mutate.Layer{History: o.History}
	options := c.options
	options.LatestTime = o.LatestTime
	desc, err := to.Write(func(w io.Writer) (v1.Descriptor, error) {
		p, err := layer.NewPacker(w, o.Pack)
		if err != nil {
			return v1.Descriptor{}, err
		}
		err = c.set.Write(ctx, c.root, p, options)
		written, cerr := p.Close()
		l.DiffID = written.DiffID
		return written.Descriptor(), errors.Join(err, cerr)
	})
	l.Desc = desc
	return l, err
}

// RepackOptions say how a bundle becomes an image.
type RepackOptions struct {
	NewImageOptions
	// Refresh makes the bundle one of the new image: the next Repack finds what has changed since, and adds to that image.
	Refresh bool
}

// Repack makes an image of a bundle that Unpack has made: the one that it came from, with a layer of what has changed on top.
// The name may be any that Copy takes.
func (e *Engine) Repack(ctx context.Context, bundle, name string, o RepackOptions) (NewImage, error) {
	n, err := e.repack(ctx, bundle, name, o)
	if err != nil {
		return n, fmt.Errorf("repack %s as %s: %w", bundle, name, err)
	}
	return n, nil
}

func (e *Engine) repack(ctx context.Context, bundle, name string, o RepackOptions) (n NewImage, err error) {
	c, err := e.changedBundle(ctx, bundle, o.Changes)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if n, err = e.put(ctx, c, name, o.NewImageOptions); err != nil || !o.Refresh {
		return n, err
	}
	refreshed, err := originOf(name, &image.Image{Descriptor: n.Descriptor})
	if err != nil {
		return n, err
	}
	refreshed.Rootless, refreshed.UIDMap, refreshed.GIDMap = c.origin.Rootless, c.origin.UIDMap, c.origin.GIDMap
	return n, writeOrigin(ctx, bundle, filepath.Join(bundle, rootfsName), refreshed)
}
