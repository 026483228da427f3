package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image/directory"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/transfer"
)

// CopyOptions say how to copy.
type CopyOptions struct {
	transfer.Options
	// From and To are the registries to use for the source and the destination
	// if they are on one; nil is an anonymous client.
	From Registry
	To   PushRegistry
}

// Copy copies an image, an index or an artifact from one place to another; both
// are named as package transport tells. Digests stay, unless the destination's
// form has none. A plain name as source is an image of the store, or of a
// registry if the store has none of that name; as destination it is one of the
// store.
func (e *Engine) Copy(ctx context.Context, from, to string, o CopyOptions) (transfer.Result, error) {
	r, err := e.copy(ctx, from, to, o)
	if err != nil {
		return r, fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return r, nil
}

func (e *Engine) copy(ctx context.Context, from, to string, o CopyOptions) (r transfer.Result, err error) {
	src, err := e.OpenSource(ctx, from, o.From)
	if err != nil {
		return r, err
	}
	defer src.Close()
	return e.copyFrom(ctx, src, to, o)
}

func (e *Engine) copyFrom(ctx context.Context, src transfer.Source, to string, o CopyOptions) (r transfer.Result, err error) {
	dst, err := e.OpenDestination(ctx, to, o.To)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if d, ok := dst.(*registryDestination); ok {
		d.mountFrom(src)
	}
	if r, err = transfer.Copy(ctx, dst, src, o.Options); err != nil {
		return r, err
	}
	return r, dst.Commit(ctx)
}

// OpenSource opens an image wherever it is kept. The registry may be nil.
func (e *Engine) OpenSource(ctx context.Context, name string, registry Registry) (transfer.Source, error) {
	l, err := transport.Parse(name)
	if err != nil {
		return nil, err
	}
	switch l.Kind {
	case transport.Plain:
		src, err := e.storeSource(ctx, l.Name)
		if errors.Is(err, ErrNoImage) && !strings.HasPrefix(l.Name, "sha256:") {
			break // it may be on a registry
		}
		return src, err
	case transport.Layout:
		return layoutSource(ctx, l)
	case transport.OCIArchive, transport.DockerArchive:
		return archiveSource(ctx, l)
	case transport.Dir:
		return directory.Open(l.Path)
	}
	done := func() {}
	if registry == nil {
		client := remote.New(remote.Options{})
		registry, done = client, client.Close
	}
	ref, err := e.reference(ctx, l.Name, registry)
	if err != nil {
		done()
		return nil, err
	}
	return openRegistrySource(ctx, registry, ref, done)
}

// storeSource keeps GC away from the image until it is closed.
func (e *Engine) storeSource(ctx context.Context, name string) (transfer.Source, error) {
	session, err := e.images.Begin(ctx)
	if err != nil {
		return nil, err
	}
	found, err := e.find(ctx, name)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return e.images.Source(found.Desc, session), nil
}

func layoutSource(ctx context.Context, l transport.Location) (transfer.Source, error) {
	store, err := layout.Open(l.Path, layout.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	desc, err := store.Resolve(ctx, l.Name)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store.Source(desc, store), nil
}

// OpenDestination prepares a place to keep an image in. The registry may be nil.
func (e *Engine) OpenDestination(ctx context.Context, name string, registry PushRegistry) (transfer.Destination, error) {
	l, err := transport.Parse(name)
	if err != nil {
		return nil, err
	}
	switch l.Kind {
	case transport.Plain:
		return e.storeDestination(ctx, l.Name)
	case transport.Layout:
		return layoutDestination(ctx, l)
	case transport.OCIArchive, transport.DockerArchive:
		return archiveDestination(l)
	case transport.Dir:
		return directory.Create(l.Path)
	}
	ref, err := distribution.ParseReference(l.Name)
	if err != nil {
		return nil, err
	}
	if registry != nil {
		return &registryDestination{registry: registry, ref: ref, done: func() {}}, nil
	}
	client := remote.New(remote.Options{})
	return &registryDestination{registry: client, ref: ref, done: client.Close}, nil
}

// storeDestination prepares a name of the store; an empty one is none.
func (e *Engine) storeDestination(ctx context.Context, name string) (transfer.Destination, error) {
	if name != "" {
		ref, err := distribution.ParseReference(name)
		if err != nil {
			return nil, err
		}
		name = ref.WithDefaultTag().String()
	}
	session, err := e.images.Begin(ctx)
	if err != nil {
		return nil, err
	}
	dst, err := session.Destination(name, session)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return dst, nil
}

func layoutDestination(ctx context.Context, l transport.Location) (transfer.Destination, error) {
	store, err := layout.Open(l.Path, layout.Options{Create: true})
	if err != nil {
		return nil, err
	}
	session, err := store.Begin(ctx)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	dst, err := session.Destination(l.Name, session, store)
	if err != nil {
		return nil, errors.Join(err, session.Close(), store.Close())
	}
	return dst, nil
}
