package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/engine/bundle"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
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

	// Rootless does without root: all files belong to whoever unpacks, their
	// owners are kept in layer.OwnerXattr, and devices become empty files.
	Rootless bool
	// UIDMap and GIDMap are the user namespace that the image is for: files get
	// the ids on this machine. With one of them only, it is for both.
	UIDMap, GIDMap layer.IDMap
	// KeepDirlinks: see layer.Options.
	KeepDirlinks bool
	// Limits bound each layer.
	Limits layer.Limits
	// Decrypter is for encrypted layers; without one they are refused.
	Decrypter layer.Decrypter
}

// applying is how the layers are applied.
func (o UnpackOptions) applying() applying {
	how := applying{decrypter: o.Decrypter, options: layer.Options{
		Devices: layer.DevicesCreate, KeepDirlinks: o.KeepDirlinks, Limits: o.Limits, KeepOwners: o.Rootless,
	}}
	if o.Rootless {
		how.options.Devices = layer.DevicesPlaceholder
	}
	if len(o.UIDMap) > 0 {
		how.options.MapID = func(uid, gid uint32) (uint32, uint32, error) {
			if o.Rootless {
				uid, gid = 0, 0
			}
			uid, err := o.UIDMap.ToHost(uid)
			if err != nil {
				return 0, 0, fmt.Errorf("user: %w", err)
			}
			if gid, err = o.GIDMap.ToHost(gid); err != nil {
				return 0, 0, fmt.Errorf("group: %w", err)
			}
			return uid, gid, nil
		}
	}
	return how
}

// withMaps completes the id maps.
func (o UnpackOptions) withMaps() UnpackOptions {
	if o.Rootless && len(o.UIDMap)+len(o.GIDMap) == 0 {
		o.UIDMap = layer.IDMap{{HostID: uint32(os.Geteuid()), Size: 1}}
		o.GIDMap = layer.IDMap{{HostID: uint32(os.Getegid()), Size: 1}}
	}
	if len(o.GIDMap) == 0 {
		o.GIDMap = o.UIDMap
	}
	if len(o.UIDMap) == 0 {
		o.UIDMap = o.GIDMap
	}
	return o
}

// Unpack writes an image to a new, or empty, directory as a bundle: its
// config.json, and its files in rootfs. The image is a name in the store, a
// registry reference (pulled when it is missing), or oci:LAYOUT:TAG. The
// directory appears whole or not at all.
func (e *Engine) Unpack(ctx context.Context, name, dir string, o UnpackOptions) error {
	if !o.Rootless {
		if err := needRoot("unpack an image"); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = e.unpackTo(ctx, name, dir, o.withMaps())
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
	err = e.fill(ctx, name, made.path, o)
	switch {
	case err == nil && o.RootfsOnly:
		from = filepath.Join(made.path, rootfsName)
	case err == nil && len(o.GIDMap) > 0 && !o.Rootless:
		err = admit(made.path, o.GIDMap)
	}
	if err == nil {
		err = moveDir(from, dir)
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

// admit lets the root group of a user namespace through a bundle's directory to
// the root file system, and do nothing else there.
func admit(dir string, groups layer.IDMap) error {
	gid, err := groups.ToHost(0)
	if err != nil {
		return nil // a namespace without a root group has other ways
	}
	if err := os.Chown(dir, -1, int(gid)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// moveDir gives a directory its place. Who is not root can only move one that is
// writable, which an image's root directory need not be.
func moveDir(from, to string) error {
	// Not os.Rename, which refuses a directory that is there and empty.
	err := unix.Rename(from, to)
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	var st unix.Stat_t
	if serr := unix.Stat(from, &st); serr != nil || st.Mode&unix.S_IWUSR != 0 {
		return err
	}
	if err := unix.Chmod(from, st.Mode&0o7777|unix.S_IWUSR); err != nil {
		return err
	}
	if err := unix.Rename(from, to); err != nil {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
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
	pulled := strings.TrimPrefix(name, transport.Location{Kind: transport.Registry}.String()) // where a pull leaves it
	src, err := e.source(ctx, name, o.Platform, o.Pull, func(ctx context.Context, f *fetcher, img *image.Image) error {
		if unpacked { // and pulled again, as something came damaged
			if err := os.RemoveAll(filepath.Join(dir, rootfsName)); err != nil {
				return err
			}
		}
		unpacked = true
		return f.ahead(ctx, img, func(ctx context.Context, from layers) error { return makeBundle(ctx, pulled, img, from, dir, o) })
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	if unpacked {
		return nil
	}
	from := layersWithForeign{src.layers, &foreign{allowed: o.Pull.Foreign}}
	return makeBundle(ctx, src.name, src.image, from, dir, o)
}

func makeBundle(ctx context.Context, name string, img *image.Image, blobs layers, dir string, o UnpackOptions) error {
	rootfs := filepath.Join(dir, rootfsName)
	if err := flatten(ctx, img, blobs, rootfs, o.applying()); err != nil || o.RootfsOnly {
		return err
	}
	options := bundle.Options{Hostname: "tare", KeptRootfs: true, Rootless: o.Rootless, UIDMappings: mappings(o.UIDMap), GIDMappings: mappings(o.GIDMap)}
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
	if err := os.WriteFile(filepath.Join(dir, "config.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	from, err := originOf(name, img)
	if err != nil {
		return err
	}
	from.Rootless, from.UIDMap, from.GIDMap = o.Rootless, o.UIDMap, o.GIDMap
	return writeOrigin(ctx, dir, rootfs, from)
}

// mappings is an id map as config.json has it.
func mappings(m layer.IDMap) []specs.LinuxIDMapping {
	var all []specs.LinuxIDMapping
	for _, r := range m {
		all = append(all, specs.LinuxIDMapping{ContainerID: r.ContainerID, HostID: r.HostID, Size: r.Size})
	}
	return all
}
