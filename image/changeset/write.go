package changeset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Write writes the set as a layer's archive, reading the files that have changed. The tree must be the one that the set was
// made from; a file that has changed since is ErrChanging.
func (s *Set) Write(ctx context.Context, root *safepath.Root, to io.Writer, o Options) error {
	w := &writer{ctx: ctx, root: root, options: o, tar: tarstream.NewWriter(to), dirfd: -1, links: map[inode]string{}}
	defer w.leaveDir()
	for i := range s.changes {
		c := &s.changes[i]
		err := ctx.Err()
		if err == nil {
			err = at(c.Name, w.change(c))
		}
		if err != nil {
			return fmt.Errorf("write changes of %s: %w", root.Name(), err)
		}
	}
	if err := w.tar.Close(); err != nil {
		return fmt.Errorf("write changes of %s: %w", root.Name(), err)
	}
	return nil
}

// inode is a file, whatever its names.
type inode struct{ dev, ino uint64 }

// writer writes one set.
type writer struct {
	ctx     context.Context
	root    *safepath.Root
	options Options
	tar     *tarstream.Writer
	links   map[inode]string // the first name of each file that has several
	dir     string           // the directory that is open as dirfd
	dirfd   int              // -1 for none
	buf     []byte
}

func (w *writer) change(c *Change) error {
	dir, base := safepath.SplitBase(c.Name)
	if c.Kind == Deleted {
		return w.tar.WriteHeader(&tarstream.Header{Name: child(dir, whiteoutPrefix+base), Type: tarstream.TypeReg})
	}
	if c.now.isNull() {
		return errors.New("a device 0:0 would be a whiteout to overlayfs")
	}
	if err := w.enterDir(dir); err != nil {
		return err
	}
	h := &tarstream.Header{Name: c.Name, Mode: c.now.mode & 0o7777, ModTime: w.time(c.now.mtime)}
	if c.now.nlink > 1 && !c.now.isDir() {
		key := inode{c.now.dev, c.now.ino}
		if first, ok := w.links[key]; ok {
			h.Type, h.Linkname = tarstream.TypeLink, first
			if err := w.stillThere(base, &c.now); err != nil {
				return err
			}
			if err := w.owner(h, &c.now, nil); err != nil {
				return err
			}
			return w.tar.WriteHeader(h)
		}
		w.links[key] = c.Name
	}
	switch c.now.kind() {
	case unix.S_IFREG:
		return w.file(h, base, &c.now)
	case unix.S_IFDIR:
		return w.directory(h, base, &c.now)
	}
	return w.special(h, base, &c.now)
}

// time clamps a time: what was made before an image's source was last changed keeps it.
func (w *writer) time(t tarstream.Time) tarstream.Time {
	if latest := w.options.LatestTime; latest != nil && t.Sec >= *latest {
		return tarstream.Time{Sec: *latest}
	}
	return t
}

// enterDir opens the directory that the next names are in. They come directory by directory.
func (w *writer) enterDir(dir string) error {
	if w.dirfd >= 0 && w.dir == dir {
		return nil
	}
	w.leaveDir()
	fd, err := safepath.OpenAt(w.root.FD(), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return w.vanished(err)
	}
	w.dir, w.dirfd = dir, fd
	return nil
}

func (w *writer) leaveDir() {
	if w.dirfd >= 0 {
		unix.Close(w.dirfd)
		w.dirfd = -1
	}
}

// vanished is for what was there a moment ago.
func (w *writer) vanished(err error) error {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EINVAL} { // the last of no link any more
		if errors.Is(err, gone) {
			return ErrChanging
		}
	}
	return err
}

// stillThere checks that base is what was found there.
func (w *writer) stillThere(base string, want *state) error {
	var st unix.Stat_t
	if err := unix.Fstatat(w.dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.vanished(err)
	}
	return unchanged(&st, want)
}

func unchanged(st *unix.Stat_t, want *state) error {
	if now := stateOf(st); !now.sameFile(want) {
		return ErrChanging
	}
	return nil
}

// open opens a file or directory that must be the one that was found. Nothing else is ever opened: a pipe would hang, a device
// may do anything. O_PATH looks without opening, and /proc leads from there to the very inode.
func (w *writer) open(base string, flags int, want *state) (*os.File, error) {
	path, err := safepath.OpenAt(w.dirfd, base, unix.O_PATH|unix.O_NOFOLLOW, 0, safepath.Beneath|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, w.vanished(err)
	}
	defer unix.Close(path)
	if err := fstatUnchanged(path, want); err != nil {
		return nil, err
	}
	for {
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(path), flags|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), base), nil
		}
		if err != unix.EINTR {
			return nil, fmt.Errorf("open: %w", err)
		}
	}
}

func fstatUnchanged(fd int, want *state) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return unchanged(&st, want)
}

// file writes a regular file, and looks afterwards whether it was changed meanwhile.
func (w *writer) file(h *tarstream.Header, base string, now *state) error {
	f, err := w.open(base, unix.O_RDONLY, now)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	h.Type, h.Size = tarstream.TypeReg, now.size
	if err := w.describe(h, now, xattrsOf{fd: fd}); err != nil {
		return err
	}
	if err := w.content(fd, now.size, w.tar); err != nil {
		return err
	}
	return fstatUnchanged(fd, now)
}

// content copies a file. Its holes are not read.
func (w *writer) content(fd int, size int64, to io.Writer) error {
	if w.buf == nil {
		w.buf = make([]byte, 256<<10)
	}
	for offset := int64(0); offset < size; {
		data, err := unix.Seek(fd, offset, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // nothing but a hole up to the end
			data = size
		case err != nil: // a file system that does not know holes
			data = offset
		}
		if data = min(data, size); data > offset {
			if err := w.zeros(data-offset, to); err != nil {
				return err
			}
		}
		end, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil || end <= data {
			end = size
		}
		end = min(end, size)
		if err := w.data(fd, data, end, to); err != nil {
			return err
		}
		offset = end
	}
	return nil
}

func (w *writer) zeros(n int64, to io.Writer) error {
	clear(w.buf)
	for n > 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		m := min(n, int64(len(w.buf)))
		if _, err := to.Write(w.buf[:m]); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

func (w *writer) data(fd int, offset, end int64, to io.Writer) error {
	for offset < end {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(fd, w.buf[:min(end-offset, int64(len(w.buf)))], offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 { // it has become shorter
			return ErrChanging
		}
		if _, err := to.Write(w.buf[:n]); err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// directory writes a directory's own entry.
func (w *writer) directory(h *tarstream.Header, base string, now *state) error {
	f, err := w.open(base, unix.O_RDONLY|unix.O_DIRECTORY, now)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Type = tarstream.TypeDir
	return w.describe(h, now, xattrsOf{fd: int(f.Fd())})
}

// special writes a symbolic link, a device or a pipe.
func (w *writer) special(h *tarstream.Header, base string, now *state) error {
	switch now.kind() {
	case unix.S_IFLNK:
		h.Type = tarstream.TypeSymlink
		buf := make([]byte, maxNameBytes+1)
		n, err := unix.Readlinkat(w.dirfd, base, buf)
		if err != nil {
			return w.vanished(fmt.Errorf("read link: %w", err))
		}
		h.Linkname = string(buf[:n])
	case unix.S_IFIFO:
		h.Type = tarstream.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Type = tarstream.TypeChar
		if now.kind() == unix.S_IFBLK {
			h.Type = tarstream.TypeBlock
		}
		h.Major, h.Minor = int64(unix.Major(now.rdev)), int64(unix.Minor(now.rdev))
	default:
		return fmt.Errorf("file type %#o is unknown", now.kind())
	}
	if err := w.describe(h, now, xattrsOf{fd: -1, path: "/proc/self/fd/" + strconv.Itoa(w.dirfd) + "/" + base}); err != nil {
		return err
	}
	return w.stillThere(base, now)
}

// describe adds what is left to say of a file, and writes the header.
func (w *writer) describe(h *tarstream.Header, now *state, from xattrsOf) error {
	xattrs, err := from.read()
	if err == nil {
		err = w.owner(h, now, xattrs)
	}
	if err != nil {
		return err
	}
	for _, x := range xattrs {
		if w.options.keeps(x.Name) {
			h.Xattrs = append(h.Xattrs, normal(x))
		}
	}
	return w.tar.WriteHeader(h)
}
