package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/registries"
)

// Routed is a Client that goes where a registries.conf leads: reads ask an
// image's mirrors first, and the registry itself last; writes go to the
// registry's location. Names in arguments are those before that. Credentials
// are looked up by the place that is asked, and only errors tell of it.
//
// What comes from a mirror is verified like everything; a tag's digest is the
// mirror's word, which is what having a mirror means.
type Routed struct {
	*Client
	Config  *registries.Config
	mirrors *Client // nil where Client does for them, too
}

// NewRouted makes a Routed. The places that the configuration calls insecure
// are so for the client, too.
func NewRouted(opts Options, config *registries.Config) Routed {
	insecure := map[string]bool{}
	for _, r := range config.Registries {
		if repo, err := distribution.ParseReference(r.Location + "/x"); err == nil && r.Insecure {
			insecure[repo.APIHost()] = true
		}
		if repo, err := distribution.ParseReference(r.Prefix + "/x"); err == nil && r.Insecure && r.Location == "" {
			insecure[repo.APIHost()] = true
		}
		for _, m := range r.Mirrors {
			if repo, err := distribution.ParseReference(m.Location + "/x"); err == nil && m.Insecure {
				insecure[repo.APIHost()] = true
			}
		}
	}
	if given := opts.Insecure; given != nil {
		opts.Insecure = func(host string) bool { return insecure[host] || given(host) }
	} else {
		opts.Insecure = func(host string) bool { return insecure[host] }
	}
	r := Routed{Client: New(opts), Config: config}
	if opts.MirrorCredentials != nil || len(opts.Certificates) > 0 {
		if opts.MirrorCredentials != nil {
			opts.Credentials = opts.MirrorCredentials
		}
		opts.Certificates = nil
		r.mirrors = New(opts)
	}
	return r
}

// Close is Client.Close.
func (r Routed) Close() {
	r.Client.Close()
	if r.mirrors != nil {
		r.mirrors.Close()
	}
}

// client is the one to ask at a place.
func (r Routed) client(place registries.Place) *Client {
	if place.Mirror && r.mirrors != nil {
		return r.mirrors
	}
	return r.Client
}

// ask calls use with one place after the other until one has the answer. The
// error is the last place's, which is the registry's own, unless only a mirror
// had a better one to tell than that something is not there.
func ask[T any](ctx context.Context, r Routed, ref distribution.Reference, use func(*Client, distribution.Repository) (T, error)) (answer T, err error) {
	places, err := r.Config.Places(ref)
	if err != nil {
		return answer, err
	}
	var failed []error
	for _, place := range places {
		answer, err := use(r.client(place), place.Repository)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return answer, err
		}
		failed = append(failed, err)
	}
	if last := failed[len(failed)-1]; len(failed) == 1 || errors.Is(last, distribution.ErrNotFound) {
		return answer, last
	}
	return answer, errors.Join(failed...)
}

// Resolve is Client.Resolve.
func (r Routed) Resolve(ctx context.Context, ref distribution.Reference) (ocispec.Descriptor, []byte, error) {
	type manifest struct {
		desc ocispec.Descriptor
		body []byte
	}
	m, err := ask(ctx, r, ref, func(c *Client, repo distribution.Repository) (m manifest, err error) {
		at := ref
		at.Repository = repo
		m.desc, m.body, err = c.Resolve(ctx, at)
		return m, err
	})
	return m.desc, m.body, err
}

// Stat is Client.Stat.
func (r Routed) Stat(ctx context.Context, ref distribution.Reference) (ocispec.Descriptor, error) {
	return ask(ctx, r, ref, func(c *Client, repo distribution.Repository) (ocispec.Descriptor, error) {
		at := ref
		at.Repository = repo
		return c.Stat(ctx, at)
	})
}

// Manifest is Client.Manifest.
func (r Routed) Manifest(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor) ([]byte, error) {
	return ask(ctx, r, distribution.Reference{Repository: repo, Digest: desc.Digest}, func(c *Client, repo distribution.Repository) ([]byte, error) {
		return c.Manifest(ctx, repo, desc)
	})
}

// Blob is Client.Blob. Where a mirror ends in the middle, the next place goes on.
func (r Routed) Blob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	places, err := r.Config.Places(distribution.Reference{Repository: repo, Digest: desc.Digest})
	if err != nil {
		return nil, err
	}
	b := &placedBlob{ctx: ctx, routed: r, desc: desc, offset: offset, places: places}
	return b, b.next(nil)
}

// placedBlob reads a blob from one place after the other.
type placedBlob struct {
	io.ReadCloser // from the place at hand
	ctx           context.Context
	routed        Routed
	desc          ocispec.Descriptor
	offset        int64
	places        []registries.Place // yet to be asked
}

// next goes on at the next place that has the blob; cause is why.
func (b *placedBlob) next(cause error) error {
	for len(b.places) > 0 && b.ctx.Err() == nil {
		place := b.places[0]
		b.places = b.places[1:]
		r, err := b.routed.client(place).Blob(b.ctx, place.Repository, b.desc, b.offset)
		if err == nil {
			b.ReadCloser = r
			return nil
		}
		cause = err
	}
	if cause == nil {
		cause = context.Cause(b.ctx)
	}
	b.ReadCloser = failedBlob{cause}
	return cause
}

func (b *placedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.offset += int64(n)
	if err == nil || err == io.EOF || len(b.places) == 0 {
		return n, err
	}
	_ = b.ReadCloser.Close() // it has failed already
	return n, b.next(err)
}

// failedBlob is what is left when no place has the blob.
type failedBlob struct{ error }

func (f failedBlob) Read([]byte) (int, error) { return 0, f.error }
func (f failedBlob) Close() error             { return nil }

// BlobBytes is Client.BlobBytes.
func (r Routed) BlobBytes(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	return ask(ctx, r, distribution.Reference{Repository: repo, Digest: desc.Digest}, func(c *Client, repo distribution.Repository) ([]byte, error) {
		return c.BlobBytes(ctx, repo, desc, limit)
	})
}

// at calls use with the registry's own location.
func at[T any](r Routed, repo distribution.Repository, use func(distribution.Repository) (T, error)) (T, error) {
	place, err := r.Config.Location(repo)
	if err != nil {
		var none T
		return none, fmt.Errorf("registry %w", err)
	}
	return use(place.Repository)
}

// Tags is Client.Tags.
func (r Routed) Tags(ctx context.Context, repo distribution.Repository) ([]string, error) {
	return at(r, repo, func(repo distribution.Repository) ([]string, error) { return r.Client.Tags(ctx, repo) })
}

// Referrers is Client.Referrers.
func (r Routed) Referrers(ctx context.Context, repo distribution.Repository, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	return at(r, repo, func(repo distribution.Repository) ([]ocispec.Descriptor, error) {
		return r.Client.Referrers(ctx, repo, d, artifactType)
	})
}

// HasBlob is Client.HasBlob: it is asked before a push.
func (r Routed) HasBlob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor) (bool, error) {
	return at(r, repo, func(repo distribution.Repository) (bool, error) { return r.Client.HasBlob(ctx, repo, desc) })
}

// PushBlob is Client.PushBlob.
func (r Routed) PushBlob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	_, err := at(r, repo, func(repo distribution.Repository) (struct{}, error) {
		return struct{}{}, r.Client.PushBlob(ctx, repo, desc, open)
	})
	return err
}

// Mount is Client.Mount. From is a repository at the same location only if
// both are led there by the same rule, so it is led there as well.
func (r Routed) Mount(ctx context.Context, repo distribution.Repository, from string, d digest.Digest) (bool, error) {
	source, err := r.Config.Location(distribution.Repository{Host: repo.Host, Name: from})
	if err != nil {
		return false, err
	}
	return at(r, repo, func(repo distribution.Repository) (bool, error) {
		if source.Host != repo.Host {
			return false, nil
		}
		return r.Client.Mount(ctx, repo, source.Name, d)
	})
}

// PushManifest is Client.PushManifest.
func (r Routed) PushManifest(ctx context.Context, ref distribution.Reference, mediaType string, body []byte) (ocispec.Descriptor, error) {
	return at(r, ref.Repository, func(repo distribution.Repository) (ocispec.Descriptor, error) {
		at := ref
		at.Repository = repo
		return r.Client.PushManifest(ctx, at, mediaType, body)
	})
}

// Delete is Client.Delete.
func (r Routed) Delete(ctx context.Context, ref distribution.Reference) error {
	_, err := at(r, ref.Repository, func(repo distribution.Repository) (struct{}, error) {
		at := ref
		at.Repository = repo
		return struct{}{}, r.Client.Delete(ctx, at)
	})
	return err
}
