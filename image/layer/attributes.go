package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"

	specialBits = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX
)

// umask is this process's, or all ones if it cannot be told: then every mode is set explicitly. umask(2) would have to
// change it to read it, under the feet of other threads.
func umask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return 0o777
}

func timesOf(h *tarstream.Header) [2]unix.Timespec {
	return [2]unix.Timespec{
		{Sec: h.AccessTime.Sec, Nsec: h.AccessTime.Nsec},
		{Sec: h.ModTime.Sec, Nsec: h.ModTime.Nsec},
	}
}

// attributes gives a file or directory, open as fd, what the entry says. p is the directory it was just made in, nil if it
// was there before. The order counts: changing the owner takes away setuid bits and file capabilities, and so does writing.
func (a *applier) attributes(fd int, p *dir, h *tarstream.Header, isDir bool) error {
	uid, gid, err := a.owner(h)
	if err != nil {
		return err
	}
	mode := workMode(h)
	if err := a.own(fd, p, mode, uid, gid, isDir); err != nil {
		return err
	}
	err = a.xattrs(h, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil || isDir {
		return err // a directory's times are set when it is closed, and its mode at the end if it is not this one
	}
	if mode != h.Mode {
		if err := unix.Fchmod(fd, h.Mode); err != nil {
			return fmt.Errorf("set mode %o: %w", h.Mode, err)
		}
	}
	return setTimes(fd, timesOf(h))
}

// workMode is the mode of a file or directory while it is being made: without privileges, nothing can be put in a directory,
// and no extended attribute on a file, that its owner may not write.
func workMode(h *tarstream.Header) uint32 {
	switch {
	case h.Type == tarstream.TypeDir:
		return h.Mode | 0o700
	case len(h.Xattrs) > 0:
		return h.Mode | 0o600
	}
	return h.Mode
}

// own sets owner and mode, where they are not what a file made with that mode has by itself.
func (a *applier) own(fd int, p *dir, mode, uid, gid uint32, isDir bool) error {
	asMade := p != nil && !p.inherits
	if !asMade || uid != a.uid || gid != a.gid {
		if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
		}
	}
	if p != nil && p.inherits {
		dropACL(fd, isDir)
	}
	if !asMade || mode&specialBits != 0 || mode&a.umask != 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			return fmt.Errorf("set mode %o: %w", mode, err)
		}
	}
	return nil
}

// dropACL removes the ACL that a new file got from its directory's default ACL: the layer says nothing about one, or will
// set it.
func dropACL(fd int, isDir bool) {
	_ = unix.Fremovexattr(fd, accessACL) // there may be none
	if isDir {
		_ = unix.Fremovexattr(fd, defaultACL)
	}
}

// attributesAt is attributes for what cannot be opened: a symbolic link, device or FIFO just made in d.
func (a *applier) attributesAt(d *dir, base string, h *tarstream.Header) error {
	uid, gid, err := a.owner(h)
	if err != nil {
		return err
	}
	isLink := h.Type == tarstream.TypeSymlink
	if !isLink {
		// O_PATH opens the node and not the device; AT_EMPTY_PATH and /proc then reach the very node that was opened.
		fd, err := unix.Openat(d.fd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
		}
		if err := chmodPath(fd, h.Mode); err != nil {
			return fmt.Errorf("set mode %o: %w", h.Mode, err)
		}
	} else if d.inherits || uid != a.uid || gid != a.gid {
		if err := unix.Fchownat(d.fd, base, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
		}
	}
	err = a.xattrs(h, func(name string, value []byte) error {
		// There is no lsetxattr relative to a descriptor before Linux 6.13; /proc's link to the directory is one. The
		// last component is not followed.
		return unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(d.fd)+"/"+base, name, value, 0)
	})
	if err != nil {
		return err
	}
	times := timesOf(h)
	return unix.UtimesNanoAt(d.fd, base, times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// chmodPath is chmod of what an O_PATH descriptor stands for: fchmodat2 (Linux 6.6), or by /proc's link to it.
func chmodPath(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == unix.EOPNOTSUPP {
		err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
	}
	return err
}

// owner is whom the entry's file shall belong to.
func (a *applier) owner(h *tarstream.Header) (uid, gid uint32, err error) {
	// chown(2) takes the largest number, -1, for "leave it".
	const max = 1<<32 - 1
	if h.UID >= max || h.GID >= max {
		return 0, 0, fmt.Errorf("owner %d:%d does not exist", h.UID, h.GID)
	}
	uid, gid = uint32(h.UID), uint32(h.GID)
	if a.options.MapID == nil {
		return uid, gid, nil
	}
	if uid, gid, err = a.options.MapID(uid, gid); err != nil {
		return 0, 0, fmt.Errorf("map owner %d:%d: %w", h.UID, h.GID, err)
	}
	return uid, gid, nil
}

// mapACL maps the users and groups that an ACL names, like owners. Where owners are kept as they are, so is it.
func (a *applier) mapACL(value []byte) ([]byte, error) {
	const headBytes, entryBytes, user, group = 4, 8, 0x02, 0x08 // linux/posix_acl_xattr.h
	if a.options.MapID == nil || a.options.KeepOwners {
		return value, nil
	}
	value = slices.Clone(value)
	for at := headBytes; at+entryBytes <= len(value); at += entryBytes {
		tag, id := binary.LittleEndian.Uint16(value[at:]), value[at+4:at+entryBytes]
		if tag != user && tag != group {
			continue
		}
		named := binary.LittleEndian.Uint32(id)
		uid, gid := named, uint32(0)
		if tag == group {
			uid, gid = 0, named
		}
		uid, gid, err := a.options.MapID(uid, gid)
		if err != nil {
			return nil, fmt.Errorf("map id %d: %w", named, err)
		}
		if tag == group {
			uid = gid
		}
		binary.LittleEndian.PutUint32(id, uid)
	}
	return value, nil
}

var (
	errOverlayXattr = errors.New("belongs to overlayfs")
	errHostXattr    = errors.New("belongs to the host's security modules")
)

// xattrs sets the entry's extended attributes.
func (a *applier) xattrs(h *tarstream.Header, set func(name string, value []byte) error) error {
	for _, x := range h.Xattrs {
		err := refusedXattr(x.Name)
		if err == nil {
			err = x.Err
		}
		if err == nil && (x.Name == accessACL || x.Name == defaultACL) {
			if x.Value, err = a.mapACL(x.Value); err != nil {
				return fmt.Errorf("set extended attribute %s: %w", quote(x.Name), err)
			}
		}
		if err == nil {
			if err = set(x.Name, x.Value); err == nil {
				continue
			}
			if !a.mayDrop(x.Name, h.Type, err) {
				return fmt.Errorf("set extended attribute %s: %w", quote(x.Name), err)
			}
		}
		a.result.DroppedXattrs++
		if a.options.Dropped != nil {
			a.options.Dropped(h.Name, x.Name, err)
		}
	}
	return nil
}

// refusedXattr says why an attribute is not a layer's to set. Those of overlayfs could graft one directory onto another
// (redirect, metacopy) when the tree becomes a lowerdir; of security.*, only file capabilities are about the image.
func refusedXattr(name string) error {
	switch {
	case isOverlayXattr(name):
		return errOverlayXattr
	case strings.HasPrefix(name, "security.") && name != "security.capability":
		return errHostXattr
	}
	return nil
}

func isOverlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// mayDrop says whether an attribute that could not be set may be missing: the file system has none of that kind, or takes
// it from the privileged only, or (user.* on anything but files and directories) never could have had it.
func (a *applier) mayDrop(name string, typ byte, err error) bool {
	switch err {
	case unix.EOPNOTSUPP:
		return true
	case unix.EPERM:
		plain := typ == tarstream.TypeReg || typ == tarstream.TypeDir
		return a.uid != 0 || strings.HasPrefix(name, "user.") && !plain
	}
	return false
}

// clearXattrs removes the extended attributes that a lower layer's entry gave a directory. Those of the host's security
// modules and our own marks for overlayfs stay.
func clearXattrs(fd int) error {
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if refusedXattr(name) != nil {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return fmt.Errorf("remove extended attribute %q: %w", name, err)
		}
	}
	return nil
}

// listXattrs lists the names of a file's extended attributes; a file system without any has none.
func listXattrs(fd int) ([]string, error) {
	const maxListBytes = 64 << 10 // the kernel's XATTR_LIST_MAX
	size, err := unix.Flistxattr(fd, nil)
	if size == 0 || err == unix.EOPNOTSUPP {
		return nil, nil
	}
	buf := make([]byte, maxListBytes)
	if err == nil {
		size, err = unix.Flistxattr(fd, buf)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	return strings.FieldsFunc(string(buf[:size]), func(r rune) bool { return r == 0 }), nil
}
