package changeset

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
	"github.com/tare-oci/tare/safepath"
)

// Unsure is how many changes may be none: of what looks as the record says, but is another file or was touched. So does all that is
// in a copy of a tree.
func (s *Set) Unsure() int {
	n := 0
	for i := range s.changes {
		if s.changes[i].how == unsure {
			n++
		}
	}
	return n
}

// Confirm reads what the set is unsure of, and takes out of it what is as it was. Original is the image that the tree was unpacked
// from, with the sums of its files. What the walk finds changed since is ErrChanging.
func (s *Set) Confirm(ctx context.Context, root *safepath.Root, original *tree.Tree, o Options) error {
	w := &writer{ctx: ctx, root: root, options: o, dirfd: -1}
	defer w.leaveDir()
	kept := make([]Change, 0, len(s.changes))
	parents := map[string]bool{} // of what is kept
	// From the end: what is in a directory comes before it.
	for _, c := range slices.Backward(s.changes) {
		err := ctx.Err()
		is := c.how == above
		if c.how == unsure && err == nil {
			is, err = w.isOriginal(&c, original)
		}
		if err != nil {
			return fmt.Errorf("compare %s with its image: %w", root.Name(), at(c.Name, err))
		}
		if is && (!parents[c.Name] || c.Name == ".") {
			continue
		}
		dir, _ := safepath.SplitBase(c.Name)
		parents[dir] = true
		kept = append(kept, c)
	}
	slices.Reverse(kept)
	s.changes = kept
	return nil
}

// isOriginal says whether a file that has the attributes of the original also has its content and extended attributes.
func (w *writer) isOriginal(c *Change, original *tree.Tree) (bool, error) {
	node, err := original.Lookup("/"+c.Name, false)
	if err != nil {
		return false, nil // the tree had something that its image has not
	}
	was := node.File()
	dir, base := safepath.SplitBase(c.Name)
	if err := w.enterDir(dir); err != nil {
		return false, err
	}
	switch kind := c.now.kind(); {
	case kind == unix.S_IFDIR && was.Type == tarstream.TypeDir:
		f, err := w.open(base, unix.O_RDONLY|unix.O_DIRECTORY, &c.now)
		if err != nil {
			return false, err
		}
		defer f.Close()
		return w.sameNotes(c, was, xattrsOf{fd: int(f.Fd())})
	case kind == unix.S_IFREG && (was.Type == tarstream.TypeReg || w.options.Rootless && was.SizeBytes == c.now.size):
		return w.isOriginalFile(base, c, was)
	case kind == unix.S_IFLNK && was.Type == tarstream.TypeSymlink:
		buf := make([]byte, maxNameBytes+1)
		n, err := unix.Readlinkat(w.dirfd, base, buf)
		if err != nil || string(buf[:n]) != was.Linkname {
			return false, w.vanished(err)
		}
	case kind == unix.S_IFIFO && was.Type == tarstream.TypeFifo:
	case kind == unix.S_IFCHR && was.Type == tarstream.TypeChar, kind == unix.S_IFBLK && was.Type == tarstream.TypeBlock:
		if unix.Mkdev(was.Major, was.Minor) != c.now.rdev {
			return false, nil
		}
	default:
		return false, nil
	}
	same, err := w.sameNotes(c, was, xattrsOf{fd: -1, path: fdPath(w.dirfd, base)})
	if err != nil || !same {
		return false, err
	}
	return true, w.stillThere(base, &c.now)
}

// isOriginalFile compares a regular file, which without privileges may stand for a device.
func (w *writer) isOriginalFile(base string, c *Change, was *tree.File) (bool, error) {
	if was.Type == tarstream.TypeReg && (was.Sum == nil || was.SizeBytes != c.now.size) {
		return false, nil
	}
	f, err := w.open(base, unix.O_RDONLY, &c.now)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if same, err := w.sameNotes(c, was, xattrsOf{fd: int(f.Fd())}); err != nil || !same {
		return false, err
	}
	if was.Type == tarstream.TypeReg {
		sum := sha256.New()
		if err := w.content(int(f.Fd()), c.now.size, sum); err != nil {
			return false, err
		}
		if [sha256.Size]byte(sum.Sum(nil)) != *was.Sum {
			return false, nil
		}
	}
	return true, fstatUnchanged(int(f.Fd()), &c.now)
}

// sameNotes compares what a layer would have of the extended attributes, and the owner that may be among them. Without privileges
// only users' own could be set.
func (w *writer) sameNotes(c *Change, was *tree.File, from xattrsOf) (bool, error) {
	have, err := from.read()
	if err != nil {
		return false, err
	}
	var h tarstream.Header
	if err := w.owner(&h, &c.now, have); err != nil {
		return false, err
	}
	if !was.Implied && (h.UID != int64(was.UID) || h.GID != int64(was.GID)) {
		return false, nil
	}
	kept := func(all []tarstream.Xattr) map[string]string {
		notes := map[string]string{}
		for _, x := range all {
			if w.options.keeps(x.Name) && (!w.options.Rootless || strings.HasPrefix(x.Name, "user.")) {
				x = normal(x)
				notes[x.Name] = string(x.Value)
			}
		}
		return notes
	}
	got, want := kept(have), kept(was.Xattrs)
	if len(got) != len(want) {
		return false, nil
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			return false, nil
		}
	}
	return true, nil
}
