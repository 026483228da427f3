package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/engine/bundle"
	"github.com/tare-oci/tare/image"
)

// UnpackOptions say how to unpack.
type UnpackOptions struct {
	// Platform to choose from an index; nil is this machine's.
	Platform *v1.Platform
	// Pull says how an image is pulled that is missing.
	Pull PullOptions
	// RootfsOnly makes the directory the root file system itself, without the
	// bundle around it.
	RootfsOnly bool
}

// Unpack writes an image to a new, or empty, directory as a bundle: its
// config.json, and its files in rootfs. The image is a name in the store, a
// registry reference (pulled when it is missing), or oci:LAYOUT:TAG. The
// directory appears whole or not at all.
func (e *Engine) Unpack(ctx context.Context, name, dir string, o UnpackOptions) error {
	if err := needRoot("unpack an image"); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = e.unpackTo(ctx, name, dir, o)
	}
	if err != nil {
		return fmt.Errorf("unpack %s to %s: %w", name, dir, err)
	}
	return nil
}

func (e *Engine) unpackTo(ctx context.Context, name, dir string, o UnpackOptions) error {
	if err := checkVacant(dir); err != nil {
		return err
	}
	release, err := e.lease(ctx, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer release()
	parent, prefix := filepath.Dir(dir), "."+filepath.Base(dir)+".tare-"
	if err := eachDead(ctx, parent, prefix, (*owned).remove); err != nil {
		e.options.Warn(err.Error())
	}
	// A bundle is its owner's alone: programs in it may be setuid (CVE-2021-41103).
	made, err := makeOwned(filepath.Join(parent, prefix+randomID()[:16]), 0o700)
	if err != nil {
		return err
	}
	from := made.path
	if err = e.fill(ctx, name, made.path, o); err == nil && o.RootfsOnly {
		from = filepath.Join(made.path, rootfsName)
	}
	if err == nil {
		// Not os.Rename, which refuses a directory that is there and empty.
		err = unix.Rename(from, dir)
	}
	if err == nil && o.RootfsOnly && reachable(dir) {
		e.options.Warn(fmt.Sprintf("%s is open to all users of this machine, as the image has it for /: setuid programs in it are, too; "+
			"a directory above it of mode 700 keeps them out", dir))
	}
	if err != nil || o.RootfsOnly {
		return errors.Join(err, made.remove())
	}
	made.release()
	return nil
}

// reachable says whether any user can enter a directory. A root file system has
// to have the image's mode for "/", or other users than root could do nothing in
// a container that has it; so only what is above can protect it.
func reachable(dir string) bool {
	for {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil || st.Mode&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// checkVacant says whether a directory can be made here.
func checkVacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err := os.Stat(filepath.Dir(dir))
		return err
	case err != nil:
		return err
	case len(entries) > 0:
		return errors.New("the directory is not empty")
	}
	return nil
}

const rootfsName = "rootfs"

// fill makes the bundle in a new directory. An image that has to be pulled is
// unpacked as it comes.
func (e *Engine) fill(ctx context.Context, name, dir string, o UnpackOptions) (err error) {
	unpacked := false
	src, err := e.source(ctx, name, o.Platform, o.Pull, func(ctx context.Context, f *fetcher, img *image.Image) error {
		unpacked = true
		return f.ahead(ctx, img, func(ctx context.Context, from layers) error { return makeBundle(ctx, img, from, dir, o.RootfsOnly) })
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	if unpacked {
		return nil
	}
	return makeBundle(ctx, src.image, src.layers, dir, o.RootfsOnly)
}

func makeBundle(ctx context.Context, img *image.Image, from layers, dir string, rootfsOnly bool) error {
	rootfs := filepath.Join(dir, rootfsName)
	if err := flatten(ctx, img, from, rootfs); err != nil || rootfsOnly {
		return err
	}
	options := bundle.Options{Hostname: "tare", KeptRootfs: true}
	if c := img.Config.Config; len(c.Entrypoint)+len(c.Cmd) == 0 {
		options.Args = []string{"sh"} // a bundle has a command; whoever uses this one will have another in mind
	}
	spec, err := specFor(img, rootfs, options)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), append(data, '\n'), 0o644)
}
