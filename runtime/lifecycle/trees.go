package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
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
		ns, err = openFile(m.Namespace, unix.O_RDONLY)
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

// userNamespace makes a user namespace with these maps and returns a descriptor
// of it. Its only process is one that waits until we have that, and ends.
func userNamespace(uid, gid []specs.LinuxIDMapping, dir string) (_ *os.File, err error) {
	b := program.NewBuilder(runtime.GOARCH, 0)
	b.Call("read", program.Const(0), b.Bytes(make([]byte, 8)), program.Const(1)).OnZero(program.Exit)
	image, err := b.Image()
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	pid, err := image.Start(program.Start{Files: []*os.File{r}, Cloneflags: unix.CLONE_NEWUSER, Dir: dir})
	r.Close()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	defer func() {
		w.Close()
		if _, werr := wait4(pid); err == nil && werr != nil {
			err = fmt.Errorf("make user namespace: wait: %w", werr)
		}
	}()
	if err := writeMaps(context.Background(), pid, &plan.UserMaps{UID: uid, GID: gid}); err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return openFile(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY)
}
