package upstream

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server"
)

// lists remembers what other registries listed, for some moments: their pages
// have other ends than ours, so a client that turns pages would fetch all of a
// list for each of them.
type lists struct {
	mu      sync.Mutex
	all     map[string]remembered
	entries int
}

type remembered struct {
	list    any
	entries int
	until   time.Time
}

const (
	listLife       = 30 * time.Second
	maxListEntries = 200_000
)

func (l *lists) get(key string) (any, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.all[key]
	return one.list, ok && time.Now().Before(one.until)
}

func (l *lists) put(key string, list any, entries int) {
	entries++ // an empty one takes room, too
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries -= l.all[key].entries
	delete(l.all, key)
	if l.entries+entries > maxListEntries || l.all == nil {
		l.all, l.entries = map[string]remembered{}, 0
	}
	if entries > maxListEntries {
		return
	}
	l.all[key] = remembered{list, entries, time.Now().Add(listLife)}
	l.entries += entries
}

// list is one of the source's lists, sorted. server.ErrUpstream is a source that
// cannot be asked.
func list[T any](ctx context.Context, s *Set, u *source, key string, ask func(context.Context) ([]T, error), compare func(a, b T) int) ([]T, error) {
	if known, ok := s.lists.get(key); ok {
		s.opts.Count(u.Prefix, "list", "hit")
		return known.([]T), nil
	}
	if u.resting() {
		s.opts.Count(u.Prefix, "list", "stale")
		return nil, server.ErrUpstream
	}
	return once(ctx, s, key, askLimit, func(ctx context.Context) ([]T, error) {
		all, err := ask(ctx)
		if err = s.counted(u, "list", u.outcome(err)); err != nil {
			return nil, err
		}
		slices.SortFunc(all, compare)
		all = slices.CompactFunc(all, func(a, b T) bool { return compare(a, b) == 0 })
		s.lists.put(key, all, len(all))
		return all, nil
	})
}

// after is where what comes after last begins in a sorted list.
func after[T any](list []T, last T, compare func(a, b T) int) int {
	i, found := slices.BinarySearchFunc(list, last, compare)
	if found {
		i++
	}
	return i
}

// page is as much of a list of referrers as storage.Referrers would give.
func page(list []ocispec.Descriptor, filter *string, maxBytes int) (some []ocispec.Descriptor, more bool, err error) {
	size := 0
	for _, desc := range list {
		if filter != nil && *filter != desc.ArtifactType {
			continue
		}
		text, err := json.Marshal(desc)
		if err != nil {
			return nil, false, err
		}
		if size += len(text) + 1; size > maxBytes && len(some) > 0 {
			return some, true, nil
		}
		some = append(some, desc)
	}
	return some, false, nil
}
