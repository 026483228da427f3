package layer

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

const (
	// smallFileBytes is up to which size files are left to the writers. Their contents are copied for that.
	smallFileBytes = 64 << 10
	// waitingFiles bounds how many of them are open, and in memory.
	waitingFiles = 32
	maxWriters   = 4
)

// writers complete small files beside the applier. It makes a file itself, so that all that comes after, another entry of
// that name, say, or a hard link, finds it there; what is left is to be done to a descriptor, whenever.
type writers struct {
	applier *applier
	todo    chan *smallFile
	free    chan *smallFile
	running sync.WaitGroup
	err     atomic.Pointer[error] // the first
}

// smallFile is a new file without contents and attributes.
type smallFile struct {
	fd       int
	name     string
	data     []byte
	from     origin
	mode     uint32
	uid, gid uint32
	times    [2]unix.Timespec
}

func startWriters(a *applier) *writers {
	w := &writers{applier: a, todo: make(chan *smallFile, waitingFiles), free: make(chan *smallFile, waitingFiles)}
	for range waitingFiles {
		w.free <- &smallFile{}
	}
	for range max(1, min(maxWriters, runtime.GOMAXPROCS(0)-1)) {
		w.running.Go(w.write)
	}
	return w
}

// takes says whether a file is one for the writers. Those with extended attributes are not: setting them is counted, and
// may call back.
func (w *writers) takes(h *tarstream.Header) bool {
	return h.Size <= smallFileBytes && !h.Sparse && len(h.Xattrs) == 0
}

// add hands over a file that has been opened, and is closed whatever happens.
func (w *writers) add(fd int, p *dir, archive *tarstream.Reader, h *tarstream.Header) error {
	f := <-w.free
	f.fd, f.name, f.from, f.mode, f.times = fd, h.Name, originIn(p), h.Mode, timesOf(h)
	var err error
	if f.uid, f.gid, err = w.applier.owner(h); err == nil {
		f.data, err = readAll(archive, f.data[:0])
	}
	if err == nil {
		err = w.failure()
	}
	if err != nil {
		unix.Close(fd)
		w.free <- f
		return err
	}
	w.todo <- f
	return nil
}

// readAll appends an entry's data to b.
func readAll(archive *tarstream.Reader, b []byte) ([]byte, error) {
	for {
		_, piece, err := archive.Data()
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		b = append(b, piece...)
	}
}

func (w *writers) write() {
	for f := range w.todo {
		if err := w.complete(f); err != nil {
			err = fmt.Errorf("entry %s: %w", quote(f.name), err)
			w.err.CompareAndSwap(nil, &err)
		}
		w.free <- f
	}
}

func (w *writers) complete(f *smallFile) error {
	var err error
	if w.failure() == nil {
		if err = writeAt(f.fd, f.data, 0); err == nil {
			err = w.applier.own(f.fd, f.from, f.mode, f.uid, f.gid, false)
		}
		if err == nil {
			err = setTimes(f.fd, f.times)
		}
	}
	if cerr := unix.Close(f.fd); err == nil {
		err = cerr
	}
	return err
}

func (w *writers) failure() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

// wait waits until all files are complete. No more can be added.
func (w *writers) wait() error {
	close(w.todo)
	w.running.Wait()
	return w.failure()
}
