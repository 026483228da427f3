package changeset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

// Errors that callers may want to tell apart.
var (
	// ErrChanging says that a file was changed while the tree was read.
	ErrChanging = errors.New("changed while it was being read")
	// ErrMountPoint says that another file system is mounted in the tree.
	ErrMountPoint = errors.New("something is mounted there")
	// ErrWhiteoutName says that a file's name would be a whiteout in a layer.
	ErrWhiteoutName = errors.New("a name that begins with .wh. means in a layer that a file was deleted")
	// ErrOverlayForm says that overlayfs has noted something in a form that does not say what the file is.
	ErrOverlayForm = errors.New("overlayfs refers to another directory or file here (redirect_dir, metacopy or a whiteout by attribute)")
)

// Kind is what has become of a name.
type Kind int

// The three kinds, which people know from docker diff.
const (
	Modified Kind = iota // its content or attributes, or something in the directory
	Added
	Deleted
)

// String is docker's letter.
func (k Kind) String() string { return [...]string{Modified: "C", Added: "A", Deleted: "D"}[k] }

// A Change is one name that is not as it was.
type Change struct {
	Kind Kind
	Name string // in the form of safepath.Clean; "." for the root itself
	now  state  // unless it is deleted
	how  certainty
}

// certainty says how sure it is that something has changed.
type certainty int

const (
	certain certainty = iota
	unsure            // only inode number and change time are others: it may be a copy
	above             // it is a directory that is as it was, above something else
)

// A Set is what has changed in a tree.
type Set struct {
	changes []Change
}

// Empty says whether nothing has.
func (s *Set) Empty() bool { return len(s.changes) == 0 }

// Changes lists what has changed, parents before children. A directory in which something has changed is there, too.
func (s *Set) Changes() []Change { return s.changes }

// state is what is compared of a file.
type state struct {
	dev, ino, rdev uint64
	size           int64
	mtime, ctime   tarstream.Time
	mode           uint32
	uid, gid       uint32
	nlink          uint32
}

func stateOf(st *unix.Stat_t) state {
	return state{
		dev: st.Dev, ino: st.Ino, rdev: st.Rdev, size: st.Size, mode: st.Mode, uid: st.Uid, gid: st.Gid, nlink: uint32(st.Nlink),
		mtime: tarstream.Time{Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}, ctime: tarstream.Time{Sec: st.Ctim.Sec, Nsec: st.Ctim.Nsec},
	}
}

func (s *state) kind() uint32 { return s.mode & unix.S_IFMT }
func (s *state) isDir() bool  { return s.kind() == unix.S_IFDIR }

// isNull tells the device 0:0, which is a whiteout to overlayfs.
func (s *state) isNull() bool { return s.kind() == unix.S_IFCHR && s.rdev == 0 }

// sameAttributes says whether two files look the same from outside, but for extended attributes and directories' times.
func (s *state) sameAttributes(o *state) bool {
	if s.mode != o.mode || s.uid != o.uid || s.gid != o.gid {
		return false
	}
	if s.isDir() {
		return true // how large a directory is only its file system knows
	}
	return s.size == o.size && s.mtime == o.mtime && s.rdev == o.rdev
}

// sameFile says whether the file is the very one that was looked at before, unchanged.
func (s *state) sameFile(o *state) bool {
	return s.dev == o.dev && s.ino == o.ino && s.ctime == o.ctime && s.mode == o.mode && s.size == o.size && s.mtime == o.mtime
}

// sort brings the changes into the order of the archive: by directory, a directory before what is in it, and in each
// directory the deletions first, as layer.md has it.
func (s *Set) sort() {
	slices.SortFunc(s.changes, func(a, b Change) int { return compareChanges(&a, &b) })
}

func compareChanges(a, b *Change) int {
	if a.Name == "." || b.Name == "." {
		return strings.Compare(rootFirst(a.Name), rootFirst(b.Name))
	}
	// To where the names differ; there, from the last slash on, are the components that count.
	i, start := 0, 0
	for i < len(a.Name) && i < len(b.Name) && a.Name[i] == b.Name[i] {
		if i++; a.Name[i-1] == '/' {
			start = i
		}
	}
	switch {
	case i == len(a.Name) && i == len(b.Name):
		return int(b.Kind) - int(a.Kind)
	case i == len(a.Name) && b.Name[i] == '/':
		return -1 // a is a directory above b
	case i == len(b.Name) && a.Name[i] == '/':
		return 1
	}
	x, xLast := component(a.Name[start:])
	y, yLast := component(b.Name[start:])
	xFirst, yFirst := xLast && a.Kind == Deleted, yLast && b.Kind == Deleted
	if xFirst != yFirst {
		if xFirst {
			return -1
		}
		return 1
	}
	return strings.Compare(x, y)
}

func rootFirst(name string) string {
	if name == "." {
		return ""
	}
	return "x"
}

func component(path string) (name string, last bool) {
	i := strings.IndexByte(path, '/')
	if i < 0 {
		return path, true
	}
	return path[:i], false
}

// at names the file that an error is about.
func at(name string, err error) error {
	if err == nil {
		return nil
	}
	const maxShownBytes = 300
	if len(name) > maxShownBytes {
		return fmt.Errorf("%q…: %w", name[:maxShownBytes], err)
	}
	return fmt.Errorf("%q: %w", name, err)
}

// child is the name of an entry of a directory.
func child(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}
