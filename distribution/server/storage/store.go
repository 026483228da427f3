package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Store is a registry's content. Its arguments are names, tags and digests
// that the distribution package has validated. Errors are those of this
// package, wrapped; ErrNotExist stands for every thing that is not there.
type Store struct {
	objects Objects

	mu   sync.Mutex
	busy map[string]bool // upload sessions in use

	// Changes to one repository's manifests and tags go one after the other.
	// More repositories than locks only means that some wait needlessly.
	seed  maphash.Seed
	locks [64]sync.Mutex
}

// New makes a Store of what objects hold.
func New(objects Objects) *Store {
	return &Store{objects: objects, busy: map[string]bool{}, seed: maphash.MakeSeed()}
}

func (s *Store) lock(repo string) *sync.Mutex {
	l := &s.locks[maphash.String(s.seed, repo)%uint64(len(s.locks))]
	l.Lock()
	return l
}

// StatBlob returns the size of a blob that repo has.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	if _, err := s.objects.Stat(ctx, inKey(d, repo)); err != nil {
		return 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return s.objects.Stat(ctx, dataKey(d))
}

// Blob opens a blob that repo has.
func (s *Store) Blob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if _, err := s.objects.Stat(ctx, inKey(d, repo)); err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return s.objects.Open(ctx, dataKey(d))
}

// MountBlob gives repo a blob that the repository from has, or, if from is
// empty, any. ErrNotExist says that it has not.
func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	if from != "" {
		if _, err := s.objects.Stat(ctx, inKey(d, from)); err != nil {
			return fmt.Errorf("blob %s in %s: %w", d, from, err)
		}
	} else {
		any, err := s.objects.List(ctx, inDir(d), "", 1)
		if err != nil {
			return err
		}
		if len(any) == 0 {
			return fmt.Errorf("blob %s: %w", d, ErrNotExist)
		}
	}
	if _, err := s.objects.Stat(ctx, dataKey(d)); err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	return s.objects.Put(ctx, inKey(d, repo), nil)
}

// DeleteBlob takes a blob from repo. Its bytes stay until nothing uses them.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return s.objects.Delete(ctx, inKey(d, repo))
}

// exists turns ErrNotExist into false.
func exists(err error) (bool, error) {
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
