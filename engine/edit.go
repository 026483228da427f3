package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
)

// EditOptions say where an image is changed, and which.
type EditOptions struct {
	// Tag is the name of the result: a place as for Copy, or, of an image in a
	// layout or on a registry, just a tag beside it. Empty is the image's own.
	Tag string
	// Platform chooses the image of an index that is changed; the result is
	// that image, without the index. All changes all of them, and the result is
	// an index.
	Platform *v1.Platform
	All      bool
	// Registry is the one to use; nil is an anonymous client.
	Registry PushRegistry
	// Progress may be nil.
	Progress transfer.Progress
}

// An Edit is a new image or index while it is made of others, wherever they are.
// Nothing is written anywhere before Finish, and only what the destination does
// not have is moved there: of an image whose configuration is changed on a
// registry, that and the manifest.
type Edit struct {
	*transfer.Composed
	engine  *Engine
	options EditOptions
}

// BeginEdit begins with no sources. The Edit is to be closed.
func (e *Engine) BeginEdit(o EditOptions) *Edit {
	return &Edit{transfer.Compose(e.options.Root), e, o}
}

// Open opens an image or index to take something from.
func (d *Edit) Open(ctx context.Context, name string) (v1.Descriptor, error) {
	src, err := d.engine.OpenSource(ctx, name, d.options.Registry)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d.Add(src)
	return src.Root(), nil
}

// Choose finds the image that is meant by what was opened.
func (d *Edit) Choose(ctx context.Context, desc v1.Descriptor) (*image.Image, error) {
	return selectOrOnly(ctx, d, desc, d.options.Platform)
}

// Finish gives the result a name and brings all that it needs there.
func (d *Edit) Finish(ctx context.Context, root v1.Descriptor, to string) (transfer.Result, error) {
	root.Annotations = nil // those of the entry that it was
	d.SetRoot(root)
	dst, err := d.engine.destination(ctx, to, d.options.Registry, d.Sources()...)
	if err != nil {
		return transfer.Result{}, err
	}
	o := transfer.Options{Progress: d.options.Progress}
	if image.KindOf(root) == image.KindIndex {
		o.All, o.Sparse = true, true
	}
	result, err := transfer.Copy(ctx, dst, d, o)
	if err == nil {
		err = dst.Commit(ctx)
	}
	return result, errors.Join(err, dst.Close())
}

// EditImage makes a new image of one that is there. Change is called with each
// image that is to be changed.
func (e *Engine) EditImage(ctx context.Context, name string, o EditOptions,
	change func(context.Context, *Edit, *image.Image) (v1.Descriptor, error)) (transfer.Result, error) {
	r, err := e.editImage(ctx, name, o, change)
	if err != nil {
		return r, fmt.Errorf("change %s: %w", name, err)
	}
	return r, nil
}

func (e *Engine) editImage(ctx context.Context, name string, o EditOptions,
	change func(context.Context, *Edit, *image.Image) (v1.Descriptor, error)) (_ transfer.Result, err error) {
	to, err := e.editTarget(ctx, name, o.Tag)
	if err != nil {
		return transfer.Result{}, err
	}
	d := e.BeginEdit(o)
	defer func() { err = errors.Join(err, d.Close()) }()
	root, err := d.Open(ctx, name)
	if err != nil {
		return transfer.Result{}, err
	}
	var made v1.Descriptor
	if o.All {
		made, err = mutate.Each(ctx, d, root, func(img *image.Image) (v1.Descriptor, error) { return change(ctx, d, img) })
	} else {
		var img *image.Image
		if img, err = d.Choose(ctx, root); err == nil {
			made, err = change(ctx, d, img)
		}
	}
	if err != nil {
		return transfer.Result{}, err
	}
	return d.Finish(ctx, made, to)
}

var errNoTag = errors.New("what is changed has no name of its own; give the result one with --tag")

// editTarget is where the result of changing an image goes.
func (e *Engine) editTarget(ctx context.Context, name, tag string) (string, error) {
	from, err := transport.Parse(name)
	if err != nil {
		return "", err
	}
	if tag == "" {
		return name, e.checkNamed(ctx, from)
	}
	to, err := transport.Parse(tag)
	if err != nil || to.Kind != transport.Plain {
		return tag, err
	}
	switch from.Kind {
	case transport.Layout, transport.OCIArchive:
		from.Name = tag
		return from.String(), nil
	case transport.Registry:
		if strings.ContainsAny(tag, "/:@") {
			return transport.Location{Kind: transport.Registry, Name: tag}.String(), nil
		}
		ref, err := distribution.ParseReference(from.Name)
		if err != nil {
			return "", err
		}
		ref.Tag, ref.Digest = tag, ""
		return transport.Location{Kind: transport.Registry, Name: ref.String()}.String(), distribution.ValidateTag(tag)
	}
	return tag, nil
}

// checkNamed makes sure that an image can be replaced under its name: one that
// is known by its digest cannot.
func (e *Engine) checkNamed(ctx context.Context, l transport.Location) error {
	switch l.Kind {
	case transport.Plain, transport.Registry:
		ref, err := distribution.ParseReference(l.Name)
		if err != nil || ref.Digest != "" {
			return errors.Join(err, errNoTag)
		}
		if found, ferr := e.find(ctx, l.Name); l.Kind == transport.Plain && ferr == nil && found.Name != ref.WithDefaultTag().String() && found.Name != l.Name {
			return errNoTag
		}
	case transport.Layout, transport.OCIArchive:
		if l.Name == "" {
			return errNoTag
		}
	}
	return nil
}
