package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
)

// A repository that is a copy of one elsewhere has a mark, "_upstream", which
// says of what. One with manifests and without a mark is of this registry
// alone. Who pushes and who marks may meet: the one shows what he is about to
// push before he looks for a mark, the other marks before he looks for what is
// pushed, so at least one of the two sees the other and gives way.

func upstreamKey(repo string) string { return repoDir(repo) + "/_upstream" }

const maxUpstreamBytes = 4 << 10

// Upstream says of what repo is a copy: "" if of nothing.
func (s *Store) Upstream(ctx context.Context, repo string) (string, error) {
	data, err := s.objects.Get(ctx, upstreamKey(repo), maxUpstreamBytes)
	if there, err := exists(err); !there {
		return "", err
	}
	return string(data), nil
}

// SetUpstream marks repo as a copy. ErrExist says that it has manifests of its
// own, and stays what it is.
func (s *Store) SetUpstream(ctx context.Context, repo, from string) error {
	defer s.lock(repo).Unlock()
	has, err := s.Upstream(ctx, repo)
	switch {
	case err != nil || has == from:
		return err
	case has != "": // the same under another name
		return s.objects.Put(ctx, upstreamKey(repo), []byte(from))
	}
	own, err := s.hasManifests(ctx, repo)
	if err == nil && own {
		err = ErrExist
	}
	if err == nil {
		err = s.objects.PutNew(ctx, upstreamKey(repo), []byte(from))
	}
	if errors.Is(err, ErrExist) && !own {
		return nil // by another registry, just now
	}
	if err == nil {
		if own, err = s.hasManifests(ctx, repo); err == nil && own {
			err = errors.Join(ErrExist, s.objects.Delete(ctx, upstreamKey(repo)))
		}
	}
	if err != nil {
		return fmt.Errorf("mark repository %s: %w", repo, err)
	}
	return nil
}

func (s *Store) hasManifests(ctx context.Context, repo string) (bool, error) {
	for _, dir := range []string{pendingDir(repo), manifestDir(repo)} {
		if names, err := s.objects.List(ctx, dir, "", 1); err != nil || len(names) > 0 {
			return true, err
		}
	}
	return false, nil
}

// IsOwn reports whether manifests were pushed to repo, or are just about to be:
// it is no copy, and not empty either.
func (s *Store) IsOwn(ctx context.Context, repo string) (bool, error) {
	own, err := s.hasManifests(ctx, repo)
	if err != nil || !own {
		return false, err
	}
	from, err := s.Upstream(ctx, repo)
	return from == "", err
}

// Tag returns where a tag leads, and when it was last written.
func (s *Store) Tag(ctx context.Context, repo, tag string) (digest.Digest, time.Time, error) {
	info, err := s.objects.Stat(ctx, tagKey(repo, tag))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	data, err := s.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	d, err := distribution.ParseDigest(string(data))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	return d, info.Modified, nil
}

// IsFixed reports whether a tag may not be moved or removed.
func (s *Store) IsFixed(repo, tag string) bool { return s.fixed(repo, tag) }

// RenewManifest writes a manifest once more if it was last written before the
// given time. One that is gone stays gone.
func (s *Store) RenewManifest(ctx context.Context, repo string, m Manifest, before time.Time) error {
	info, err := s.objects.Stat(ctx, manifestKey(repo, m.Digest))
	if err != nil || !info.Modified.Before(before) {
		_, err = exists(err)
		return err
	}
	err = s.PutManifest(ctx, repo, m, nil, false, func() error {
		_, err := s.objects.Stat(ctx, manifestKey(repo, m.Digest))
		return err
	})
	_, err = exists(err)
	return err
}

// ExpireManifests removes from copies the manifests that were last written
// before the time that cutoff gives for what the repository is a copy of; zero
// spares them all. It returns how many went. ErrBusy says that another registry
// is at it.
func (s *Store) ExpireManifests(ctx context.Context, cutoff func(repo, from string) time.Time) (removed int, err error) {
	release, err := s.objects.Lock(ctx, "expire")
	if err != nil {
		return 0, fmt.Errorf("expire manifests: %w", err)
	}
	defer release()
	var inner error
	err = s.walk(ctx, nil, nil, func(repo string) bool {
		var from string
		if from, inner = s.Upstream(ctx, repo); inner != nil || from == "" {
			return inner == nil
		}
		var n int
		n, inner = s.expireIn(ctx, repo, cutoff(repo, from))
		removed += n
		return inner == nil
	})
	if err = errors.Join(err, inner); err != nil {
		err = fmt.Errorf("expire manifests: %w", err)
	}
	return removed, err
}

func (s *Store) expireIn(ctx context.Context, repo string, before time.Time) (removed int, err error) {
	err = s.each(ctx, manifestDir(repo), func(name string) error {
		d, ok := fromFileName(name)
		if !ok {
			return nil
		}
		info, err := s.objects.Stat(ctx, manifestKey(repo, d))
		if err == nil && info.Modified.Before(before) {
			if err = s.DeleteManifest(ctx, repo, d); err == nil {
				removed++
			}
		}
		if errors.Is(err, ErrFixed) || errors.Is(err, ErrBusy) {
			return nil // the next time
		}
		_, err = exists(err)
		return err
	})
	return removed, err
}

// HasData reports whether any repository's blob has the digest. That alone gives
// nobody a right to it.
func (s *Store) HasData(ctx context.Context, d digest.Digest) (bool, error) {
	_, err := s.objects.Stat(ctx, dataKey(d))
	return exists(err)
}
