package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
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

// mountRootfs mounts the container's root file system: the snapshots with a
// writable layer on top; or, where overlayfs can't be had (the writable layer
// may not lie on another overlay, and there may be 500 layers at most), a copy
// of all. It must run in private mounts. The mount is gone after unmount.
func (c *container) mountRootfs(ctx context.Context) (unmount func() error, err error) {
	rootfs := c.file("rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return nil, err
	}
	err = c.mountOverlay(rootfs)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
		c.engine.options.Warn(fmt.Sprintf("%v: copying the image instead", err))
		tree := filepath.Join(c.path, copyName)
		if err = flatten(ctx, c.source.image, c.source.layers, tree, applying{options: layer.Options{Devices: layer.DevicesCreate}}); err == nil {
			err = writeRecord(ctx, tree, filepath.Join(c.path, recordFile))
		}
		if err == nil {
			err = unix.Mount(tree, rootfs, "", unix.MS_BIND, "")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	return func() error { return unix.Unmount(rootfs, unix.MNT_DETACH) }, nil
}

func (c *container) mountOverlay(rootfs string) error {
	upper, work := filepath.Join(c.path, upperName), filepath.Join(c.path, workName)
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	var lowers []string
	for _, s := range c.lowers {
		lowers = append(lowers, s.tree)
	}
	if len(lowers) == 0 { // overlayfs wants one
		lowers = []string{c.file("empty")}
		if err := os.Mkdir(lowers[0], 0o755); err != nil {
			return err
		}
	}
	// The root directory that shows is that of upper.
	if err := copyAttributes(lowers[0], upper); err != nil {
		return err
	}
	if err := mountOverlay(rootfs, lowers, upper, work); err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(c.lowers), err)
	}
	return nil
}

// mountOverlay mounts directories on one another, the topmost of lowers first.
//
// The options of mount(2) have to fit into a page, and a path may have colons
// and commas. Descriptors are short and have none: with the directory of its
// descriptors as working directory, which it must have for itself, the thread
// calls each by its number.
func mountOverlay(target string, lowers []string, upper, work string) (err error) {
	var names []string
	for _, path := range slices.Concat(lowers, []string{upper, work}) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		defer unix.Close(fd)
		names = append(names, strconv.Itoa(fd))
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
		return fmt.Errorf("chdir to own descriptors: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Chdir("/")) }()
	// Volatile (Linux 5.10): nothing of the upper layer has to survive the
	// machine's end, so neither fsync in it nor the end of the mount, which would
	// sync the whole file system below, has to wait for the disk. Nor shall it note
	// in the upper layer that something is to be found elsewhere, whatever the
	// kernel's defaults: what a container has changed is what is there.
	n := len(lowers)
	options := "lowerdir=" + strings.Join(names[:n], ":") + ",upperdir=" + names[n] + ",workdir=" + names[n+1] + ",volatile,redirect_dir=off,metacopy=off,index=off"
	return unix.Mount("overlay", target, "overlay", 0, options)
}

// copyAttributes gives a directory another's owner, mode and times.
func copyAttributes(from, to string) error {
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
	if err := unix.UtimesNano(to, []unix.Timespec{st.Atim, st.Mtim}); err != nil {
		return &os.PathError{Op: "set times", Path: to, Err: err}
	}
	return nil
}

// applying says how layers are applied, apart from what each is by itself.
type applying struct {
	options   layer.Options
	decrypter layer.Decrypter
}

// apply applies one layer.
func (a applying) apply(ctx context.Context, blob io.Reader, root *safepath.Root, desc v1.Descriptor, diffID digest.Digest) (layer.Result, error) {
	plain, mediaType, err := layer.Decrypt(ctx, desc, blob, a.decrypter)
	if err != nil {
		return layer.Result{}, err
	}
	defer plain.Close()
	o := a.options
	o.Name, o.MediaType, o.DiffID = desc.Digest.String(), mediaType, diffID
	return layer.Apply(ctx, plain, root, o)
}

// flatten unpacks all layers into the new directory tree, one on the other.
func flatten(ctx context.Context, img *image.Image, from layers, tree string, how applying) error {
	root, err := newTree(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for i, desc := range img.Manifest.Layers {
		err := from.layer(ctx, desc, func(r io.Reader) error {
			_, err := how.apply(ctx, r, root, desc, img.Config.RootFS.DiffIDs[i])
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
