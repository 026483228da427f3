package safepath

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxOpenDepth is how many directories are held open while removing a tree. What is nested deeper is first moved up
	// to the top of the tree, so that a tree of any depth can be removed.
	maxOpenDepth = 64
	// maxPasses bounds how often one directory is read again because it is not empty yet: a process that fills it as
	// fast as we empty it must not hold us for ever.
	maxPasses = 1 << 16
	// readNames is how many names are read from a directory at once.
	readNames = 512
)

// RemoveAll removes name and all that is below it; nothing is removed, and that is no error, if it does not exist. Symbolic
// links are removed, never followed, and none may be on the way to name. A mount point in the tree stops it with EXDEV or
// EBUSY: what is mounted there belongs to somebody else.
func (r *Root) RemoveAll(name string) error {
	clean, err := Clean(name)
	if err != nil {
		return r.fail("remove", name, err)
	}
	dir, base := SplitBase(clean)
	fd, err := OpenAt(r.FD(), dir, unix.O_PATH|unix.O_DIRECTORY, 0, Beneath|unix.RESOLVE_NO_XDEV)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return r.fail("remove", name, err)
	}
	defer unix.Close(fd)
	if err := RemoveAllAt(fd, base); err != nil {
		return r.fail("remove", name, err)
	}
	return nil
}

// RemoveAllAt is RemoveAll for the entry base of the open directory dirfd.
func RemoveAllAt(dirfd int, base string) error {
	if err := checkBase(base); err != nil {
		return err
	}
	notEmpty, err := removeOne(dirfd, base)
	if !notEmpty {
		return err
	}
	fd, err := openTree(dirfd, base)
	if err != nil {
		return err
	}
	t := treeRemover{topfd: fd}
	err = t.empty(fd, 1)
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("%q: %w", base, err)
	}
	_, err = removeOne(dirfd, base)
	return err
}

// removeOne removes an entry unless it is a directory that is not empty.
func removeOne(dirfd int, base string) (notEmpty bool, err error) {
	err = unix.Unlinkat(dirfd, base, 0)
	if err == nil || err == unix.ENOENT {
		return false, nil
	}
	// EISDIR is what Linux file systems say of a directory; POSIX has EPERM, and a few follow it.
	if err != unix.EISDIR && err != unix.EPERM {
		return false, err
	}
	switch rmErr := unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR); rmErr {
	case nil, unix.ENOENT:
		return false, nil
	case unix.ENOTEMPTY, unix.EEXIST:
		return true, rmErr
	case unix.ENOTDIR:
		return false, err // a file that may not be removed (immutable, for one)
	default:
		return false, rmErr
	}
}

// openTree opens a directory whose contents are to be removed. If its mode does not let its owner do that, who is not
// root, it is changed.
func openTree(dirfd int, base string) (int, error) {
	fd, err := openDirectory(dirfd, base, unix.O_RDONLY)
	if euid := unix.Geteuid(); err == unix.EACCES || err == nil && euid != 0 && isClosed(fd, euid) {
		unix.Close(fd)
		if err := openMode(dirfd, base); err != nil {
			return -1, err
		}
		fd, err = openDirectory(dirfd, base, unix.O_RDONLY)
	}
	return fd, err
}

func openDirectory(dirfd int, base string, flags int) (int, error) {
	return OpenAt(dirfd, base, flags|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, Beneath|unix.RESOLVE_NO_XDEV)
}

const ownerAll = 0o700 // what it takes to empty a directory

func isClosed(fd, euid int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && int(st.Uid) == euid && st.Mode&ownerAll != ownerAll
}

// openMode lets the owner of a directory list and change it.
func openMode(dirfd int, base string) error {
	fd, err := openDirectory(dirfd, base, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// fchmod(2) takes no O_PATH descriptor; /proc's link to it leads to that very directory.
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), ownerAll); err != nil {
		return unix.EACCES
	}
	return nil
}

// treeRemover removes what is below topfd.
type treeRemover struct {
	topfd int
	moved int // how many directories have been moved up to the top
}

// empty removes everything in the directory fd, which is depth levels below the one RemoveAllAt was called for.
func (t *treeRemover) empty(fd, depth int) error {
	for range maxPasses {
		names, err := list(fd, readNames)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return nil
		}
		for _, name := range names {
			notEmpty, err := removeOne(fd, name)
			if notEmpty {
				err = t.removeDir(fd, name, depth)
			}
			if err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
	}
	return unix.EBUSY
}

// removeDir removes a directory with contents. It may leave some if somebody adds to it meanwhile; empty comes by again.
func (t *treeRemover) removeDir(dirfd int, base string, depth int) error {
	if depth >= maxOpenDepth {
		return t.moveUp(dirfd, base)
	}
	fd, err := openTree(dirfd, base)
	if err != nil {
		return err
	}
	err = t.empty(fd, depth+1)
	unix.Close(fd)
	if err != nil {
		return err
	}
	notEmpty, err := removeOne(dirfd, base)
	if notEmpty {
		return nil
	}
	return err
}

// moveUp puts a directory that is too deep to be held open into the top, under a name of our own.
func (t *treeRemover) moveUp(dirfd int, base string) error {
	// To be moved it must be writable, as its ".." changes.
	fd, err := openTree(dirfd, base)
	if err != nil {
		return err
	}
	unix.Close(fd)
	for range maxPasses {
		t.moved++
		err := unix.Renameat2(dirfd, base, t.topfd, fmt.Sprintf(".deep-%d", t.moved), unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return err
		}
	}
	return unix.EEXIST
}

// List returns the names of all entries of the open directory dirfd, in no order.
func List(dirfd int) ([]string, error) { return list(dirfd, -1) }

// list reads at most limit names (all if it is negative) of a directory, from its start.
func list(dirfd int, limit int) ([]string, error) {
	fd, err := OpenAt(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, Beneath) // its own position, at the start
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	names, err := f.Readdirnames(limit)
	if err == io.EOF {
		err = nil
	}
	return names, err
}
