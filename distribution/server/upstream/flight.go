package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// flight is one blob on its way here. Its bytes are in a file without a name
// until it has landed and the last reader has left, so that each reads at its
// own pace: neither a slow one nor one that goes away matters to the others.
type flight struct {
	digest digest.Digest

	opened  chan struct{} // closed when these three are known:
	size    int64
	here    bool  // there was nothing to fetch
	refused error // why there is nothing to read

	mu      sync.Mutex
	spool   *os.File
	written int64
	landed  bool
	err     error         // why it will never be whole
	holders int           // readers, and the flight itself
	more    chan struct{} // closed at the next change, nil while nobody waits
}

func newFlight(d digest.Digest) *flight {
	return &flight{digest: d, opened: make(chan struct{}), holders: 1}
}

// open tells those who wait what they will get.
func (f *flight) open(size int64, here bool, refused error) {
	f.size, f.here, f.refused = size, here, refused
	close(f.opened)
}

// spoolTo makes the file. Some file systems know none without a name.
func (f *flight) spoolTo(dir string) error {
	if dir == "" {
		dir = os.TempDir()
	}
	file, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		if file, err = os.CreateTemp(dir, "tare-spool-*"); err == nil {
			err = os.Remove(file.Name())
		}
	}
	if err != nil {
		return spoolError(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spool = file
	return nil
}

// errSpool is a failure of ours, and not of the other registry.
var errSpool = errors.New("spool blob")

func spoolError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", storage.ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", errSpool, err)
}

func (f *flight) join() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders++
}

func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holders--; f.holders == 0 && f.spool != nil {
		f.spool.Close() // it has no name: nothing is left of it
	}
}

// land ends the flight.
func (f *flight) land(err error) {
	f.mu.Lock()
	f.landed, f.err = err == nil, err
	f.wake()
	f.mu.Unlock()
	f.leave()
}

// wake tells readers of a change. The caller holds the lock.
func (f *flight) wake() {
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// write adds bytes to the spool.
func (f *flight) write(p []byte) error {
	if _, err := f.spool.WriteAt(p, f.written); err != nil { // nobody else moves written
		return spoolError(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written += int64(len(p))
	f.wake()
	return nil
}

// verify hashes what has come, for a blob that the store did not want.
func (f *flight) verify() error {
	h := f.digest.Algorithm().Hash()
	if _, err := io.Copy(h, io.NewSectionReader(f.spool, 0, f.written)); err != nil {
		return fmt.Errorf("verify blob: %w", err)
	}
	if got := digest.NewDigest(f.digest.Algorithm(), h); got != f.digest {
		return fmt.Errorf("blob is %s, not %s: %w", got, f.digest, server.ErrUpstream)
	}
	return nil
}

// arriving is a blob's body that is written to the spool while the store reads it.
type arriving struct {
	r      io.Reader
	flight *flight
	failed error // of the body or the spool, not of who reads
}

func (a *arriving) Read(p []byte) (int, error) {
	if a.failed != nil {
		return 0, a.failed
	}
	n, err := a.r.Read(p)
	if n > 0 {
		if err := a.flight.write(p[:n]); err != nil {
			a.failed = err
			return 0, err
		}
	}
	if err != nil && err != io.EOF {
		a.failed = err
	}
	return n, err
}

// flightReader reads a flight from where it is sought to, and waits for what has
// not come yet.
type flightReader struct {
	ctx    context.Context
	flight *flight
	pos    int64
	closed bool
}

// Read implements io.Reader.
func (r *flightReader) Read(p []byte) (int, error) {
	f := r.flight
	for len(p) > 0 {
		f.mu.Lock()
		ready, landed, err := f.written, f.landed, f.err
		if !landed {
			ready = min(ready, f.size-1) // the last byte stands for the whole being right
		}
		if r.pos >= ready && !landed && err == nil && f.more == nil {
			f.more = make(chan struct{})
		}
		more := f.more
		f.mu.Unlock()
		switch {
		case r.pos < ready:
			n, err := f.spool.ReadAt(p[:min(int64(len(p)), ready-r.pos)], r.pos)
			r.pos += int64(n)
			return n, err
		case landed:
			return 0, io.EOF
		case err != nil:
			return 0, err
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	return 0, nil
}

// Seek implements io.Seeker.
func (r *flightReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.flight.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.pos = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *flightReader) Close() error {
	if !r.closed {
		r.closed = true
		r.flight.leave()
	}
	return nil
}
