package layout

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Session is a time in which no blob disappears: what was written, or found to
// be there, may be relied upon until a name leads to it. All that adds to a
// store goes through one.
type Session struct {
	*Store
	release func()
}

// Begin starts a session. It waits while a GC is at work. Close it before a GC
// in the same process, or that waits forever.
func (s *Store) Begin(ctx context.Context) (*Session, error) {
	release, err := s.lock(ctx, leaseFile, syscall.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("begin session in %s: %w", s.dir, err)
	}
	return &Session{s, release}, nil
}

// Close ends the session, not the store. It may be called twice.
func (p *Session) Close() error {
	p.release()
	return nil
}

// Ingest is a blob on its way into the store. It is not for concurrent use.
type Ingest struct {
	store    *Store
	desc     v1.Descriptor
	file     *os.File // of the partial blob, locked; nil when there is nothing to write, or no more
	partial  string
	hash     hash.Hash
	offset   int64
	sent     int64 // what the kernel has been told to write
	done     bool  // the blob is in its place
	unusable bool  // what is in the file after a failed write is not known

	ended func() error // why all that this is part of has ended, if it has
}

// Ingest prepares to write the blob that desc describes. What an earlier
// attempt has left of it is kept: see Offset. When another process or goroutine
// is writing the same blob, Ingest waits for it.
func (p *Session) Ingest(ctx context.Context, desc v1.Descriptor) (*Ingest, error) {
	in, err := p.ingest(ctx, desc)
	if err != nil {
		return nil, p.blobError("ingest", desc.Digest, err)
	}
	return in, nil
}

func (p *Session) ingest(ctx context.Context, desc v1.Descriptor) (*Ingest, error) {
	if err := image.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	h, err := image.NewHash(desc.Digest)
	if err != nil {
		return nil, err
	}
	in := &Ingest{store: p.Store, desc: desc, hash: h, partial: partialPath(desc.Digest), ended: func() error { return context.Cause(ctx) }}
	for in.file == nil {
		if there, err := p.present(ctx, desc); err != nil {
			return nil, err
		} else if there {
			in.offset, in.done = desc.Size, true
			return in, nil
		}
		if err := in.lock(ctx); err != nil {
			return nil, err
		}
	}
	if err := in.resume(ctx); err != nil {
		in.file.Close()
		return nil, err
	}
	return in, nil
}

// Recheck reads a whole blob that the store has. Where its content is not what
// its name says, the disk has damaged it, or somebody has: it is removed, so that
// it can be fetched again, and the error is one with image.ErrMismatch.
func (p *Session) Recheck(ctx context.Context, desc v1.Descriptor) error {
	if err := p.recheck(ctx, desc.Digest); err != nil {
		return p.blobError("check", desc.Digest, err)
	}
	return nil
}

func (p *Session) recheck(ctx context.Context, d digest.Digest) error {
	_, damaged := p.hashBlob(ctx, d)
	if !errors.Is(damaged, image.ErrMismatch) {
		return damaged
	}
	// Who holds the partial file's lock is about to put a sound blob in its place.
	f, err := p.openPrivate(partialPath(d), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return errors.Join(damaged, err)
	}
	defer f.Close()
	if err := flock(ctx, f, syscall.LOCK_EX); err != nil {
		return errors.Join(damaged, err)
	}
	if _, damaged = p.hashBlob(ctx, d); !errors.Is(damaged, image.ErrMismatch) {
		return damaged
	}
	path, err := blobPath(d)
	if err == nil {
		err = p.remove(path)
	}
	if st, staterr := f.Stat(); staterr == nil && st.Size() == 0 {
		err = errors.Join(err, p.remove(partialPath(d)))
	}
	return errors.Join(damaged, err)
}

func partialPath(d digest.Digest) string {
	return partialDir + "/" + string(d.Algorithm()) + "-" + d.Encoded()
}

// present says whether the blob needs no writing. One of another size than
// expected was damaged, say by a power failure, and is then to be replaced; or
// the descriptor is wrong, and then that is an error.
func (s *Store) present(ctx context.Context, desc v1.Descriptor) (bool, error) {
	st, err := s.Stat(ctx, desc.Digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case st.Size() == desc.Size:
		return true, nil
	}
	switch n, err := s.hashBlob(ctx, desc.Digest); {
	case errors.Is(err, image.ErrMismatch):
		return false, nil
	case err != nil:
		return false, err
	default:
		return false, fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, n, desc.Size)
	}
}

// lock opens and locks the partial file. It leaves in.file nil when, during the
// wait, the writer before us has put the blob in its place or thrown it away:
// then the lock is on a file that no longer has the name.
func (in *Ingest) lock(ctx context.Context) error {
	f, err := in.store.openPrivate(in.partial, os.O_RDWR|os.O_CREATE, 0o644) // who may see a layout may see its blobs
	if err != nil {
		return err
	}
	if err := flock(ctx, f, syscall.LOCK_EX); err != nil {
		f.Close()
		return err
	}
	mine, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		named, err = in.store.root.Lstat(in.partial)
		if err == nil && os.SameFile(mine, named) {
			// The writer before may have finished between our look for
			// the blob and the creation of this file.
			there, err := in.store.present(ctx, in.desc)
			if err == nil && !there {
				in.file = f
				return nil
			}
			return errors.Join(err, in.store.remove(in.partial), f.Close())
		}
	}
	f.Close()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// resume hashes what is there of the blob.
func (in *Ingest) resume(ctx context.Context) error {
	st, err := in.file.Stat()
	if err != nil {
		return err
	}
	if st.Size() > in.desc.Size {
		return in.Restart()
	}
	in.offset, err = copyContext(ctx, in.hash, in.file)
	return err
}

// Offset is how many bytes of the blob are there: where to go on writing. When
// it is the blob's size, only Commit is left to do.
func (in *Ingest) Offset() int64 { return in.offset }

// Restart forgets what is there, for a source that can't begin in the middle.
func (in *Ingest) Restart() error {
	if in.file == nil {
		return nil
	}
	_, err := in.file.Seek(0, io.SeekStart)
	if err == nil {
		err = in.file.Truncate(0)
	}
	if err != nil {
		in.unusable = true
		return in.store.blobError("write", in.desc.Digest, err)
	}
	in.hash.Reset()
	in.offset = 0
	return nil
}

// Write appends to the blob. What would make it larger than its descriptor says
// is refused whole.
func (in *Ingest) Write(p []byte) (int, error) {
	if int64(len(p)) > in.desc.Size-in.offset {
		return 0, in.store.blobError("write", in.desc.Digest,
			fmt.Errorf("%w: more than the %d bytes of its descriptor", image.ErrMismatch, in.desc.Size))
	}
	if len(p) == 0 {
		return 0, nil
	}
	if in.file == nil {
		return 0, in.store.blobError("write", in.desc.Digest, fs.ErrClosed)
	}
	n, err := in.file.Write(p)
	in.hash.Write(p[:n])
	in.offset += int64(n)
	if err != nil {
		in.unusable = true
		return n, in.store.blobError("write", in.desc.Digest, err)
	}
	if in.offset-in.sent >= sendBytes {
		in.store.send(in.file, in.sent, in.offset)
		in.sent = in.offset
	}
	return n, nil
}

// sendBytes is how much the disk is given at a time, while more comes.
const sendBytes = 8 << 20

// Commit verifies the blob and puts it in its place. Where bytes are missing,
// the partial blob stays for a later attempt; where the digest is wrong, it is
// thrown away. Both are errors with image.ErrMismatch.
func (in *Ingest) Commit() error {
	if in.done {
		return nil
	}
	if err := in.commit(); err != nil {
		return in.store.blobError("commit", in.desc.Digest, err)
	}
	return nil
}

func (in *Ingest) commit() error {
	switch {
	case in.file == nil:
		return fs.ErrClosed
	case in.unusable:
		return errors.New("an earlier write failed")
	}
	if in.offset != in.desc.Size {
		return fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, in.offset, in.desc.Size)
	}
	if err := image.CheckSum(in.desc.Digest, in.hash); err != nil {
		return errors.Join(err, in.Discard())
	}
	dest, err := blobPath(in.desc.Digest)
	if err != nil {
		return err
	}
	err = in.store.sync(in.file)
	if err == nil {
		err = in.store.makeBlobDir(path.Dir(dest))
	}
	if err == nil {
		err = in.store.root.Rename(in.partial, dest)
	}
	if err != nil {
		in.unusable = true
		return plain(err)
	}
	err = in.file.Close()
	in.file, in.done = nil, true
	return errors.Join(err, in.store.syncDir(path.Dir(dest)))
}

// makeBlobDir makes the directory of a hash algorithm, and makes it last.
func (s *Store) makeBlobDir(dir string) error {
	if _, err := s.root.Stat(dir); err == nil {
		return nil
	}
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return s.syncDir(path.Dir(dir))
}

// Close ends the writing. Without a Commit before it, what is there of the blob
// stays to be resumed, unless a write failed, of this blob or of one that came
// beside it: a full disk gets its space back.
func (in *Ingest) Close() error {
	if in.file == nil {
		return nil
	}
	cause := in.ended()
	if in.unusable || in.offset == 0 || errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		return in.Discard()
	}
	err := in.file.Close()
	in.file = nil
	return err
}

// Discard ends the writing and removes what is there of the blob.
func (in *Ingest) Discard() error {
	if in.file == nil {
		return nil
	}
	err := errors.Join(in.store.remove(in.partial), in.file.Close())
	in.file = nil
	in.unusable = true
	return err
}

// Put writes a small blob.
func (p *Session) Put(ctx context.Context, mediaType string, data []byte) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := p.PutAs(ctx, desc, data); err != nil {
		return v1.Descriptor{}, err
	}
	return desc, nil
}

// PutAs is Put for a blob whose descriptor is known.
func (p *Session) PutAs(ctx context.Context, desc v1.Descriptor, data []byte) error {
	in, err := p.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.Restart(); err != nil {
		return err
	}
	if _, err := in.Write(data[min(in.Offset(), int64(len(data))):]); err != nil {
		return err
	}
	return in.Commit()
}
