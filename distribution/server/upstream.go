package server

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Reader is what a Registry answers from. A storage.Store is one, and its
// methods' docs hold for each.
type Reader interface {
	Manifest(ctx context.Context, repo, target string) (storage.Manifest, error)
	Blob(ctx context.Context, repo string, d digest.Digest) (r io.ReadSeekCloser, sizeBytes int64, err error)
	BlobURL(ctx context.Context, repo string, d digest.Digest) (string, error)
	StatBlob(ctx context.Context, repo string, d digest.Digest) (sizeBytes int64, err error)
	Tags(ctx context.Context, repo, last string, n int) (tags []string, more bool, err error)
	Referrers(ctx context.Context, repo string, subject, last digest.Digest, filter *string, maxBytes int) (list []ocispec.Descriptor, more bool, err error)
}

// Upstream is a Reader before the store, which fetches what that lacks from
// other registries: package upstream has one. Manifest, Tags and Referrers may
// return an error that is ErrStale beside what is good to be sent.
type Upstream interface {
	Reader
	// Locate is the repository that is meant by one of another registry, the
	// namespace, as containerd asks its mirrors ("?ns=docker.io"); "" if that is
	// not to be had here.
	Locate(repo, namespace string) string
	// Writable is a *distribution.Error if repo is a copy, to which nobody can push.
	Writable(ctx context.Context, repo string) error
}

var (
	// ErrStale stands beside what was right some time ago, and of which nobody
	// knows whether it still is.
	ErrStale = errors.New("the upstream registry cannot be asked")
	// ErrUpstream is a failure of another registry.
	ErrUpstream = errors.New("upstream registry")
)

// namespaceParam has the registry that a mirror is asked in place of.
const namespaceParam = "ns"

// locate turns the name that a mirror is asked for into the one it has here,
// before anybody asks who may read it.
func (g *Registry) locate(q *request) error {
	if g.opts.Upstream == nil || q.Name == "" || q.URL.RawQuery == "" {
		return nil
	}
	ns := q.URL.Query().Get(namespaceParam)
	if ns == "" {
		return nil
	}
	name := g.opts.Upstream.Locate(q.Name, ns)
	if distribution.ValidateName(name) != nil {
		return plainError(distribution.CodeNameUnknown)
	}
	q.Name = name
	return nil
}

// writable refuses what is for copies not to be changed.
func (g *Registry) writable(q *request) error {
	if g.opts.Upstream == nil {
		return nil
	}
	return g.opts.Upstream.Writable(q.Context(), q.Name)
}

// stale tells people of ErrStale, and returns any other error.
func (q *request) stale(err error) error {
	if !errors.Is(err, ErrStale) {
		return err
	}
	q.w.Header().Set("Warning", distribution.Warning("this may be out of date: the registry that it is a copy of cannot be asked"))
	return nil
}
