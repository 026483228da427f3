package changeset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// CompareUpper finds what overlayfs's upper directory changes of the layers below it, the topmost of lowers first. Files that
// were only copied up, or written with what was in them, are no change. An opaque directory becomes whiteouts of what it
// hides, one by one, which layer.md prefers and more tools understand.
func CompareUpper(ctx context.Context, upper *safepath.Root, lowers []*safepath.Root, o Options) (*Set, error) {
	set, err := compareUpper(ctx, upper, lowers, o)
	if err != nil {
		return nil, fmt.Errorf("compare %s with the layers below: %w", upper.Name(), err)
	}
	return set, nil
}

func compareUpper(ctx context.Context, upper *safepath.Root, lowers []*safepath.Root, o Options) (*Set, error) {
	w, err := newWalker(ctx, o)
	if err != nil {
		return nil, err
	}
	fd, top, err := w.openTop(upper)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	c := &upperComparer{walker: w, prefix: o.overlayPrefix()}
	var below lowerDirs
	defer func() { below.close() }()
	for _, l := range lowers {
		lfd, err := safepath.OpenAt(l.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
		if err != nil {
			return nil, err
		}
		below = append(below, lfd)
	}
	found, err := c.dir(fd, ".", below, false)
	if err != nil {
		return nil, err
	}
	if len(below) > 0 {
		var st unix.Stat_t
		if err := unix.Fstat(below[0], &st); err != nil {
			return nil, err
		}
		was := stateOf(&st)
		if _, err := c.settle(fd, ".", &top, below[0], &was, found); err != nil {
			return nil, err
		}
	}
	return w.finish(), nil
}

// upperComparer walks an upper directory.
type upperComparer struct {
	*walker
	prefix string
	bufs   [2][]byte
}

// dir compares a directory of the upper layer with what shows of it below, if anything. Opaque says that it hides that.
func (c *upperComparer) dir(fd int, dir string, below lowerDirs, opaque bool) (f findings, err error) {
	names, err := c.list(fd)
	if err != nil {
		return f, at(dir, err)
	}
	for _, base := range names {
		if c.masked[child(dir, base)] {
			f.masked = true
			continue
		}
		if err := c.entry(fd, dir, base, below, opaque, &f); err != nil {
			return f, err
		}
	}
	if !opaque {
		return f, nil
	}
	hidden, err := c.lowerNames(below)
	if err != nil {
		return f, at(dir, err)
	}
	for _, base := range hidden {
		if _, there := slices.BinarySearch(names, base); there || c.masked[child(dir, base)] {
			continue
		}
		c.add(Deleted, child(dir, base), state{})
		f.any, f.names = true, true
	}
	return f, nil
}

// entry compares one name of the upper layer.
func (c *upperComparer) entry(fd int, dir, base string, below lowerDirs, opaque bool, f *findings) error {
	name := child(dir, base)
	now, err := c.look(fd, dir, base)
	if err != nil {
		return err
	}
	low, err := c.lookBelow(below, base)
	if err != nil {
		return at(name, err)
	}
	defer low.dirs.close()
	fits := false
	if !now.isNull() {
		if fits, err = c.fits(name, base, &now); err != nil {
			return err
		}
	}
	switch {
	case !fits: // a whiteout, or what a layer cannot have
		if low.there {
			c.add(Deleted, name, state{})
			f.any, f.names = true, true
		}
		return nil
	case now.isDir():
		return c.subdir(fd, name, base, &now, low, opaque, f)
	}
	kind, err := c.fileKind(fd, base, &now, low)
	if err != nil {
		return at(name, err)
	}
	if kind != same {
		c.add(kind, name, now)
		f.any, f.names = true, true
	}
	return nil
}

// same is no change at all.
const same Kind = -1

// fileKind says what has become of a file that is no directory.
func (c *upperComparer) fileKind(fd int, base string, now *state, low lowerEntry) (Kind, error) {
	xattrs, err := xattrsOf{fd: -1, path: fdPath(fd, base)}.read()
	if err == nil {
		_, err = c.notes(xattrs)
	}
	switch {
	case err != nil:
		return 0, err
	case !low.there:
		return Added, nil
	case !low.was.sameAttributes(now) || now.nlink > 1 || low.was.nlink > 1:
		return Modified, nil
	}
	before, err := xattrsOf{fd: -1, path: fdPath(low.in, base)}.read()
	if err != nil || !c.sameXattrs(before, xattrs) {
		return Modified, err
	}
	equal, err := c.sameContent(fd, low.in, base, now)
	if err != nil || !equal {
		return Modified, err
	}
	return same, nil
}

func fdPath(fd int, base string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", fd, base) }

// notes reads overlayfs's notes on a file. Opaque is all that an upper layer may say: what it has otherwise is to be found in
// it, not elsewhere.
func (c *upperComparer) notes(xattrs []tarstream.Xattr) (opaque bool, err error) {
	for _, x := range xattrs {
		switch x.Name {
		case c.prefix + "redirect", c.prefix + "metacopy", c.prefix + "whiteout":
			return false, ErrOverlayForm
		case c.prefix + "opaque":
			if string(x.Value) == "x" { // Linux 6.7: there are whiteouts by attribute in the directory
				return false, ErrOverlayForm
			}
			opaque = string(x.Value) == "y"
		}
	}
	return opaque, nil
}

// sameXattrs compares what a layer would have of the attributes.
func (c *upperComparer) sameXattrs(a, b []tarstream.Xattr) bool {
	foreign := func(x tarstream.Xattr) bool { return !c.options.keeps(x.Name) }
	a, b = slices.DeleteFunc(a, foreign), slices.DeleteFunc(b, foreign)
	return slices.EqualFunc(a, b, func(x, y tarstream.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// sameContent compares the contents of two files of one type and size: base in the directories fd and lower.
func (c *upperComparer) sameContent(fd, lower int, base string, now *state) (bool, error) {
	switch now.kind() {
	case unix.S_IFLNK:
		var targets [2]string
		for i, dir := range []int{fd, lower} {
			buf := make([]byte, maxNameBytes+1)
			n, err := unix.Readlinkat(dir, base, buf)
			if err != nil {
				return false, err
			}
			targets[i] = string(buf[:n])
		}
		return targets[0] == targets[1], nil
	case unix.S_IFREG:
	default:
		return true, nil // the device's number has been compared
	}
	var fds [2]int
	for i, dir := range []int{fd, lower} {
		if c.bufs[i] == nil {
			c.bufs[i] = make([]byte, 128<<10)
		}
		// It was a regular file a moment ago. O_NONBLOCK: should it be a pipe now, nobody waits.
		f, err := safepath.OpenAt(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0, safepath.Beneath)
		if err != nil {
			return false, err
		}
		defer unix.Close(f)
		fds[i] = f
	}
	if err := fstatUnchanged(fds[0], now); err != nil {
		return false, err
	}
	return c.equalFiles(fds, now.size)
}

func (c *upperComparer) equalFiles(fds [2]int, size int64) (bool, error) {
	for offset := int64(0); offset < size; {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		var n [2]int
		for i, fd := range fds {
			var err error
			if n[i], err = unix.Pread(fd, c.bufs[i], offset); err != nil {
				return false, fmt.Errorf("read: %w", err)
			}
		}
		if n[0] != n[1] || n[0] == 0 || !bytes.Equal(c.bufs[0][:n[0]], c.bufs[1][:n[1]]) {
			return false, nil
		}
		offset += int64(n[0])
	}
	return true, nil
}

// subdir compares a directory of the upper layer. What is in an opaque one hides what is below without a mark of its own.
func (c *upperComparer) subdir(fd int, name, base string, now *state, low lowerEntry, opaque bool, f *findings) error {
	sub, err := c.enter(fd, name, base, now)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	xattrs, err := xattrsOf{fd: sub}.read()
	marked := false
	if err == nil {
		marked, err = c.notes(xattrs)
	}
	if err != nil {
		return at(name, err)
	}
	if len(low.dirs) == 0 {
		kind := Added
		if low.there {
			kind = Modified
		}
		c.add(kind, name, *now)
		f.any, f.names = true, true
		_, err := c.dir(sub, name, nil, false)
		return err
	}
	found, err := c.dir(sub, name, low.dirs, opaque || marked)
	if err != nil {
		return err
	}
	changed, err := c.settle(sub, name, now, low.dirs[0], &low.was, found)
	f.any = f.any || changed
	return at(name, err)
}

// settle adds a directory that is below, too, if it has changed or something in it has.
func (c *upperComparer) settle(fd int, name string, now *state, lower int, was *state, found findings) (bool, error) {
	equal := was.sameAttributes(now) && (was.mtime == now.mtime || found.masked && !found.names)
	if equal {
		a, err := xattrsOf{fd: lower}.read()
		if err != nil {
			return false, err
		}
		b, err := xattrsOf{fd: fd}.read()
		if err != nil {
			return false, err
		}
		equal = c.sameXattrs(a, b)
	}
	if !equal || found.any && name != "." {
		c.add(Modified, name, *now)
	}
	return !equal || found.any, nil
}

// lowerDirs are the directories, open, that show together at one name below the upper layer, the topmost first.
type lowerDirs []int

func (l lowerDirs) close() {
	for _, fd := range l {
		unix.Close(fd)
	}
}

// lowerEntry is what shows at one name below the upper layer.
type lowerEntry struct {
	there bool
	was   state
	in    int       // the directory that it is in
	dirs  lowerDirs // those that show together, if it is a directory
}

// lookBelow finds what shows of base in the directories below.
func (c *upperComparer) lookBelow(below lowerDirs, base string) (e lowerEntry, err error) {
	for _, fd := range below {
		var st unix.Stat_t
		err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			e.dirs.close()
			return lowerEntry{}, err
		}
		s := stateOf(&st)
		if s.isNull() || e.there && !s.isDir() {
			return e, nil
		}
		if !e.there {
			e.there, e.was, e.in = true, s, fd
		}
		if !s.isDir() {
			return e, nil
		}
		sub, err := safepath.OpenAt(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, safepath.Beneath)
		if err != nil {
			e.dirs.close()
			return lowerEntry{}, err
		}
		e.dirs = append(e.dirs, sub)
		mark := make([]byte, 8)
		if n, err := unix.Fgetxattr(sub, c.prefix+"opaque", mark); err == nil && string(mark[:n]) == "y" {
			return e, nil
		}
	}
	return e, nil
}

// lowerNames lists what shows below: the names of all directories but those with whiteouts above them.
func (c *upperComparer) lowerNames(below lowerDirs) ([]string, error) {
	seen := map[string]bool{} // and whether it shows
	for _, fd := range below {
		again, err := safepath.OpenAt(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath) // its own position
		if err != nil {
			return nil, err
		}
		names, err := c.list(again)
		unix.Close(again)
		if err != nil {
			return nil, err
		}
		for _, base := range names {
			if _, known := seen[base]; known {
				continue
			}
			var st unix.Stat_t
			if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			s := stateOf(&st)
			seen[base] = !s.isNull()
		}
	}
	var shown []string
	for base, shows := range seen {
		if shows {
			shown = append(shown, base)
		}
	}
	slices.Sort(shown)
	return shown, nil
}
