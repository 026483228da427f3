package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// uploadCount is how many uploads are open, as far as this Store knows: others
// on the same objects begin and end some too.
type uploadCount struct {
	mu      sync.Mutex
	open    int
	counted time.Time
}

func (c *uploadCount) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += n
}

func (c *uploadCount) set(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.counted = n, time.Now()
}

// OpenUploads is about how many uploads are open.
func (s *Store) OpenUploads() int {
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	return max(s.uploads.open, 0)
}

// admit counts one more upload, if there may be one. What is refused on the
// count alone would be refused for what another Store ended long ago, so the
// objects are asked first, once a second.
func (s *Store) admit(ctx context.Context) error {
	c, limit := &s.uploads, s.opts.MaxUploads
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.open >= limit && time.Since(c.counted) > time.Second {
		ids, err := s.objects.List(ctx, sessionDir, "", limit)
		if err != nil {
			return err
		}
		c.open, c.counted = len(ids), time.Now()
	}
	if limit > 0 && c.open >= limit {
		return fmt.Errorf("start upload: %d are open: %w", c.open, ErrTooMany)
	}
	c.open++
	return nil
}

// ExpireUploads ends the uploads that were started before the given time, and
// returns how many. What processes that died before then have left goes, too.
func (s *Store) ExpireUploads(ctx context.Context, before time.Time) (int, error) {
	expired, err := s.expireSessions(ctx, before)
	if err == nil {
		err = s.each(ctx, rehashDir, func(id string) error { return s.removeOld(ctx, rehashKey(id), before) })
	}
	if err == nil {
		// Also where uploads live shorter, this is longer than any call takes.
		if hourAgo := time.Now().Add(-time.Hour); before.After(hourAgo) {
			before = hourAgo
		}
		err = s.objects.Tidy(ctx, before)
	}
	return expired, err
}

// removeOld removes an object that was written before the given time.
func (s *Store) removeOld(ctx context.Context, key string, before time.Time) error {
	info, err := s.objects.Stat(ctx, key)
	if err == nil && info.Modified.Before(before) {
		err = s.objects.DeleteScratch(ctx, key)
	}
	_, err = exists(err)
	return err
}

func (s *Store) expireSessions(ctx context.Context, before time.Time) (int, error) {
	const page = 1000
	seen, expired, after := 0, 0, ""
	for {
		ids, err := s.objects.List(ctx, sessionDir, after, page)
		if err != nil || len(ids) == 0 {
			s.uploads.set(seen - expired)
			return expired, err
		}
		seen += len(ids)
		for _, id := range ids {
			done, err := s.expire(ctx, id, before)
			if err != nil {
				return expired, err
			}
			if done {
				expired++
			}
		}
		after = ids[len(ids)-1]
	}
}

// expire ends an upload that was started before the given time. The upload is
// looked at before it is locked: a client's request that met the lock of one who
// only looks would be refused.
func (s *Store) expire(ctx context.Context, id string, before time.Time) (bool, error) {
	if _, old, err := s.expired(ctx, id, before); err != nil || !old {
		return false, err
	}
	release, err := s.objects.Lock(ctx, uploadLock(id))
	if err != nil {
		return false, nil // in use, so not forgotten
	}
	defer release()
	u, old, err := s.expired(ctx, id, before)
	if err != nil || !old {
		return false, err
	}
	return exists(s.discard(ctx, id, u))
}

// expired reads an upload's state. One that nobody can read is of no use, so it
// has had its time.
func (s *Store) expired(ctx context.Context, id string, before time.Time) (u session, old bool, err error) {
	data, err := s.objects.Get(ctx, sessionKey(id), maxSessionBytes)
	if here, err := exists(err); err != nil || !here {
		return u, false, err
	}
	return u, json.Unmarshal(data, &u) != nil || u.Started.Before(before), nil
}
