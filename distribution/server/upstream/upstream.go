// Package upstream makes a registry of the OCI Distribution Spec a copy of
// others: what a repository below some prefix lacks is fetched from another
// registry while clients read it ("pull through"), verified, and kept.
// Implements server.Upstream.
//
// What a digest names is asked for once, a tag whenever it has not been looked
// at for a while. Where the other registry cannot be asked, what is here is
// served. A repository has only what its own upstream repository has given or
// confirmed: that the bytes are here already, for another one, opens nothing.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options configure a Set.
type Options struct {
	Sources []Source
	// SpoolDir is where blobs are while they come: "" is the system's directory
	// for temporary files.
	SpoolDir string
	// Log gets what clients are not told. Nil is silence.
	Log *slog.Logger
	// Count, if not nil, is told what became of each read: kind is "manifest",
	// "blob" or "list"; result "hit", "fetched", "fresh" (looked at, and still
	// right), "stale", "missing", "absent" (missing when it was asked for just before)
	// or "failed".
	Count func(source, kind, result string)
}

// Set is a server.Upstream: several registries before one store.
type Set struct {
	*storage.Store
	opts    Options
	sources []*source // those with longer prefixes first

	// What is fetched is fetched for all who ask, so it does not end with any
	// one request, but with the Set.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	ended   bool // under mu

	asking singleflight.Group // manifests and lists
	lists  lists
	absent absent

	mu      sync.Mutex
	flights map[string]*flight // blobs under way, by repository and digest
	asked   int                // other requests under way
	used    map[string]time.Time
}

var _ server.Upstream = (*Set)(nil)

// New makes a Set before store. It ends with Close.
func New(store *storage.Store, o Options) (*Set, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(string, string, string) {}
	}
	s := &Set{Store: store, opts: o, flights: map[string]*flight{}, used: map[string]time.Time{}}
	if err := Check(o.Sources); err != nil {
		return nil, err
	}
	for _, one := range o.Sources {
		u, err := newSource(one)
		if err != nil {
			return nil, err
		}
		s.sources = append(s.sources, u)
	}
	sortSources(s.sources)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends what is being fetched, and waits for it.
func (s *Set) Close() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	for _, u := range s.sources {
		u.client.Close()
		u.probe.Close()
	}
}

// begin counts one more piece of work that Close waits for, until end; false says
// that it is too late for that. The caller holds the lock.
func (s *Set) begin() bool {
	if !s.ended {
		s.running.Add(1)
	}
	return !s.ended
}

func (s *Set) end() { s.running.Done() }

// of is the source for a repository, nil if there is none.
func (s *Set) of(repo string) *source {
	for _, u := range s.sources {
		if u.covers(repo) {
			return u
		}
	}
	return nil
}

// Locate implements server.Upstream. A namespace that no source has is that of a
// mirror's client whose images were pushed here, unless the name is another
// source's.
func (s *Set) Locate(repo, namespace string) string {
	namespace = strings.ToLower(namespace)
	for _, u := range s.sources {
		if u.Namespace == namespace {
			return u.local(repo)
		}
	}
	if s.of(repo) != nil {
		return ""
	}
	return repo
}

// Writable implements server.Upstream: a repository below a prefix, or of which
// something has been fetched, is a copy; one to which somebody pushed before is not.
func (s *Set) Writable(ctx context.Context, repo string) error {
	u := s.of(repo)
	if u == nil {
		return nil
	}
	from, err := s.Upstream(ctx, repo)
	if err != nil {
		return err
	}
	if from == "" && u.Prefix != "" {
		own, err := s.IsOwn(ctx, repo)
		if err != nil {
			return err
		}
		if !own {
			from = u.remote(repo).String()
		}
	}
	if from != "" {
		return distribution.Errorf(distribution.CodeDenied, "%s is a copy of %s", repo, from)
	}
	return nil
}

// ahead is the source to be asked about repo, nil if what the store has is all.
func (s *Set) ahead(ctx context.Context, repo string) (*source, error) {
	u := s.of(repo)
	if u == nil {
		return nil, nil
	}
	own, err := s.IsOwn(ctx, repo)
	if err != nil || own {
		return nil, err
	}
	return u, nil
}

// once does work for all who ask for the same at a time. The work goes on when
// the one who asked first is gone.
func once[T any](ctx context.Context, s *Set, key string, limit time.Duration, work func(context.Context) (T, error)) (T, error) {
	done := s.asking.DoChan(key, func() (any, error) {
		if err := s.beginAsking(); err != nil {
			return nil, err
		}
		defer s.endAsking()
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		return work(ctx)
	})
	var none T
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case result := <-done:
		value, _ := result.Val.(T)
		return value, result.Err
	}
}

// beginAsking is begin for a request that is no blob's. As those go on when clients
// do not, they are not bounded by what clients are connected.
func (s *Set) beginAsking() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked >= maxAsked {
		return fmt.Errorf("ask upstream: %d requests are under way: %w", maxAsked, storage.ErrBusy)
	}
	if !s.begin() {
		return context.Canceled
	}
	s.asked++
	return nil
}

func (s *Set) endAsking() {
	s.mu.Lock()
	s.asked--
	s.mu.Unlock()
	s.end()
}

const maxAsked = 512

const (
	// askLimit is how long a registry may take for a manifest or list that is
	// not here, staleLimit for one of which there is an older version.
	askLimit   = 2 * time.Minute
	staleLimit = 15 * time.Second
	// restTime is how long a registry that failed is not asked again about what
	// is here.
	restTime = 10 * time.Second
)

// Expire removes the manifests of copies that nobody has asked for in the time
// that their sources keep them, and returns how many.
func (s *Set) Expire(ctx context.Context) (int, error) {
	now := time.Now()
	return s.ExpireManifests(ctx, func(repo, _ string) time.Time {
		if u := s.of(repo); u != nil && u.Keep > 0 {
			return now.Add(-u.Keep)
		}
		return time.Time{}
	})
}

// Keeps reports whether there is anything that Expire would ever remove.
func (s *Set) Keeps() bool {
	for _, u := range s.sources {
		if u.Keep > 0 {
			return true
		}
	}
	return false
}

// use notes that a manifest is in use, now and then.
func (s *Set) use(u *source, repo string, m storage.Manifest) {
	if u.Keep == 0 {
		return
	}
	key, now := repo+"@"+string(m.Digest), time.Now()
	s.mu.Lock()
	last, known := s.used[key]
	if known && now.Sub(last) < u.Keep/8 {
		s.mu.Unlock()
		return
	}
	if len(s.used) >= maxUsed {
		clear(s.used)
	}
	s.used[key] = now
	s.mu.Unlock()
	if err := s.RenewManifest(s.ctx, repo, m, now.Add(-u.Keep/8)); err != nil {
		s.opts.Log.Warn("note use of manifest", "repository", repo, "digest", m.Digest, "err", err)
	}
}

const maxUsed = 20_000

// keep stores a manifest of repo. Clients are served whether or not that works.
func (s *Set) keep(ctx context.Context, u *source, repo string, m storage.Manifest, tags ...string) {
	s.absent.forget(repo)
	err := s.SetUpstream(ctx, repo, u.remote(repo).String())
	if err == nil {
		err = s.PutManifest(ctx, repo, m, tags, false, func() error { return s.isCopy(ctx, repo) })
	}
	if err != nil && !errors.Is(err, storage.ErrFixed) {
		s.opts.Log.Warn("keep manifest", "repository", repo, "digest", m.Digest, "err", err)
	}
}

// isCopy is an error if somebody else took the mark off: see storage.SetUpstream.
func (s *Set) isCopy(ctx context.Context, repo string) error {
	from, err := s.Upstream(ctx, repo)
	if err == nil && from == "" {
		err = fmt.Errorf("repository %s: %w", repo, storage.ErrExist)
	}
	return err
}

// unknown is how the store says that there is no such thing.
func unknown(what string, d digest.Digest) error {
	return fmt.Errorf("%s %s: %w", what, d, storage.ErrNotExist)
}
