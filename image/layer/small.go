package layer

import (
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

const (
	smallBytes = 64 << 10 // of a file that is finished beside the applier
	batchBytes = 256 << 10
	batchFiles = 16 // whose descriptors are open
	batches    = 2
)

// finisher writes small files, sets their times and closes them, in a goroutine of its own, while the applier makes the
// next ones: that is half of the work on each. They go there in batches, for waking one another takes time as well.
type finisher struct {
	current    *batch
	full, free chan *batch // nil until there is a small file
	err        error       // what went wrong first; the goroutine's as long as it runs
	running    sync.WaitGroup
}

// batch is some small files, made but empty, and what is to be in them.
type batch struct {
	files []smallFile
	data  []byte
	err   error // what went wrong first, in this batch or before it
}

type smallFile struct {
	name  string // of the entry
	fd    int
	size  int // of its part of the batch's data
	times [2]unix.Timespec
}

// room finds a batch that has room for one more file. It fails if one before has failed.
func (f *finisher) room(size int64) (*batch, error) {
	if f.full == nil {
		f.full, f.free = make(chan *batch, batches), make(chan *batch, batches)
		for range batches {
			f.free <- &batch{}
		}
		f.running.Go(f.run)
	}
	if b := f.current; b != nil && (len(b.files) == batchFiles || int64(len(b.data))+size > batchBytes) {
		f.full <- b // has room for all there are
		f.current = nil
	}
	if f.current == nil {
		f.current = <-f.free
	}
	return f.current, f.current.err
}

// run finishes batches. Once a file has failed it only closes them.
func (f *finisher) run() {
	for b := range f.full {
		data := b.data
		for _, s := range b.files {
			if err := s.finish(data[:s.size], f.err == nil); err != nil && f.err == nil {
				f.err = entryError(s.name, err)
			}
			data = data[s.size:]
		}
		b.files, b.data, b.err = b.files[:0], b.data[:0], f.err
		f.free <- b
	}
}

// finish closes the file, and writes it first if it is wanted.
func (s *smallFile) finish(data []byte, wanted bool) error {
	var err error
	if wanted {
		if err = writeAt(s.fd, data, 0); err == nil {
			err = setTimes(s.fd, s.times)
		}
	}
	if cerr := unix.Close(s.fd); err == nil {
		err = cerr
	}
	return err
}

// wait has all files finished and says what went wrong first. Nothing may follow.
func (f *finisher) wait() error {
	if f.full == nil {
		return nil
	}
	if f.current != nil {
		f.full <- f.current
	}
	close(f.full)
	f.running.Wait()
	return f.err
}

// isSmall says whether a file that was just made may be left to the finisher. Writing takes away special bits and
// capabilities, so that what sets them has to come after it.
func isSmall(h *tarstream.Header) bool {
	return h.Size <= smallBytes && !h.Sparse && len(h.Xattrs) == 0 && h.Mode&specialBits == 0
}

// finishLater gives a small file its owner and mode and leaves the rest to the finisher, which closes it.
func (a *applier) finishLater(fd int, d *dir, h *tarstream.Header) error {
	b, size, err := a.collect(fd, d, h)
	if err != nil {
		unix.Close(fd)
		return err
	}
	b.files = append(b.files, smallFile{name: h.Name, fd: fd, size: size, times: timesOf(h)})
	return nil
}

// collect puts a small file's data into a batch.
func (a *applier) collect(fd int, d *dir, h *tarstream.Header) (b *batch, size int, err error) {
	uid, gid, err := a.owner(h)
	if err == nil {
		err = a.own(fd, d, h.Mode, uid, gid, false)
	}
	if err == nil {
		b, err = a.small.room(h.Size)
	}
	if err != nil {
		return nil, 0, err
	}
	before := len(b.data)
	for {
		_, piece, err := a.archive.Data()
		if err == io.EOF {
			return b, len(b.data) - before, nil
		}
		if err != nil {
			b.data = b.data[:before]
			return nil, 0, err
		}
		b.data = append(b.data, piece...)
	}
}
