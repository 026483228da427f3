package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution/server/storage"
)

func (o *Objects) streamPath(id string) (string, error) {
	return o.path(streamDir + "/" + id)
}

// AppendStream implements storage.Objects.
func (o *Objects) AppendStream(_ context.Context, id string, from storage.Mark, r io.Reader) (storage.Mark, error) {
	path, err := o.streamPath(id)
	if err != nil {
		return from, err
	}
	flags := os.O_WRONLY
	if from.Offset == 0 {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return from, translate(err)
	}
	kept, err := o.appendTo(f, from.Offset, r)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return storage.Mark{Offset: from.Offset + kept}, translate(err)
}

func (o *Objects) appendTo(f *os.File, offset int64, r io.Reader) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < offset {
		return 0, fmt.Errorf("stream has %d bytes, not %d: %w", info.Size(), offset, storage.ErrOffset)
	}
	if err := f.Truncate(offset); err != nil {
		return 0, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	buffer := o.buffers.Get().(*[bufferBytes]byte)
	defer o.buffers.Put(buffer)
	w := &writer{f: f, sync: !o.opts.NoSync, written: offset, sent: offset}
	kept, err := io.CopyBuffer(w, struct{ io.Reader }{r}, buffer[:])
	if w.err != nil {
		// Not r failed but the device: what was taken up is given back.
		return 0, errors.Join(w.err, f.Truncate(offset))
	}
	return kept, err
}

// writer hides the file's other methods from io.Copy, which would not use the
// buffer, and tells its own errors from the reader's. It asks no context: when
// a request ends its body does, and what came before is to be kept.
//
// Where the commit will sync, the kernel is told now and then to begin: the disk
// would be idle else until the blob's end, which then waits for all of it.
type writer struct {
	f             *os.File
	sync          bool
	written, sent int64 // up to where
	err           error
}

// sendBytes is how much the disk is given at a time.
const sendBytes = 8 << 20

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.err = err
	if w.written += int64(n); w.sync && w.written-w.sent >= sendBytes {
		// A hint: what is wrong with the disk, the commit's sync tells.
		unix.SyncFileRange(int(w.f.Fd()), w.sent, w.written-w.sent, unix.SYNC_FILE_RANGE_WRITE)
		w.sent = w.written
	}
	return n, err
}

// CommitStream implements storage.Objects.
func (o *Objects) CommitStream(_ context.Context, id string, at storage.Mark, key string) error {
	from, err := o.streamPath(id)
	if err != nil {
		return err
	}
	to, err := o.path(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(from, os.O_WRONLY, 0)
	if err != nil {
		return translate(err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() < at.Offset {
		err = fmt.Errorf("stream has %d bytes, not %d: %w", info.Size(), at.Offset, storage.ErrOffset)
	}
	if err == nil && info.Size() > at.Offset {
		err = f.Truncate(at.Offset)
	}
	if err == nil && !o.opts.NoSync {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	dirs := map[string]bool{}
	if err == nil {
		err = o.place(os.Rename, from, to, dirs)
	}
	if err == nil {
		err = o.syncDirs(dirs)
	}
	return translate(err)
}

// DiscardStream implements storage.Objects.
func (o *Objects) DiscardStream(_ context.Context, id string) error {
	path, err := o.streamPath(id)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}
