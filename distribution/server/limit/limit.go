// Package limit bounds what each client of a registry of the OCI Distribution Spec
// may ask for in a time: requests, which are refused beyond that (429), and bytes,
// for which clients have to wait. What it remembers is bounded whatever clients do.
package limit

import (
	"hash/maphash"
	"sync"
	"time"
)

// Options configure a Limiter. What is zero is not bounded.
type Options struct {
	// Requests is how many a client may make in a second, for long; Burst how many
	// at a time, at least one.
	Requests, Burst int
	// BytesPerSecond is how fast a client may send and get, all its requests
	// together.
	BytesPerSecond int64
}

// MaxClients is how many clients are remembered at most. Those come first that
// have asked for something lately: whose time is up need not be remembered.
const MaxClients = 64 << 10

const shards = 16

// Limiter is an account of clients. Its methods are safe for concurrent use.
type Limiter struct {
	interval, burst time.Duration // of requests
	perByte         float64       // nanoseconds
	start           time.Time
	seed            maphash.Seed
	shards          [shards]shard
}

type shard struct {
	mu      sync.Mutex
	clients map[string]account
}

// account has when a client will have used up what it has had, had it come evenly
// (the "generic cell rate algorithm"): since the Limiter's start.
type account struct {
	requests, bytes time.Duration
}

// New makes a Limiter.
func New(o Options) *Limiter {
	l := &Limiter{start: time.Now(), seed: maphash.MakeSeed()}
	if o.Requests > 0 {
		l.interval = time.Second / time.Duration(o.Requests)
		l.burst = l.interval * time.Duration(max(o.Burst, 1))
	}
	if o.BytesPerSecond > 0 {
		l.perByte = float64(time.Second) / float64(o.BytesPerSecond)
	}
	for i := range l.shards {
		l.shards[i].clients = map[string]account{}
	}
	return l
}

func (l *Limiter) change(client string, f func(a *account, now time.Duration)) {
	now := time.Since(l.start)
	s := &l.shards[maphash.String(l.seed, client)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	a, known := s.clients[client]
	f(&a, now)
	switch {
	case a.requests <= now && a.bytes <= now:
		delete(s.clients, client)
		return
	case !known && len(s.clients) >= MaxClients/shards:
		s.makeRoom(now)
	}
	s.clients[client] = a
}

// makeRoom forgets a few whose time is up, or else, of a few, who has least to wait
// for.
func (s *shard) makeRoom(now time.Duration) {
	const look = 16
	seen, least, oldest := 0, time.Duration(0), ""
	for client, a := range s.clients {
		until := max(a.requests, a.bytes)
		if until <= now {
			delete(s.clients, client)
		}
		if seen == 0 || until < least {
			least, oldest = until, client
		}
		if seen++; seen == look {
			break
		}
	}
	delete(s.clients, oldest)
}

// Admit counts a request. wait, if it is not zero, is after how long the client may
// come again, and the request is to be refused.
func (l *Limiter) Admit(client string) (wait time.Duration) {
	if l.interval == 0 {
		return 0
	}
	l.change(client, func(a *account, now time.Duration) {
		next := max(a.requests, now) + l.interval
		if wait = max(next-now-l.burst, 0); wait == 0 {
			a.requests = next
		}
	})
	return wait
}

// Blocked is Admit without counting.
func (l *Limiter) Blocked(client string) (wait time.Duration) {
	if l.interval == 0 {
		return 0
	}
	l.change(client, func(a *account, now time.Duration) {
		wait = max(max(a.requests, now)+l.interval-now-l.burst, 0)
	})
	return wait
}

// PacesBytes reports whether bytes are bounded.
func (l *Limiter) PacesBytes() bool { return l.perByte > 0 }

// PieceBytes is how much should be sent at a time, so that it comes evenly.
func (l *Limiter) PieceBytes() int64 {
	const perSecond = 8
	return max(int64(float64(time.Second)/l.perByte)/perSecond, 16<<10)
}

// Pace counts bytes that a client has sent or got, and returns for how long it has
// to wait for the next.
func (l *Limiter) Pace(client string, n int64) (wait time.Duration) {
	if l.perByte == 0 {
		return 0
	}
	l.change(client, func(a *account, now time.Duration) {
		a.bytes = max(a.bytes, now) + time.Duration(l.perByte*float64(n))
		wait = a.bytes - now
	})
	return wait
}

// Clients is how many clients are remembered.
func (l *Limiter) Clients() (n int) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.clients)
		s.mu.Unlock()
	}
	return n
}
