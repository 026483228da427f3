package layer

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// place makes base in d, removing what is there already if it has to.
func (a *applier) place(d *dir, base string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err := a.remove(d, base); err != nil {
		return err
	}
	return create()
}

// remove removes base from d, with all that is in it.
func (a *applier) remove(d *dir, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		a.tree.retire(d.child(base))
	case unix.S_IFLNK:
		a.tree.retireAll() // what is known has resolved names: none lies below a link
	}
	if err := safepath.RemoveAllAt(d.fd, base); err != nil {
		return fmt.Errorf("remove what is there: %w", err)
	}
	return nil
}

// file makes a regular file. O_EXCL makes sure that it is a new one: nothing is ever written through a link that is there.
func (a *applier) file(d *dir, base string, h *tarstream.Header) error {
	var fd int
	err := a.place(d, base, func() (err error) {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = unix.Openat(d.fd, base, flags, workMode(h)&0o777)
		return err
	})
	if err != nil {
		return err
	}
	if isSmall(h) {
		return a.finishLater(fd, d, h)
	}
	err = a.content(fd, h)
	if err == nil {
		err = a.attributes(fd, d, h, false)
	}
	// Some file systems (NFS, FUSE) report only here that there was no space.
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// content writes the file's data, leaving out the holes of a sparse file.
func (a *applier) content(fd int, h *tarstream.Header) error {
	if h.Sparse {
		if err := unix.Ftruncate(fd, h.Size); err != nil {
			return err
		}
	}
	for {
		offset, piece, err := a.archive.Data()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeAt(fd, piece, offset); err != nil {
			return err
		}
	}
}

// writeAt writes all of b.
func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		offset += int64(n)
		b = b[n:]
	}
	return nil
}

// dir makes a directory, or gives the one that is there the entry's attributes. Its contents stay.
func (a *applier) dir(p *dir, base, name string, h *tarstream.Header) error {
	hidden := false
	mode := workMode(h) & 0o777
	err := unix.Mkdirat(p.fd, base, mode)
	if err == unix.EEXIST {
		isDir, err := a.isDir(p, base)
		if err != nil {
			return err
		}
		if isDir {
			return a.redescribe(name, h)
		}
		if a.options.KeepDirlinks && a.options.Form == Flat && a.isDirlink(p, base) {
			return nil
		}
		if a.options.Form != Flat {
			hidden, err = a.removeWhiteout(p, base)
		}
		if err == nil && !hidden {
			err = a.remove(p, base)
		}
		if err == nil {
			err = unix.Mkdirat(p.fd, base, mode)
		}
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	d, err := a.openNew(p, base, name)
	if err != nil {
		return err
	}
	if hidden {
		if err := a.setOpaque(d); err != nil {
			return err
		}
	}
	return a.describe(d, p, h)
}

func (a *applier) isDir(p *dir, base string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(p.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// isDirlink says whether base is a symbolic link that leads to a directory inside the root.
func (a *applier) isDirlink(p *dir, base string) bool {
	fd, err := safepath.OpenAt(a.tree.root.FD(), p.child(base), unix.O_PATH|unix.O_DIRECTORY, 0, safepath.InRoot)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// redescribe gives a directory that was there before the entry's attributes in place of its own.
func (a *applier) redescribe(name string, h *tarstream.Header) error {
	d, err := a.tree.find(name)
	if err != nil {
		return err
	}
	if err := clearXattrs(d.fd); err != nil {
		return err
	}
	return a.describe(d, nil, h)
}

// describe gives the directory d what the entry says of it. p is the directory it was just made in, nil if d was there
// before.
func (a *applier) describe(d, p *dir, h *tarstream.Header) error {
	d.implicit, d.mode = false, h.Mode
	d.lateMode = workMode(h) != h.Mode
	d.times, d.dirty = timesOf(h), true
	d.inherits = h.Mode&unix.S_ISGID != 0
	for _, x := range h.Xattrs {
		d.inherits = d.inherits || x.Name == defaultACL
	}
	return a.attributes(d.fd, p, h, true)
}

// rootEntry describes the root directory itself.
func (a *applier) rootEntry(h *tarstream.Header) error {
	if h.Type != tarstream.TypeDir {
		return errors.New("the root must be a directory")
	}
	return a.redescribe(".", h)
}

// link makes a hard link: to a file of this layer or, in a flat tree, of a lower one. Its last component is not followed,
// so that a link to a symbolic link is just that.
func (a *applier) link(d *dir, base string, h *tarstream.Header) error {
	target, err := safepath.Clean(h.Linkname)
	if err == nil && target == "." {
		err = unix.EPERM
	}
	if err == nil {
		err = a.linkTo(d, base, target)
	}
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	return nil
}

func (a *applier) linkTo(d *dir, base, target string) error {
	dirName, targetBase := safepath.SplitBase(target)
	t, err := a.tree.find(dirName)
	if err == nil {
		err = a.checkTarget(t, targetBase)
	}
	if err == nil {
		err = unix.Linkat(t.fd, targetBase, d.fd, base, 0)
	}
	if err == unix.EEXIST {
		return a.relink(d, base, t, targetBase)
	}
	if isMissing(err) && a.options.Form != Flat {
		return a.deferLink(d, base, target)
	}
	return err
}

// checkTarget makes sure that a target is not one that the layer itself has removed.
func (a *applier) checkTarget(t *dir, base string) error {
	if a.options.Form == Flat {
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(t.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && isWhiteoutNode(&st) {
		return errors.New("the layer removes it")
	}
	return err
}

// relink makes a hard link in place of what is there, unless that is the target itself under either name.
func (a *applier) relink(d *dir, base string, t *dir, targetBase string) error {
	var old, target unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &old, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fstatat(t.fd, targetBase, &target, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if target.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EPERM
	}
	if old.Dev == target.Dev && old.Ino == target.Ino {
		return nil
	}
	if err := a.remove(d, base); err != nil {
		return err
	}
	return unix.Linkat(t.fd, targetBase, d.fd, base, 0)
}

// deferLink leaves a link to be made when the lower layers are there.
func (a *applier) deferLink(d *dir, base, target string) error {
	if first, ok := a.links[target]; ok {
		target = first
	}
	if err := a.remove(d, base); err != nil {
		return err
	}
	a.links[d.child(base)] = target
	return a.tree.name(d.child(base) + target)
}

// symlink makes a symbolic link. Its target is text; nobody here follows it.
func (a *applier) symlink(d *dir, base string, h *tarstream.Header) error {
	err := a.place(d, base, func() error { return unix.Symlinkat(h.Linkname, d.fd, base) })
	if err != nil {
		return err
	}
	return a.attributesAt(d, base, h)
}

// special makes a device or a FIFO.
func (a *applier) special(d *dir, base string, h *tarstream.Header) error {
	var kind uint32
	var dev uint64
	switch h.Type {
	case tarstream.TypeFifo:
		kind = unix.S_IFIFO
	case tarstream.TypeChar, tarstream.TypeBlock:
		kind = unix.S_IFCHR
		if h.Type == tarstream.TypeBlock {
			kind = unix.S_IFBLK
		}
		switch a.options.Devices {
		case DevicesCreate:
		case DevicesPlaceholder:
			return a.file(d, base, h)
		default:
			return ErrDevice
		}
		// The kernel has 12 bits for the major and 20 for the minor number.
		if h.Major < 0 || h.Major >= 1<<12 || h.Minor < 0 || h.Minor >= 1<<20 {
			return fmt.Errorf("device number %d:%d does not exist", h.Major, h.Minor)
		}
		dev = unix.Mkdev(uint32(h.Major), uint32(h.Minor))
	default:
		return fmt.Errorf("unknown type %q", h.Type)
	}
	err := a.place(d, base, func() error { return unix.Mknodat(d.fd, base, kind|h.Mode&0o777, int(dev)) })
	if err != nil {
		return err
	}
	return a.attributesAt(d, base, h)
}
