package changeset

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// Compare finds what has changed in a tree since its record was written. It reads no files: of what may be a copy of what was there,
// the set is Unsure.
func Compare(ctx context.Context, root *safepath.Root, record io.ReadSeeker, o Options) (*Set, error) {
	set, err := compare(ctx, root, record, o)
	if err != nil {
		return nil, fmt.Errorf("compare %s with its record: %w", root.Name(), err)
	}
	return set, nil
}

func compare(ctx context.Context, root *safepath.Root, record io.ReadSeeker, o Options) (*Set, error) {
	w, err := newWalker(ctx, o)
	if err != nil {
		return nil, err
	}
	r, err := newRecordReader(record)
	if err != nil {
		return nil, err
	}
	fd, top, err := w.openTop(root)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	c := &comparer{walker: w, record: r, linked: map[inode][]string{}}
	was := r.next.was
	r.advance()
	found, err := c.dir(fd, ".", r)
	if err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	c.settle(".", &was, &top, found)
	if err := c.bringLinks(fd); err != nil {
		return nil, err
	}
	return w.finish(), nil
}

// comparer walks a tree and its record side by side: both are sorted.
type comparer struct {
	*walker
	record *recordReader
	linked map[inode][]string // names of untouched files that have several
}

// findings is what was found in a directory.
type findings struct {
	any    bool // something has changed in it or below
	names  bool // names were added, removed or replaced
	masked bool // it has names whose changes do not count
}

// dir compares the directory open as fd. r stands at its first entry, and at its end afterwards; it is nil for a directory
// that was not there.
func (c *comparer) dir(fd int, dir string, r *recordReader) (f findings, err error) {
	names, err := c.list(fd)
	if err != nil {
		return f, at(dir, err)
	}
	for _, base := range names {
		if r != nil {
			c.gone(dir, base, r, &f)
			if r.err != nil {
				return f, r.err
			}
		}
		var was *state
		if r != nil && r.next.base == base {
			s := r.next.was
			was = &s
		}
		if c.masked[child(dir, base)] {
			f.masked = true
			if was != nil {
				r.skip()
			}
			continue
		}
		if err := c.entry(fd, dir, base, was, r, &f); err != nil {
			return f, err
		}
	}
	if r != nil {
		c.gone(dir, "", r, &f)
		return f, r.err
	}
	return f, nil
}

// gone notes the record's entries before base, or all if that is empty: they are not there any more.
func (c *comparer) gone(dir, base string, r *recordReader, f *findings) {
	for r.err == nil && !r.atEnd() && (base == "" || r.next.base < base) {
		name, was := child(dir, r.next.base), r.next.was
		r.skip()
		switch {
		case c.masked[name]:
			f.masked = true
		case was.kind() != unix.S_IFSOCK: // which no layer had
			c.add(Deleted, name, state{})
			f.any, f.names = true, true
		}
	}
}

// entry compares one name. was is what the record has of it, nil if nothing; then r is past it afterwards.
func (c *comparer) entry(fd int, dir, base string, was *state, r *recordReader, f *findings) error {
	name := child(dir, base)
	now, err := c.look(fd, dir, base)
	if err != nil {
		return err
	}
	if was != nil && was.kind() == unix.S_IFSOCK && now.kind() == unix.S_IFSOCK {
		r.skip() // no layer has had it, and nobody needs telling again
		return nil
	}
	fits, err := c.fits(name, base, &now)
	if err != nil {
		return err
	}
	bothDirs := was != nil && was.isDir() && now.isDir()
	if was != nil && !bothDirs {
		r.skip()
	}
	switch {
	case !fits && was != nil && was.kind() != unix.S_IFSOCK:
		c.add(Deleted, name, state{})
		f.any, f.names = true, true
		return nil
	case !fits:
		return nil
	case now.isDir():
		return c.subdir(fd, name, base, was, &now, r, f)
	case was == nil || was.kind() == unix.S_IFSOCK:
		c.add(Added, name, now)
		f.any, f.names = true, true
	case !c.untouched(was, &now):
		how := certain
		if was.sameAttributes(&now) && was.nlink == now.nlink {
			how = unsure
		}
		c.addUnsure(Modified, name, now, how)
		f.any, f.names = true, f.names || was.ino != now.ino
	case now.nlink > 1:
		key := inode{now.dev, now.ino}
		c.linked[key] = append(c.linked[key], name)
	}
	return nil
}

// bringLinks adds the untouched names of files that have new ones: a directory was renamed, say, with one of a file's names in
// it. A layer that has only the new name would have a link to something that is not in it, which not every tool can make.
func (c *comparer) bringLinks(top int) error {
	if len(c.linked) == 0 {
		return nil
	}
	known, missing := map[string]bool{".": true}, []string{}
	for i := range c.set.changes {
		change := &c.set.changes[i]
		known[change.Name] = true
		key := inode{change.now.dev, change.now.ino}
		missing = append(missing, c.linked[key]...)
		delete(c.linked, key)
	}
	for _, name := range missing {
		for ; !known[name]; name, _ = safepath.SplitBase(name) {
			known[name] = true
			fd, err := safepath.OpenAt(top, name, unix.O_PATH|unix.O_NOFOLLOW, 0, safepath.Beneath|unix.RESOLVE_NO_XDEV)
			if err != nil {
				return at(name, ErrChanging)
			}
			var st unix.Stat_t
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
			if err != nil {
				return at(name, err)
			}
			c.add(Modified, name, stateOf(&st))
		}
	}
	return nil
}

// untouched says that nobody has touched the file since the record: no change leaves the change time as it was. One that is
// not before the record's beginning may be that of a change after it.
func (c *comparer) untouched(was, now *state) bool {
	return was.ino == now.ino && was.ctime == now.ctime && was.size == now.size && was.sameAttributes(now) && before(was.ctime, c.record.began)
}

func (c *comparer) subdir(fd int, name, base string, was, now *state, r *recordReader, f *findings) error {
	sub, err := c.enter(fd, name, base, now)
	if errors.Is(err, unix.EACCES) && was != nil && was.isDir() && c.untouched(was, now) {
		// Nor could the record's maker enter it; nobody without root has been in there since.
		c.options.warn("%q may not be entered: what may have changed in there is left out", name)
		r.skip()
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	if was == nil || !was.isDir() {
		kind := Added
		if was != nil && was.kind() != unix.S_IFSOCK {
			kind = Modified
		}
		c.add(kind, name, *now)
		f.any, f.names = true, true
		_, err := c.dir(sub, name, nil)
		return err
	}
	r.advance()
	found, err := c.dir(sub, name, r)
	if err != nil {
		return err
	}
	r.advance()
	c.settle(name, was, now, found)
	f.any = f.any || found.any || !c.sameDir(was, now, found)
	return r.err
}

// settle adds a directory that was there before, if it has changed or something in it has. Without an entry for it, a tool that
// unpacks the layer by itself would make the directory with attributes of its own choice.
func (c *comparer) settle(name string, was, now *state, found findings) {
	switch {
	case c.sameDir(was, now, found) && (!found.any || name == "."):
	case c.sameDir(was, now, found):
		c.addUnsure(Modified, name, *now, above)
	case was.sameAttributes(now) && was.mtime == now.mtime:
		c.addUnsure(Modified, name, *now, unsure)
	default:
		c.add(Modified, name, *now)
	}
}

// sameDir says whether a directory itself is as it was. Its times move with what is put into it; where that was only what does
// not count, such as a mount point, they don't either.
func (c *comparer) sameDir(was, now *state, found findings) bool {
	if !was.sameAttributes(now) {
		return false
	}
	if was.ctime == now.ctime && was.mtime == now.mtime && before(was.ctime, c.record.began) {
		return true
	}
	return found.masked && !found.names
}
