package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// copyTree makes a detached copy of the mounts at a path that is no peer of the
// host's, and maps their ids where that is asked for.
func (f *family) copyTree(file plan.File) (*os.File, error) {
	flags, attrFlags := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if file.Recursive {
		flags |= unix.AT_RECURSIVE
		attrFlags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, file.Path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: file.Path, Err: err}
	}
	tree := os.NewFile(uintptr(fd), file.Path)
	err = unix.MountSetattr(fd, "", attrFlags, &unix.MountAttr{Propagation: unix.MS_SLAVE})
	if err != nil {
		err = &os.PathError{Op: "mount_setattr", Path: file.Path, Err: err}
	} else if file.IDMap != nil {
		err = f.mapIDs(tree, file.IDMap)
	}
	if err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// mapIDs makes a detached mount an idmapped one.
func (f *family) mapIDs(tree *os.File, m *plan.IDMap) error {
	var ns *os.File
	var err error
	if m.Namespace != "" {
		ns, err = openNamespace(m.Namespace)
	} else {
		ns, err = userNamespace(m.UID, m.GID, f.sources.dir)
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	flags := uint(unix.AT_EMPTY_PATH)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(int(tree.Fd()), "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("idmap %s: %w: the file system may not support it on this kernel", tree.Name(), err)
	}
	if err != nil {
		return fmt.Errorf("idmap %s: %w", tree.Name(), err)
	}
	return nil
}
