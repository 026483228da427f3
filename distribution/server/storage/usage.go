package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
)

// How much a namespace takes is kept as a counter, an object that is changed by
// Update, so that a push costs one small change whatever the namespace has, and
// all registries see the same. What is about to be stored is counted before it is,
// and what is removed afterwards: so a counter is never less than what is there,
// but may be more when a registry dies in between. Each collection counts anew.
//
//	usage/library         {"used": 1234, "since": 0, "counts": 7}
//	usage/team,app        that of the namespace team/app ("/" written ",")
//	usage-counted         by which rules the last count went

// Quota bounds what the repositories of a namespace have together, each blob
// counted once.
type Quota struct {
	Namespace  string // a leading part of the repositories' names
	LimitBytes int64
}

// QuotaError says that a namespace has no room for what is to be stored.
type QuotaError struct {
	Quota
	UsedBytes int64
	NeedBytes int64 // 0 if it is not known yet
}

func (e *QuotaError) Error() string {
	text := fmt.Sprintf("the quota of %s is exceeded: %d of %d bytes are in use", e.Namespace, e.UsedBytes, e.LimitBytes)
	if e.NeedBytes > 0 {
		text += fmt.Sprintf(", and %d more are needed", e.NeedBytes)
	}
	return text
}

const (
	usageDir      = "usage"
	countedKey    = "usage-counted"
	maxUsageBytes = 1 << 10
	// maxQuotaRulesBytes bounds Options.QuotaRules.
	maxQuotaRulesBytes = 64 << 10
	// reserveBytes is how much of an upload may be written before it is counted.
	reserveBytes = 8 << 20
)

func usageKey(namespace string) string {
	return usageDir + "/" + strings.ReplaceAll(namespace, "/", ",")
}

// usage is a namespace's counter.
type usage struct {
	UsedBytes int64 `json:"used"`
	// SinceBytes is what has been added since the count under way began.
	SinceBytes int64 `json:"since"`
	// Counts is how many have begun.
	Counts int64 `json:"counts"`
}

// parseUsage takes a counter that a power cut has spoilt for none: were it an error,
// nobody could push any more, and no collection could put it right.
func parseUsage(data []byte) (u usage) {
	if json.Unmarshal(data, &u) != nil {
		return usage{}
	}
	return u
}

// quota is the one that a repository is under.
func (s *Store) quota(repo string) (Quota, bool) {
	if s.opts.Quota == nil || repo == "" {
		return Quota{}, false
	}
	return s.opts.Quota(repo)
}

// changeUsage changes a namespace's counter. Those of one process take turns, so
// that they do not get into each other's way.
func (s *Store) changeUsage(ctx context.Context, namespace string, change func(*usage) error) error {
	key := usageKey(namespace)
	defer s.lockOf(&s.counters, key).Unlock()
	err := s.patiently(ctx, func() error {
		return s.objects.Update(ctx, key, maxUsageBytes, func(old []byte) ([]byte, error) {
			u := parseUsage(old)
			if err := change(&u); err != nil {
				return nil, err
			}
			u.UsedBytes, u.SinceBytes = max(u.UsedBytes, 0), max(u.SinceBytes, 0)
			return json.Marshal(u)
		})
	})
	if err != nil {
		return fmt.Errorf("usage of %s: %w", namespace, err)
	}
	return nil
}

// reserve counts what is about to be stored in a repository, and returns how many
// counts had begun then. A *QuotaError says that there is no room for it.
func (s *Store) reserve(ctx context.Context, repo string, sizeBytes int64) (counts int64, err error) {
	q, ok := s.quota(repo)
	if !ok || sizeBytes == 0 {
		return 0, nil
	}
	err = s.changeUsage(ctx, q.Namespace, func(u *usage) error {
		if sizeBytes > q.LimitBytes-u.UsedBytes {
			return &QuotaError{q, u.UsedBytes, sizeBytes}
		}
		u.add(sizeBytes)
		counts = u.Counts
		return nil
	})
	return counts, err
}

func (u *usage) add(sizeBytes int64) {
	u.UsedBytes += sizeBytes
	u.SinceBytes += sizeBytes
}

// giveBack takes back what reserve has counted and was not stored. If a count has
// begun since, that may not have come to it, and it stays until the next one.
func (s *Store) giveBack(ctx context.Context, repo string, sizeBytes, counts int64) error {
	q, ok := s.quota(repo)
	if !ok || sizeBytes == 0 {
		return nil
	}
	return s.changeUsage(context.WithoutCancel(ctx), q.Namespace, func(u *usage) error {
		if u.Counts == counts {
			u.add(-sizeBytes)
		}
		return nil
	})
}

// stored is for what reserve has counted and is there now. If a count has begun
// since, that has lost the reservation, and may not come to what is there.
func (s *Store) stored(ctx context.Context, repo string, sizeBytes, counts int64) error {
	q, ok := s.quota(repo)
	if !ok || sizeBytes == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if now, err := s.readUsage(ctx, q.Namespace); err != nil || now.Counts == counts {
		return err
	}
	return s.changeUsage(ctx, q.Namespace, func(u *usage) error { u.add(sizeBytes); return nil })
}

// forget is for what was stored and has been removed. A count under way may not
// have come to it, so that what it has added since its beginning stays.
func (s *Store) forget(ctx context.Context, repo string, sizeBytes int64) error {
	q, ok := s.quota(repo)
	if !ok || sizeBytes == 0 {
		return nil
	}
	return s.changeUsage(context.WithoutCancel(ctx), q.Namespace, func(u *usage) error {
		u.UsedBytes -= sizeBytes
		return nil
	})
}

// hasRoom refuses what cannot be stored whatever its size.
func (s *Store) hasRoom(ctx context.Context, repo string) error {
	q, ok := s.quota(repo)
	if !ok {
		return nil
	}
	u, err := s.readUsage(ctx, q.Namespace)
	if err == nil && u.UsedBytes >= q.LimitBytes {
		err = &QuotaError{q, u.UsedBytes, 0}
	}
	return err
}

func (s *Store) readUsage(ctx context.Context, namespace string) (u usage, err error) {
	data, err := s.objects.Get(ctx, usageKey(namespace), maxUsageBytes)
	if there, err := exists(err); !there {
		return u, err
	}
	return parseUsage(data), nil
}

// Usage is a namespace's quota and what it takes.
type Usage struct {
	Quota
	UsedBytes int64
}

// Usage lists the namespaces with a quota in which something was ever stored.
func (s *Store) Usage(ctx context.Context) (all []Usage, err error) {
	err = s.each(ctx, usageDir, func(name string) error {
		namespace := strings.ReplaceAll(name, ",", "/")
		q, ok := s.quota(namespace)
		if !ok || q.Namespace != namespace {
			return nil // of a rule that there was once
		}
		u, err := s.readUsage(ctx, namespace)
		all = append(all, Usage{q, u.UsedBytes})
		return err
	})
	return all, err
}

// namespaceHas reports whether a blob counts already in the namespace of a
// repository; without a quota nobody wants to know.
func (s *Store) namespaceHas(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	q, ok := s.quota(repo)
	if !ok {
		return true, nil
	}
	first := strings.ReplaceAll(q.Namespace, "/", ",")
	_, err := s.objects.Stat(ctx, inDir(d)+"/"+first)
	if there, err := exists(err); there || err != nil {
		return there, err
	}
	const page = 100
	for after := first + ","; ; {
		names, err := s.objects.List(ctx, inDir(d), after, page)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, first+",") {
				return false, nil
			}
			// It may be in a namespace of its own, below this one.
			if other, ok := s.quota(fromInName(name)); ok && other.Namespace == q.Namespace {
				return true, nil
			}
		}
		if len(names) < page {
			return false, nil
		}
		after = names[len(names)-1]
	}
}

// reserving counts what is read through it, before it is read on.
type reserving struct {
	ctx      context.Context
	s        *Store
	repo     string
	r        io.Reader
	waiting  int64 // read and not counted
	reserved int64
	counts   int64 // at the first reservation
}

func (r *reserving) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.waiting += int64(n)
	if r.waiting >= reserveBytes || err != nil {
		counts, reserveErr := r.s.reserve(context.WithoutCancel(r.ctx), r.repo, r.waiting)
		if reserveErr != nil {
			return 0, reserveErr
		}
		if r.reserved == 0 {
			r.counts = counts
		}
		r.reserved += r.waiting
		r.waiting = 0
	}
	return n, err
}

// isQuota reports whether an error is a *QuotaError.
func isQuota(err error) bool {
	_, ok := errors.AsType[*QuotaError](err)
	return ok
}
