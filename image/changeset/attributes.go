package changeset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
)

// xattrsOf is a file whose extended attributes are to be read: one that is open as fd, or, if that is negative, what is at path.
type xattrsOf struct {
	fd   int
	path string
}

func (x xattrsOf) list(buf []byte) (int, error) {
	if x.fd < 0 {
		return unix.Llistxattr(x.path, buf)
	}
	return unix.Flistxattr(x.fd, buf)
}

func (x xattrsOf) get(name string, buf []byte) (int, error) {
	if x.fd < 0 {
		return unix.Lgetxattr(x.path, name, buf)
	}
	return unix.Fgetxattr(x.fd, name, buf)
}

// read returns all extended attributes, sorted by name. A file system without any has none.
func (x xattrsOf) read() ([]tarstream.Xattr, error) {
	const maxListBytes, maxValueBytes = 64 << 10, 64 << 10 // the kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX
	size, err := x.list(nil)
	if size == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	buf := make([]byte, maxListBytes)
	if err == nil {
		size, err = x.list(buf)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	names := strings.FieldsFunc(string(buf[:size]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var all []tarstream.Xattr
	for _, name := range names {
		value := make([]byte, maxValueBytes)
		n, err := x.get(name, value)
		if errors.Is(err, unix.ENODATA) {
			return nil, ErrChanging
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %.300q: %w", name, err)
		}
		all = append(all, tarstream.Xattr{Name: name, Value: slices.Clone(value[:n])})
	}
	return all, nil
}

// keeps says whether a layer takes an attribute: not overlayfs's notes nor those of the host's security modules, and not an
// owner that has gone where it belongs.
func (o *Options) keeps(name string) bool {
	return layer.TakesXattr(name) && (!o.Rootless || name != layer.OwnerXattr)
}

// normal takes out of file capabilities (linux/capability.h) for which user namespace's root they are: there is none like it
// anywhere else. Revision 3 is revision 2 with that user's number behind it.
func normal(x tarstream.Xattr) tarstream.Xattr {
	const revision2, revision3, revisionMask = 0x02000000, 0x03000000, 0xff000000
	const revision2Bytes, revision3Bytes = 20, 24
	if x.Name != "security.capability" || len(x.Value) != revision3Bytes {
		return x
	}
	magic := binary.LittleEndian.Uint32(x.Value)
	if magic&revisionMask != revision3 {
		return x
	}
	value := slices.Clone(x.Value[:revision2Bytes])
	binary.LittleEndian.PutUint32(value, magic&^revisionMask|revision2)
	return tarstream.Xattr{Name: x.Name, Value: value}
}

// owner sets whom the layer says the file belongs to. In a rootless tree that is noted with the file, unless it is root.
func (w *writer) owner(h *tarstream.Header, now *state, xattrs []tarstream.Xattr) error {
	uid, gid := now.uid, now.gid
	var err error
	if w.options.MapID != nil {
		if uid, gid, err = w.options.MapID(uid, gid); err != nil {
			return fmt.Errorf("map owner %d:%d: %w", now.uid, now.gid, err)
		}
	}
	for _, x := range xattrs {
		if w.options.Rootless && x.Name == layer.OwnerXattr {
			if uid, gid, err = layer.DecodeOwner(x.Value); err != nil {
				return err
			}
		}
	}
	h.UID, h.GID = int64(uid), int64(gid)
	return nil
}
