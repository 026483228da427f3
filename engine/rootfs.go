package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/engine/bundle"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/safepath"
)

// inPrivateMounts calls f on a thread that has a mount namespace of its own, in
// which the machine's mounts come and go as before, but from which none gets
// out. Processes that f starts inherit it. The kernel removes the namespace and
// what was mounted in it when the last of them and the thread have ended,
// whatever way they ended.
func inPrivateMounts(f func() error) error {
	return onThreadOfItsOwn(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("make / a slave mount: %w", err)
		}
		return f()
	})
}

// onThreadOfItsOwn calls f on a thread that runs nothing else, and ends with f.
// It is never the process's first one, which can't end before the others, and
// whose mounts /proc/self shows.
func onThreadOfItsOwn(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // a thread whose goroutine ends while it is locked ends too
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// As long as this goroutine keeps the first thread, the next gets another.
		defer runtime.UnlockOSThread()
		done <- onThreadOfItsOwn(f)
	}()
	return <-done
}

// mountRootfs makes the container's root file system: the snapshots with a
// writable layer of its own on top; or, where overlayfs can't be had (the
// writable layer may not lie on another overlay, for one), a copy of all. It
// must run in private mounts. The mount is gone after unmount.
func (c *container) mountRootfs(ctx context.Context) (unmount func() error, err error) {
	err = c.overlay()
	if err == nil {
		return func() error { return unix.Unmount(c.file("rootfs"), unix.MNT_DETACH) }, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	c.engine.options.Warn(fmt.Sprintf("%v: copying the image instead", err))
	if err := os.Remove(c.file("rootfs")); err != nil {
		return nil, err
	}
	return func() error { return nil }, flatten(ctx, c.source.image, c.source.layers, c.file("rootfs"))
}

// overlay mounts the snapshots, with upper on top, on rootfs.
func (c *container) overlay() error {
	for _, dir := range []string{"rootfs", "upper", "work"} {
		if err := os.Mkdir(c.file(dir), 0o755); err != nil {
			return err
		}
	}
	// The root directory that shows is that of upper.
	if len(c.lowers) > 0 {
		if err := copyOwnerAndMode(c.lowers[0].tree, c.file("upper")); err != nil {
			return err
		}
	} else if err := os.Mkdir(c.file("empty"), 0o755); err != nil { // overlayfs wants a lower directory
		return err
	} else {
		c.lowers = []snapshot{{tree: c.file("empty")}}
	}
	// The options of mount(2) have to fit into a page, and a path may have colons
	// and commas: descriptors are short and have none. They are looked up in the
	// thread's own working directory.
	var opened []int
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	name := func(path string) (string, error) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: path, Err: err}
		}
		opened = append(opened, fd)
		return strconv.Itoa(fd), nil
	}
	var names []string
	for _, s := range c.lowers {
		n, err := name(s.tree)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	upper, err := name(c.file("upper"))
	if err != nil {
		return err
	}
	work, err := name(c.file("work"))
	if err != nil {
		return err
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
		return fmt.Errorf("overlay: chdir: %w", err)
	}
	// Volatile (Linux 5.10): nothing of the upper layer is wanted after the
	// container, so neither fsync in it nor the end of the mount, which would
	// sync the whole file system below, has to wait for the disk.
	options := "lowerdir=" + strings.Join(names, ":") + ",upperdir=" + upper + ",workdir=" + work + ",volatile"
	err = unix.Mount("overlay", c.file("rootfs"), "overlay", 0, options)
	if cerr := unix.Chdir("/"); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(c.lowers), err)
	}
	return nil
}

func copyOwnerAndMode(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: to, Err: err}
	}
	return nil
}

// flatten unpacks all layers into the new directory tree, one on the other.
func flatten(ctx context.Context, img *image.Image, from layers, tree string) error {
	root, err := newTree(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for i, desc := range img.Manifest.Layers {
		err := from.layer(ctx, desc, func(r io.Reader) error {
			_, err := layer.Apply(ctx, r, root, layer.Options{
				Name: desc.Digest.String(), MediaType: desc.MediaType, DiffID: img.Config.RootFS.DiffIDs[i], Devices: layer.DevicesCreate,
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// specFor makes the config.json for an image whose files are in the directory
// rootfs, beside which it will be.
func specFor(img *image.Image, rootfs string, o bundle.Options) (*specs.Spec, error) {
	root, err := safepath.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return bundle.Spec(img.Config, root, o)
}
