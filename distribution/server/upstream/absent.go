package upstream

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// absent remembers what other registries do not have, for some moments: clients ask
// for the same again and again, and each question counts where pulls are limited.
type absent struct {
	mu    sync.Mutex
	until map[string]time.Time // by repository, and tag or digest
}

// maxAbsent bounds what is remembered, some 2 MB; at that, all is forgotten.
const maxAbsent = 4096

func (a *absent) has(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.until[key]
	if ok && !time.Now().Before(until) {
		delete(a.until, key)
		ok = false
	}
	return ok
}

func (a *absent) put(key string, life time.Duration) {
	if life <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil || len(a.until) >= maxAbsent {
		a.until = map[string]time.Time{}
	}
	a.until[key] = time.Now().Add(life)
}

// forget is for when there is something new in a repository: what a manifest names
// must not be missing because somebody asked for it too early.
func (a *absent) forget(repo string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.until {
		if strings.HasPrefix(key, repo+"@") || strings.HasPrefix(key, repo+":") {
			delete(a.until, key)
		}
	}
}

// missed remembers that a source has not what is asked for, if err says so, which it
// returns.
func (s *Set) missed(u *source, key string, err error) error {
	if errors.Is(err, storage.ErrNotExist) {
		s.absent.put(key, u.Missing)
	}
	return err
}

// knownMissing reports what was asked for just before, in vain.
func (s *Set) knownMissing(u *source, kind, key string) bool {
	known := s.absent.has(key)
	if known {
		s.opts.Count(u.Prefix, kind, "absent")
	}
	return known
}
