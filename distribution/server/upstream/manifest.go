package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Manifest implements server.Reader.
func (s *Set) Manifest(ctx context.Context, repo, target string) (storage.Manifest, error) {
	u := s.of(repo)
	if u == nil {
		return s.Store.Manifest(ctx, repo, target)
	}
	if strings.Contains(target, ":") {
		return s.byDigest(ctx, u, repo, digest.Digest(target))
	}
	return s.byTag(ctx, u, repo, target)
}

// byDigest asks for what is not here: what is here cannot change.
func (s *Set) byDigest(ctx context.Context, u *source, repo string, d digest.Digest) (storage.Manifest, error) {
	m, err := s.Store.Manifest(ctx, repo, d.String())
	if !errors.Is(err, storage.ErrNotExist) {
		if err == nil {
			s.opts.Count(u.Prefix, "manifest", "hit")
			s.use(u, repo, m)
		}
		return m, err
	}
	if u, err = s.ahead(ctx, repo); err != nil || u == nil {
		return m, errors.Join(err, unknown("manifest", d))
	}
	key := repo + "@" + d.String()
	if s.knownMissing(u, "manifest", key) {
		return m, unknown("manifest", d)
	}
	return once(ctx, s, key, askLimit, func(ctx context.Context) (storage.Manifest, error) {
		ref := distribution.Reference{Repository: u.remote(repo), Digest: d}
		m, err := s.fetch(ctx, u, ref)
		if err == nil {
			s.keep(ctx, u, repo, m)
		}
		return m, s.missed(u, key, s.counted(u, "manifest", err))
	})
}

// counted counts a fetch, and is its error.
func (s *Set) counted(u *source, kind string, err error) error {
	result := "fetched"
	switch {
	case errors.Is(err, storage.ErrNotExist):
		result = "missing"
	case err != nil:
		result = "failed"
	}
	s.opts.Count(u.Prefix, kind, result)
	if errors.Is(err, errRefused) {
		s.opts.Log.Warn("upstream refuses", "err", err)
	}
	return err
}

// fetch is a manifest as the source has it.
func (s *Set) fetch(ctx context.Context, u *source, ref distribution.Reference) (storage.Manifest, error) {
	desc, body, err := u.client.Resolve(ctx, ref)
	if err != nil {
		return storage.Manifest{}, u.outcome(err)
	}
	m, err := server.NewManifest(desc.MediaType, desc.Digest, body)
	if err != nil {
		return m, fmt.Errorf("%s: %v: %w", ref, err, server.ErrUpstream)
	}
	return m, nil
}

// byTag looks whether a tag still leads where it did, if that was not done lately
// and the tag is one that may be moved here.
func (s *Set) byTag(ctx context.Context, u *source, repo, tag string) (storage.Manifest, error) {
	had, written, err := s.Tag(ctx, repo, tag)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return storage.Manifest{}, err
	}
	var old storage.Manifest
	if err == nil {
		old, err = s.Store.Manifest(ctx, repo, had.String())
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return old, err
		}
		if err == nil && (time.Since(written) < u.Fresh || s.IsFixed(repo, tag)) {
			s.opts.Count(u.Prefix, "manifest", "hit")
			s.use(u, repo, old)
			return old, nil
		}
	}
	here := err == nil
	key := repo + ":" + tag
	ahead, err := s.ahead(ctx, repo)
	switch {
	case err != nil:
		return old, err
	case ahead == nil && here:
		return old, nil
	case ahead == nil, !here && s.knownMissing(u, "manifest", key):
		return old, fmt.Errorf("tag %s: %w", tag, storage.ErrNotExist)
	case here && u.resting():
		s.opts.Count(u.Prefix, "manifest", "stale")
		return old, server.ErrStale
	}
	limit := askLimit
	if here {
		limit = staleLimit
	}
	m, err := once(ctx, s, key, limit, func(ctx context.Context) (storage.Manifest, error) {
		ref := distribution.Reference{Repository: u.remote(repo), Tag: tag}
		if !here {
			m, err := s.fetch(ctx, u, ref)
			if err == nil {
				s.keep(ctx, u, repo, m, tag)
			}
			return m, s.missed(u, key, s.counted(u, "manifest", err))
		}
		m, err := s.renew(ctx, u, repo, ref, old)
		return m, s.missed(u, key, err)
	})
	if here && errors.Is(err, storage.ErrBusy) {
		return old, server.ErrStale
	}
	return m, err
}

// renew looks at a tag of which an older version is here, and serves that where
// the source cannot be asked.
func (s *Set) renew(ctx context.Context, u *source, repo string, ref distribution.Reference, old storage.Manifest) (storage.Manifest, error) {
	m, err := s.newer(ctx, u, ref, old)
	switch {
	case err == nil:
		result := "fetched"
		if m.Digest == old.Digest {
			result = "fresh"
		}
		s.opts.Count(u.Prefix, "manifest", result)
		s.keep(ctx, u, repo, m, ref.Tag)
		return m, nil
	case errors.Is(err, storage.ErrNotExist) && !errors.Is(err, errRefused):
		// Taken away there: were it left here, it would be served again when the
		// source is down.
		if err := s.DeleteTag(ctx, repo, ref.Tag); err != nil && !errors.Is(err, storage.ErrNotExist) {
			s.opts.Log.Warn("remove tag", "repository", repo, "tag", ref.Tag, "err", err)
		}
		return m, s.counted(u, "manifest", err)
	case errors.Is(err, storage.ErrNotExist):
		return m, s.counted(u, "manifest", err)
	}
	s.opts.Count(u.Prefix, "manifest", "stale")
	s.opts.Log.Warn("serving a stale tag", "repository", repo, "tag", ref.Tag, "err", err)
	return old, server.ErrStale
}

// newer is the old manifest if the tag still leads to it, by a request for no
// more than that, or else the new one.
func (s *Set) newer(ctx context.Context, u *source, ref distribution.Reference, old storage.Manifest) (storage.Manifest, error) {
	desc, err := u.probe.Stat(ctx, ref)
	switch {
	case errors.Is(err, distribution.ErrUnsupported): // it does not say where the tag leads
		return s.fetch(ctx, u, ref)
	case err != nil:
		return old, u.outcome(err)
	case desc.Digest == old.Digest:
		return server.NewManifest(old.MediaType, old.Digest, old.Body)
	}
	m, err := s.fetch(ctx, u, distribution.Reference{Repository: ref.Repository, Digest: desc.Digest})
	if errors.Is(err, storage.ErrNotExist) { // the tag is there, whatever else is not
		err = fmt.Errorf("%s: no manifest behind the tag: %v: %w", ref, err, server.ErrUpstream)
	}
	return m, err
}

// Tags implements server.Reader.
func (s *Set) Tags(ctx context.Context, repo, last string, n int) ([]string, bool, error) {
	u, err := s.ahead(ctx, repo)
	if err != nil || u == nil {
		if err == nil {
			return s.Store.Tags(ctx, repo, last, n)
		}
		return nil, false, err
	}
	tags, err := list(ctx, s, u, "tags "+repo, func(ctx context.Context) ([]string, error) {
		return u.client.Tags(ctx, u.remote(repo))
	}, strings.Compare)
	if errors.Is(err, server.ErrUpstream) {
		tags, more, err := s.Store.Tags(ctx, repo, last, n)
		if err == nil {
			err = server.ErrStale
		}
		return tags, more, err
	}
	if err != nil {
		return nil, false, err
	}
	tags = tags[after(tags, last, strings.Compare):]
	if len(tags) > n {
		return tags[:n], true, nil
	}
	return tags, false, nil
}

// Referrers implements server.Reader.
func (s *Set) Referrers(ctx context.Context, repo string, subject, last digest.Digest, filter *string, maxBytes int) ([]ocispec.Descriptor, bool, error) {
	u, err := s.ahead(ctx, repo)
	if err != nil || u == nil {
		if err == nil {
			return s.Store.Referrers(ctx, repo, subject, last, filter, maxBytes)
		}
		return nil, false, err
	}
	byDigest := func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	all, err := list(ctx, s, u, "referrers "+repo+"@"+subject.String(), func(ctx context.Context) ([]ocispec.Descriptor, error) {
		return u.client.Referrers(ctx, u.remote(repo), subject, "")
	}, byDigest)
	switch {
	case errors.Is(err, server.ErrUpstream):
		page, more, err := s.Store.Referrers(ctx, repo, subject, last, filter, maxBytes)
		if err == nil {
			err = server.ErrStale
		}
		return page, more, err
	case errors.Is(err, storage.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return page(all[after(all, ocispec.Descriptor{Digest: last}, byDigest):], filter, maxBytes)
}
