package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// The collector takes away what nothing refers to, while registries add
// references. Neither may be asked to stop for long, and no lock spans them all,
// so they meet at gates:
//
//   - Who adds first writes what shows his intention (a blob's "in" entry, a
//     pending manifest), then passes the gate, then looks whether what he relies
//     on is there.
//   - Who collects first closes the gate, then looks again whether anybody has
//     shown such an intention, then removes, then opens the gate.
//
// So either the collector sees the intention and spares, or the other waits and
// sees what has been removed. A gate is an object that is there while it is
// closed.
const (
	// sweepLimit is for how long a collector removes behind a closed gate.
	sweepLimit = 15 * time.Second
	// gateLife is after how long a closed gate is one that a dead collector left.
	gateLife     = 60 * time.Second
	gatePause    = 20 * time.Millisecond
	maxGateBytes = 64
)

func blobGate(d digest.Digest) string { return blobDir(d) + "/gate" }

func repoGate(repo string) string { return repoDir(repo) + "/_gate" }

// passGate waits until the gate is open.
func (s *Store) passGate(ctx context.Context, key string) error {
	seen, since := "", time.Time{}
	for {
		stamp, err := s.objects.Get(ctx, key, maxGateBytes)
		if errors.Is(err, ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pass gate: %w", err)
		}
		if string(stamp) != seen {
			seen, since = string(stamp), time.Now()
		}
		if time.Since(since) > gateLife {
			return s.openGate(ctx, key)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(gatePause):
		}
	}
}

// closedGate is one that its holder has closed.
type closedGate struct {
	until time.Time // the holder may remove things
	open  func() error
}

// late is an error when others may soon take the gate for a dead holder's, so that
// nothing may be removed any more.
func (g closedGate) late() error {
	if time.Now().After(g.until.Add(sweepLimit)) {
		return fmt.Errorf("took longer than a gate may be closed: %w", ErrBusy)
	}
	return nil
}

// closeGate waits for others that hold the same gate.
func (s *Store) closeGate(ctx context.Context, key string) (closedGate, error) {
	sum := sha256.Sum256([]byte(key))
	name := "gate-" + hex.EncodeToString(sum[:12])
	release, err := s.objects.Lock(ctx, name)
	for end := time.Now().Add(gateLife); errors.Is(err, ErrBusy) && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return closedGate{}, ctx.Err()
		case <-time.After(gatePause):
		}
		release, err = s.objects.Lock(ctx, name)
	}
	if err != nil {
		return closedGate{}, fmt.Errorf("close gate: %w", err)
	}
	until := time.Now().Add(sweepLimit)
	if err := s.objects.PutScratch(ctx, key, []byte(rand.Text())); err != nil {
		release()
		return closedGate{}, fmt.Errorf("close gate: %w", err)
	}
	return closedGate{until, func() error { defer release(); return s.openGate(ctx, key) }}, nil
}

func (s *Store) openGate(ctx context.Context, key string) error {
	_, err := exists(s.objects.DeleteScratch(context.WithoutCancel(ctx), key))
	return err
}

// link gives repo a blob: an "in" entry, which the collector spares for the
// grace period from now on.
func (s *Store) link(ctx context.Context, repo string, d digest.Digest) error {
	key := inKey(d, repo)
	for range 10 {
		if err := s.objects.Put(ctx, key, nil); err != nil {
			return err
		}
		if err := s.passGate(ctx, repoGate(repo)); err != nil {
			return err
		}
		if err := s.passGate(ctx, blobGate(d)); err != nil {
			return err
		}
		if _, err := s.objects.Stat(ctx, key); !errors.Is(err, ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("blob %s: %w", d, ErrBusy)
}

// touch renews an old "in" entry of a blob that somebody asks for: he may be
// about to push a manifest with it.
func (s *Store) touch(ctx context.Context, repo string, d digest.Digest, entry Info) error {
	if s.opts.Grace == 0 || time.Since(entry.Modified) < s.opts.Grace/4 {
		return nil
	}
	return s.link(ctx, repo, d)
}
