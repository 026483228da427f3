package changeset

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// walker is what the walks over a tree have in common. Directories are opened relative to the one above, so a name that is
// swapped for a symbolic link is not followed, and a mount is not entered.
type walker struct {
	ctx     context.Context
	options Options
	masked  map[string]bool
	dev     uint64 // of the tree's file system
	set     Set
	buf     []byte
}

func newWalker(ctx context.Context, o Options) (*walker, error) {
	masked, err := o.mask()
	return &walker{ctx: ctx, options: o, masked: masked, buf: make([]byte, 64<<10)}, err
}

// openTop opens the root for reading, and says what it is like.
func (w *walker) openTop(root *safepath.Root) (int, state, error) {
	fd, err := safepath.OpenAt(root.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
	if err != nil {
		return -1, state{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, state{}, err
	}
	w.dev = st.Dev
	return fd, stateOf(&st), nil
}

// list returns the sorted names in a directory that was just opened.
func (w *walker) list(fd int) ([]string, error) {
	var names []string
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		n, err := unix.ReadDirent(fd, w.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read directory: %w", err)
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(w.buf[:n], -1, names)
	}
}

// look says what is at base in the directory dir, open as fd. Something mounted there is an error.
func (w *walker) look(fd int, dir, base string) (state, error) {
	var st unix.Stat_t
	err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return state{}, at(child(dir, base), ErrChanging)
	case err != nil:
		return state{}, at(child(dir, base), fmt.Errorf("stat: %w", err))
	case st.Dev != w.dev:
		return state{}, at(child(dir, base), ErrMountPoint)
	}
	return stateOf(&st), nil
}

// enter opens the directory that look has found.
func (w *walker) enter(fd int, name, base string, want *state) (int, error) {
	if len(name) > maxNameBytes {
		return -1, at(name, unix.ENAMETOOLONG)
	}
	sub, err := safepath.OpenAt(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, safepath.Beneath|unix.RESOLVE_NO_XDEV)
	if err == unix.EXDEV {
		return -1, at(name, ErrMountPoint)
	}
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(sub, &st); err == nil && st.Dev == want.dev && st.Ino == want.ino {
			return sub, nil
		}
		unix.Close(sub)
	}
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		err = ErrChanging
	}
	return -1, at(name, err)
}

// maxNameBytes is the longest name that a layer's entry may have for safepath, and so how deep a tree can be.
const maxNameBytes = 4095

// fits says whether a layer can have the file. One that it cannot have is left out with a warning, or is an error where
// leaving it out would say something else.
func (w *walker) fits(name, base string, now *state) (bool, error) {
	switch {
	case isWhiteoutName(base):
		return false, at(name, ErrWhiteoutName)
	case now.kind() == unix.S_IFSOCK:
		w.options.warn("%q is a socket, which a layer cannot hold: it is left out", name)
		return false, nil
	case len(name) > maxNameBytes:
		return false, at(name, unix.ENAMETOOLONG)
	}
	return true, nil
}

func (w *walker) add(kind Kind, name string, now state) { w.addUnsure(kind, name, now, certain) }

func (w *walker) addUnsure(kind Kind, name string, now state, how certainty) {
	w.set.changes = append(w.set.changes, Change{kind, name, now, how})
}

// finish gives the set its order.
func (w *walker) finish() *Set {
	w.set.sort()
	return &w.set
}
