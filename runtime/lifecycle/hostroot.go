package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A container in the host's mount namespace has its root file system mounted
// over the directory where it lies, for all to see. The kernel takes the mounts
// of other containers away with their namespace; these are ours to take away.

// mountID is that of the mount that a path leads to.
func mountID(path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return 0, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Mnt_id, nil
}

// hostRoot is the id of the mount that the container's root file system will
// lie over on the host; 0 where it will not.
func (m *making) hostRoot() (uint64, error) {
	if !m.plan.OnHost {
		return 0, nil
	}
	return mountID(absolute(m.options.Bundle, m.spec.Root.Path))
}

// unmountRoot takes the root file system's mount away, with all that is mounted
// below it. What lay there before the container was made stays, and is all there
// is where making it has failed.
func (c *Container) unmountRoot() error {
	if c.HostRoot == 0 {
		return nil
	}
	now, err := mountID(c.Rootfs)
	if errors.Is(err, unix.ENOENT) || err == nil && now == c.HostRoot {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Unmount(c.Rootfs, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "umount", Path: c.Rootfs, Err: err}
	}
	return nil
}

// openRoot opens the root directory of the container's process.
func (x *execution) openRoot() (*os.File, error) {
	root, err := openFile(fmt.Sprintf("/proc/%d/root", x.container.PID), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	// While the process is not waited for, nobody else has its number.
	if err := unix.PidfdSendSignal(int(x.init.Fd()), 0, nil, 0); err != nil {
		root.Close()
		return nil, fmt.Errorf("container %q: %w", x.container.ID, ErrNotRunning)
	}
	return root, nil
}
