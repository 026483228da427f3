package storage

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// verified remembers which blobs have been read and were right, a while ago: for
// those that are read in pieces.
type verified struct {
	mu    sync.Mutex
	blobs map[digest.Digest]verifiedBlob
}

type verifiedBlob struct {
	info Info
	when time.Time
}

const (
	verifiedLife = 10 * time.Minute
	maxVerified  = 10_000
)

func (v *verified) add(d digest.Digest, info Info) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.blobs == nil || len(v.blobs) >= maxVerified {
		v.blobs = map[digest.Digest]verifiedBlob{}
	}
	v.blobs[d] = verifiedBlob{info, time.Now()}
}

func (v *verified) has(d digest.Digest, info Info) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, ok := v.blobs[d]
	return ok && b.info == info && time.Since(b.when) < verifiedLife
}

// verifying reads a blob, and gives its last bytes only if all of them are right.
// What is not read from the beginning is read through before its first byte is
// given. So nobody can get the whole of a rotten blob.
type verifying struct {
	io.ReadSeekCloser
	ctx    context.Context
	s      *Store
	digest digest.Digest
	info   Info
	offset int64
	hashed int64 // from the beginning
	hash   hash.Hash
	whole  bool // all of it is right
	err    error
}

func (s *Store) openVerifying(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	info, err := s.objects.Stat(ctx, dataKey(d))
	if err != nil {
		return nil, 0, err
	}
	r, size, err := s.objects.Open(ctx, dataKey(d))
	if err != nil {
		return nil, 0, err
	}
	info.SizeBytes = size
	return &verifying{ReadSeekCloser: r, ctx: ctx, s: s, digest: d, info: info, hash: d.Algorithm().Hash()}, size, nil
}

// Seek implements io.Seeker.
func (v *verifying) Seek(offset int64, whence int) (int64, error) {
	at, err := v.ReadSeekCloser.Seek(offset, whence)
	if err == nil {
		v.offset = at
	}
	return at, err
}

// Read implements io.Reader.
func (v *verifying) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	left := v.info.SizeBytes - v.offset
	if left <= 0 {
		return 0, io.EOF
	}
	if v.whole || v.offset != v.hashed {
		if v.err = v.all(); v.err != nil {
			return 0, v.err
		}
		n, err := v.ReadSeekCloser.Read(p)
		v.offset += int64(n)
		return n, err
	}
	last := int64(len(p)) >= left
	n, err := 0, error(nil)
	if last {
		n, err = io.ReadFull(v.ReadSeekCloser, p[:left])
	} else {
		n, err = v.ReadSeekCloser.Read(p)
	}
	v.hash.Write(p[:n])
	v.offset += int64(n)
	v.hashed = v.offset
	if last && err == nil {
		if v.err = v.end(); v.err != nil {
			return 0, v.err
		}
	}
	return n, err
}

// end judges what has been read from the beginning to the end.
func (v *verifying) end() error {
	found := digest.NewDigest(v.digest.Algorithm(), v.hash)
	if found == v.digest {
		v.s.verified.add(v.digest, v.info)
		return nil
	}
	return errors.Join(fmt.Errorf("blob %s is rotten: %w", v.digest, ErrDigest), v.s.quarantine(v.ctx, v.digest, found, v.info))
}

// all reads the whole blob, unless that was done lately. Many who read the same in
// pieces wait for one who does.
func (v *verifying) all() error {
	if v.whole {
		return nil
	}
	defer v.s.lockOf(&v.s.verifies, v.digest.String()).Unlock()
	if v.whole = v.s.verified.has(v.digest, v.info); v.whole {
		return nil
	}
	info, err := v.s.verify(v.ctx, v.digest, nil)
	if v.whole = err == nil; v.whole {
		v.s.verified.add(v.digest, info)
	}
	return err
}
