package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image/archive"
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
	dst, err := e.destination(ctx, to, o.To, src)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
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

// destination is OpenDestination for what comes from sources: an OCI archive
// among them keeps what else it has, and a registry need not be sent what it has.
func (e *Engine) destination(ctx context.Context, name string, registry PushRegistry, sources ...transfer.Source) (transfer.Destination, error) {
	if l, err := transport.Parse(name); err == nil && l.Kind == transport.OCIArchive {
		for _, s := range sources {
			if a, ok := s.(*archive.Source); ok && a.IsAt(l.Path) {
				return archiveBeside(ctx, a.Archive, l)
			}
		}
	}
	dst, err := e.OpenDestination(ctx, name, registry)
	if r, ok := dst.(*registryDestination); ok {
		r.mountFrom(sources...)
	}
	return dst, err
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
	var ref distribution.Reference
	if name != "" {
		var err error
		if ref, err = distribution.ParseReference(name); err != nil {
			return nil, err
		}
		ref = ref.WithDefaultTag()
		name = ref.String()
	}
	session, err := e.images.Begin(ctx)
	if err != nil {
		return nil, err
	}
	dst, err := session.Destination(name, session)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	if ref.Digest != "" {
		return pinned{dst, ref}, nil
	}
	return dst, nil
}

// pinned is a name with a digest, which who uses it later relies on: nothing
// else can have it, whatever an archive says.
type pinned struct {
	transfer.Destination
	ref distribution.Reference
}

// PutRoot implements transfer.Destination.
func (p pinned) PutRoot(ctx context.Context, desc v1.Descriptor, data []byte) error {
	if desc.Digest != p.ref.Digest {
		return fmt.Errorf("name %s: what is to have it is %s: %w", p.ref, desc.Digest, distribution.ErrDigestMismatch)
	}
	return p.Destination.PutRoot(ctx, desc, data)
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
