package safepath

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The two ways to resolve a name. Neither passes through /proc's magic links.
const (
	// InRoot follows symbolic links as a process whose root directory this is would see them: absolute ones and ".." stay
	// inside.
	InRoot uint64 = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// Beneath refuses every symbolic link on the way (ELOOP), and every ".." out of the directory (EXDEV).
	Beneath uint64 = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
)

// maxTries bounds how often an openat2 is repeated that failed with EAGAIN: the kernel could not rule out that a rename or
// mount during the look-up of a ".." led outside. A process that renames without end must not hold us for ever.
const maxTries = 128

// Root is an open directory inside which untrusted names are resolved. It may be used by several goroutines at once.
type Root struct {
	dir *os.File // opened with O_PATH
}

// OpenRoot opens a directory by a path that the caller trusts.
func OpenRoot(dir string) (*Root, error) {
	for {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open root directory %s: %w", dir, err)
		}
		return &Root{dir: os.NewFile(uintptr(fd), dir)}, nil
	}
}

// NewRoot makes a Root of an open directory, which from then on belongs to it.
func NewRoot(dir *os.File) *Root { return &Root{dir: dir} }

// FD is the directory's file descriptor (it may be an O_PATH one), valid until Close.
func (r *Root) FD() int { return int(r.dir.Fd()) }

// Name is the path the directory was opened by, for messages.
func (r *Root) Name() string { return r.dir.Name() }

// Close closes the directory.
func (r *Root) Close() error { return r.dir.Close() }

// OpenAt is openat2(2) relative to dirfd, with O_CLOEXEC, EINTR and (a bounded number of times) EAGAIN repeated. resolve
// is InRoot or Beneath, with further RESOLVE_ flags if wanted. It returns the bare errno.
func OpenAt(dirfd int, name string, flags int, perm uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(perm) // openat2 refuses a mode that means nothing
	}
	var err error
	for range maxTries {
		var fd int
		fd, err = unix.Openat2(dirfd, name, &how)
		if err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return -1, err
		}
	}
	return -1, err
}

// Open opens name, following symbolic links inside the root (InRoot). flags and perm are those of open(2). Whoever opens
// for more than O_PATH what an image brings must know that it may be a device or a pipe: see OpenRegular.
func (r *Root) Open(name string, flags int, perm uint32) (*os.File, error) {
	return r.open(name, flags, perm, InRoot)
}

// OpenBeneath opens name if no symbolic link is on the way nor at its end (Beneath).
func (r *Root) OpenBeneath(name string, flags int, perm uint32) (*os.File, error) {
	return r.open(name, flags, perm, Beneath)
}

func (r *Root) open(name string, flags int, perm uint32, resolve uint64) (*os.File, error) {
	fd, err := OpenAt(r.FD(), name, flags, perm, resolve)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	return os.NewFile(uintptr(fd), r.Name()+"/"+name), nil
}

// OpenParent opens, with O_PATH, the directory that holds name, and returns it with name's last component. No symbolic
// link may be on the way; the last component is not looked at. name must be in the form that Clean and Resolve return, and
// must not be the root itself.
func (r *Root) OpenParent(name string) (*os.File, string, error) {
	dir, base := SplitBase(name)
	if err := checkBase(base); err != nil {
		return nil, "", r.fail("open parent of", name, err)
	}
	f, err := r.OpenBeneath(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", err
	}
	return f, base, nil
}

// OpenRegular opens a regular file for reading, following symbolic links inside the root. Anything else at that name is
// refused without having been opened: opening a pipe would hang, opening a device may do anything.
func (r *Root) OpenRegular(name string) (*os.File, error) {
	path, err := r.Open(name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer path.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(path.Fd()), &st); err != nil {
		return nil, r.fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, r.fail("open", name, errors.New("not a regular file"))
	}
	// The one way from an O_PATH descriptor to a readable one; it leads to the very inode that was looked at. Package os would
	// enter it into the runtime's poller, which has no use for a regular file.
	for {
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(path.Fd())), unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path.Name()), nil
		case !errors.Is(err, unix.EINTR):
			return nil, r.fail("open", name, err)
		}
	}
}

// ReadFile reads a regular file of at most maxBytes, following symbolic links inside the root.
func (r *Root) ReadFile(name string, maxBytes int64) ([]byte, error) {
	f, err := r.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	if int64(len(b)) > maxBytes {
		return nil, r.fail("read", name, fmt.Errorf("file is larger than %d bytes", maxBytes))
	}
	return b, nil
}

// fail describes a failed operation. Names come from outside and may be thousands of bytes long.
func (r *Root) fail(operation, name string, err error) error {
	const maxShownBytes = 300
	if len(name) > maxShownBytes {
		name = name[:maxShownBytes] + "…"
	}
	return fmt.Errorf("%s %q in %s: %w", operation, name, r.Name(), err)
}
