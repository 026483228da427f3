package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage/recent"
)

// Store is a registry's content. Its arguments are names, tags and digests
// that the distribution package has validated. Errors are those of this
// package, wrapped; ErrNotExist stands for every thing that is not there.
type Store struct {
	objects Objects
	opts    Options

	// Changes to one repository's manifests and tags go one after the other.
	// More repositories than locks only means that some wait needlessly.
	seed  maphash.Seed
	locks [64]sync.Mutex
	// So do changes of a counter, within those.
	counters [64]sync.Mutex
	// And of those who verify a blob, one does.
	verifies [64]sync.Mutex
	verified verified

	tagged recent.Cache[Manifest] // by repository and digest, see byTag

	uploads uploadCount
}

// Options configure a Store. What is left zero is not bounded.
type Options struct {
	MaxUploads   int   // open at a time
	MaxBlobBytes int64 // of one blob
	// Fixed says which tags may not be moved or removed. Nil is none.
	Fixed func(repo, tag string) bool
	// Patience is how long who meets another at the same upload, manifest or counter
	// waits before it is told ErrBusy.
	Patience time.Duration
	// Grace is the collector's: what is asked for is not collected for that long.
	Grace time.Duration
	// Quota is what a repository's namespace may have, and false if there is no
	// bound. QuotaRules tells one set of rules from another. Nil is none.
	Quota      func(repo string) (Quota, bool)
	QuotaRules string

	// VerifyOnRead hashes blobs while they are read: see verifying.
	VerifyOnRead bool
	// Rotten is told of each blob that turns out to be. Nil is nobody.
	Rotten func(Rot)

	Redirect bool // let clients read blobs where the driver has them, if it can
}

// New makes a Store of what objects hold.
func New(objects Objects, opts Options) *Store {
	s := &Store{objects: objects, opts: opts, seed: maphash.MakeSeed()}
	s.tagged.MaxBytes = maxTaggedBytes
	return s
}

func (s *Store) lock(repo string) *sync.Mutex { return s.lockOf(&s.locks, repo) }

func (s *Store) lockOf(locks *[64]sync.Mutex, name string) *sync.Mutex {
	l := &locks[maphash.String(s.seed, name)%uint64(len(locks))]
	l.Lock()
	return l
}

// Check reports why the Store cannot serve, if it cannot.
func (s *Store) Check(ctx context.Context) error { return s.objects.Check(ctx) }

// StatBlob returns the size of a blob that repo has. Who asks may be about to
// push a manifest with it, so that it is not collected for a while.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	entry, err := s.objects.Stat(ctx, inKey(d, repo))
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", d, err)
	}
	if err := s.touch(ctx, repo, d, entry); err != nil {
		return 0, err
	}
	info, err := s.objects.Stat(ctx, dataKey(d))
	return info.SizeBytes, err
}

// Blob opens a blob that repo has.
func (s *Store) Blob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if _, err := s.objects.Stat(ctx, inKey(d, repo)); err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	if s.opts.VerifyOnRead {
		return s.openVerifying(ctx, d)
	}
	return s.objects.Open(ctx, dataKey(d))
}

// redirectLife is for how long a client can begin to read what it was sent to.
const redirectLife = 20 * time.Minute

// BlobURL is where else a blob that repo has can be read, "" if nowhere.
func (s *Store) BlobURL(ctx context.Context, repo string, d digest.Digest) (string, error) {
	driver, ok := s.objects.(Redirector)
	if !ok || !s.opts.Redirect {
		return "", nil
	}
	if _, err := s.StatBlob(ctx, repo, d); err != nil {
		return "", err
	}
	return driver.URL(dataKey(d), redirectLife)
}

// MountBlob gives repo a blob that the repository from has, or, if from is
// empty, any that readable allows. ErrNotExist says that there is none.
func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest, readable func(repo string) bool) error {
	var err error
	if from != "" {
		if _, err = s.objects.Stat(ctx, inKey(d, from)); err == nil && !readable(from) {
			err = ErrNotExist
		}
	} else {
		err = s.anyWith(ctx, d, readable)
	}
	if err == nil {
		err = s.mount(ctx, repo, d)
	}
	if err != nil {
		return fmt.Errorf("blob %s to mount: %w", d, err)
	}
	return nil
}

func (s *Store) mount(ctx context.Context, repo string, d digest.Digest) error {
	info, err := s.objects.Stat(ctx, dataKey(d))
	if err != nil {
		return err
	}
	there, err := s.namespaceHas(ctx, repo, d)
	sizeBytes, counts := info.SizeBytes, int64(0)
	if there {
		sizeBytes = 0
	}
	if err == nil {
		counts, err = s.reserve(ctx, repo, sizeBytes)
	}
	if err != nil {
		return err
	}
	if err = s.link(ctx, repo, d); err == nil {
		_, err = s.objects.Stat(ctx, dataKey(d)) // or has it been collected meanwhile?
	}
	if err != nil {
		return errors.Join(err, s.giveBack(ctx, repo, sizeBytes, counts))
	}
	return s.stored(ctx, repo, sizeBytes, counts)
}

// maxMountSources bounds how many repositories are asked for one that a client
// may read: what it does not find, the client can upload.
const maxMountSources = 100

// anyWith looks for a readable repository that has the blob.
func (s *Store) anyWith(ctx context.Context, d digest.Digest, readable func(repo string) bool) error {
	names, err := s.objects.List(ctx, inDir(d), "", maxMountSources)
	if err != nil {
		return err
	}
	for _, name := range names {
		if readable(fromInName(name)) {
			return nil
		}
	}
	return ErrNotExist
}

// DeleteBlob takes a blob from repo. Its bytes stay until nothing uses them.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	if err := s.objects.Delete(ctx, inKey(d, repo)); err != nil {
		return err
	}
	counted, err := s.namespaceHas(ctx, repo, d)
	if err != nil || counted {
		return err
	}
	info, err := s.objects.Stat(ctx, dataKey(d))
	if there, err := exists(err); !there {
		return err
	}
	return s.forget(ctx, repo, info.SizeBytes)
}

// exists turns ErrNotExist into false.
func exists(err error) (bool, error) {
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
