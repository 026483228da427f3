package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

// A Registry is where images are pulled from. A *remote.Client is one.
type Registry interface {
	Resolve(ctx context.Context, ref distribution.Reference) (v1.Descriptor, []byte, error)
	Manifest(ctx context.Context, repo distribution.Repository, desc v1.Descriptor) ([]byte, error)
	// Blob reads a blob from offset on. What it yields need not be verified.
	Blob(ctx context.Context, repo distribution.Repository, desc v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// A PushRegistry is one that images can be pushed to as well. A *remote.Client
// is one.
type PushRegistry interface {
	Registry
	HasBlob(ctx context.Context, repo distribution.Repository, desc v1.Descriptor) (bool, error)
	Mount(ctx context.Context, repo distribution.Repository, from string, d digest.Digest) (bool, error)
	PushBlob(ctx context.Context, repo distribution.Repository, desc v1.Descriptor, open func() (io.ReadCloser, error)) error
	PushManifest(ctx context.Context, ref distribution.Reference, mediaType string, body []byte) (v1.Descriptor, error)
}

// registrySource is an image on a registry: a transfer.Source.
type registrySource struct {
	registry Registry
	repo     distribution.Repository
	root     v1.Descriptor
	data     []byte // of root
	done     func()
}

func openRegistrySource(ctx context.Context, registry Registry, ref distribution.Reference, done func()) (*registrySource, error) {
	root, data, err := registry.Resolve(ctx, ref.WithDefaultTag())
	if err != nil {
		done()
		return nil, err
	}
	return &registrySource{registry, ref.Repository, root, data, done}, nil
}

func (s *registrySource) Root() v1.Descriptor { return s.root }

func (s *registrySource) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Digest == s.root.Digest {
		return s.data, nil
	}
	data, err := fetchDocument(ctx, s.registry, s.repo, desc)
	return data, orNotExist(err)
}

func (s *registrySource) Blob(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := s.registry.Blob(ctx, s.repo, desc, offset)
	return r, orNotExist(err)
}

func (s *registrySource) Close() error {
	s.done()
	return nil
}

// orNotExist says in image's words that a registry does not have something.
func orNotExist(err error) error {
	if errors.Is(err, distribution.ErrNotFound) {
		return &classified{err, fs.ErrNotExist}
	}
	return err
}

// fetchDocument gets a manifest, an index or a config.
func fetchDocument(ctx context.Context, registry Registry, repo distribution.Repository, desc v1.Descriptor) ([]byte, error) {
	if kind := image.KindOf(desc); kind == image.KindManifest || kind == image.KindIndex {
		return registry.Manifest(ctx, repo, desc)
	}
	if desc.Size > image.MaxDocumentBytes {
		return nil, fmt.Errorf("%s %s: %d bytes, more than the %d that a document may have",
			image.KindOf(desc), desc.Digest, desc.Size, image.MaxDocumentBytes)
	}
	r, err := registry.Blob(ctx, repo, desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(distribution.Verify(r, desc))
}

// registryDestination is a name on a registry: a transfer.Destination.
type registryDestination struct {
	registry PushRegistry
	ref      distribution.Reference
	from     []string // other repositories there, which may have the blobs already
	done     func()
}

// mountFrom has blobs taken from where the sources are, as far as that is another
// repository of the same registry.
func (d *registryDestination) mountFrom(sources ...transfer.Source) {
	for _, s := range sources {
		r, ok := s.(*registrySource)
		if ok && r.repo.Host == d.ref.Host && r.repo.Name != d.ref.Name && !slices.Contains(d.from, r.repo.Name) {
			d.from = append(d.from, r.repo.Name)
		}
	}
}

func (d *registryDestination) HasBlob(ctx context.Context, desc v1.Descriptor) (bool, error) {
	return d.registry.HasBlob(ctx, d.ref.Repository, desc)
}

func (d *registryDestination) PutBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	for _, from := range d.from {
		if mounted, err := d.registry.Mount(ctx, d.ref.Repository, from, desc.Digest); err == nil && mounted {
			return nil // where it was not, for whatever reason, it can still be pushed
		}
	}
	// A registry takes nothing that has another digest; to hash it here, too, would be
	// most of the work of a push.
	err := d.registry.PushBlob(ctx, d.ref.Repository, desc, func() (io.ReadCloser, error) { return open(0) })
	if errors.Is(err, distribution.ErrDigestMismatch) {
		return &classified{err, image.ErrMismatch}
	}
	return err
}

func (d *registryDestination) PutManifest(ctx context.Context, desc v1.Descriptor, data []byte) error {
	ref := distribution.Reference{Repository: d.ref.Repository, Digest: desc.Digest}
	_, err := d.registry.PushManifest(ctx, ref, desc.MediaType, data)
	return err
}

func (d *registryDestination) PutRoot(ctx context.Context, desc v1.Descriptor, data []byte) error {
	ref := d.ref.WithDefaultTag()
	if ref.Digest != "" && ref.Digest != desc.Digest {
		return fmt.Errorf("push %s: what is to be pushed is %s: %w", ref, desc.Digest, distribution.ErrDigestMismatch)
	}
	ref.Digest = desc.Digest
	_, err := d.registry.PushManifest(ctx, ref, desc.MediaType, data)
	return err
}

func (d *registryDestination) Commit(context.Context) error { return nil }

func (d *registryDestination) Close() error {
	d.done()
	return nil
}
