package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/safepath"
)

// The names of a snapshot's tree, which say whether layers below show through.
const (
	treeName   = "fs"
	opaqueName = "opaque"
)

// snapshotDir is the only place where a ChainID becomes a path.
func (e *Engine) snapshotDir(chainID digest.Digest) (string, error) {
	if err := image.CheckDigest(chainID); err != nil {
		return "", fmt.Errorf("layer's ChainID: %w", err)
	}
	return filepath.Join(e.snapshotsDir(), string(chainID.Algorithm()), chainID.Encoded()), nil
}

// newSnapshots is where snapshots are made.
func (e *Engine) newSnapshots() string { return filepath.Join(e.snapshotsDir(), "new") }

// A snapshot is an unpacked layer.
type snapshot struct {
	tree   string // its files
	opaque bool   // no layer below it shows through
}

// snapshot finds the unpacked layer with the given ChainID.
func (e *Engine) snapshot(chainID digest.Digest) (snapshot, bool, error) {
	dir, err := e.snapshotDir(chainID)
	if err != nil {
		return snapshot{}, false, err
	}
	for _, s := range []snapshot{{dir + "/" + treeName, false}, {dir + "/" + opaqueName, true}} {
		err := unix.Access(s.tree, unix.F_OK)
		if err == nil {
			return s, true, nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return snapshot{}, false, &fs.PathError{Op: "access", Path: s.tree, Err: err}
		}
	}
	return snapshot{}, false, nil
}

// stack returns the snapshots that show in an image with these layers, the
// topmost first; false if one is missing.
func (e *Engine) stack(chain []digest.Digest) ([]snapshot, bool, error) {
	var all []snapshot
	for _, id := range slices.Backward(chain) {
		s, there, err := e.snapshot(id)
		if err != nil || !there {
			return nil, false, err
		}
		if all = append(all, s); s.opaque {
			break
		}
	}
	return all, true, nil
}

// layers are where the content of an image's layers comes from.
type layers interface {
	// layer gets a layer, and passes its content to unpack unless that is nil.
	// Only if layer returns nil was it the right content.
	layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error
}

// stored are layers whose blobs are in an image layout.
type stored[R io.ReadCloser] struct {
	open func(ctx context.Context, desc v1.Descriptor) (R, error)
}

func (s stored[R]) layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error {
	if unpack == nil {
		return nil
	}
	r, err := s.open(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	return whole(ctx, r, unpack(r))
}

// whole reads what is left of a layer after something in it was wrong: whether
// the layer is what its descriptor says comes first.
func whole(ctx context.Context, r io.Reader, err error) error {
	if _, ours := errors.AsType[unix.Errno](err); err == nil || ours || ctx.Err() != nil {
		return err // of a full disk, say, the layer has no part
	}
	if _, rerr := io.Copy(io.Discard, r); errors.Is(rerr, image.ErrMismatch) {
		return rerr
	}
	return err
}

// unpacking is a snapshot in the making.
type unpacking struct {
	*owned
	tree   string
	result layer.Result
}

// unpack makes the snapshots of an image that are missing. Layers are unpacked
// side by side, each by itself; then those that need it are completed from
// below; and only when all is done and on the disk do they get their names.
func (e *Engine) unpack(ctx context.Context, img *image.Image, from layers, done func(digest.Digest)) (err error) {
	chain := image.ChainIDs(img.Config.RootFS.DiffIDs)
	made := make([]*unpacking, len(chain))
	defer func() {
		for _, u := range made {
			if u != nil {
				err = errors.Join(err, u.remove())
			}
		}
	}()
	stop, err := e.writeBack()
	if err != nil {
		return err
	}
	defer stop()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	for i, desc := range img.Manifest.Layers {
		group.Go(func() error {
			_, there, err := e.snapshot(chain[i])
			if err == nil && there {
				err = from.layer(groupCtx, desc, nil)
			} else if err == nil {
				if made[i], err = e.beginSnapshot(); err == nil {
					err = from.layer(groupCtx, desc, func(r io.Reader) error { return made[i].apply(groupCtx, r, desc, img.Config.RootFS.DiffIDs[i]) })
				}
			}
			if err == nil {
				done(desc.Digest)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := e.completeSnapshots(ctx, chain, made); err != nil {
		return err
	}
	return e.publish(chain, made)
}

// writeBack has the disk take what is unpacked while more is, from now until
// stop is called. Little is left then for publish to wait for: for an image of
// 200 MB that is a quarter of the time of its pull.
func (e *Engine) writeBack() (stop func(), err error) {
	if err := makeDir(e.newSnapshots(), 0o700); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	dir, err := os.Open(e.newSnapshots())
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	const every = 100 * time.Millisecond
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer dir.Close()
		for {
			select {
			case <-over:
				return
			case <-time.After(every):
				_ = unix.Syncfs(int(dir.Fd())) // publish does it again, and looks
			}
		}
	}()
	return func() { close(over); <-stopped }, nil
}

// beginSnapshot makes the directory for an unpacked layer.
func (e *Engine) beginSnapshot() (*unpacking, error) {
	o, err := makeOwned(filepath.Join(e.newSnapshots(), randomID()[:16]), 0o700)
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	return &unpacking{owned: o, tree: filepath.Join(o.path, treeName)}, nil
}

// apply unpacks the layer.
func (u *unpacking) apply(ctx context.Context, blob io.Reader, desc v1.Descriptor, diffID digest.Digest) error {
	root, err := newTree(u.tree)
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", desc.Digest, err)
	}
	defer root.Close()
	how := applying{options: layer.Options{Form: layer.Overlay, Devices: layer.DevicesCreate}}
	u.result, err = how.apply(ctx, blob, root, desc, diffID)
	if u.result.Entries == 0 { // even the root looks as below
		u.result.Pending.Dirs = []string{"."}
	}
	return err
}

// newTree makes the directory of a root file system, looking as it does when no
// layer says otherwise.
func newTree(path string) (*safepath.Root, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o755); err != nil { // whatever the umask
		return nil, err
	}
	return safepath.OpenRoot(path)
}

// completeSnapshots adds to each new snapshot what only those below it know.
func (e *Engine) completeSnapshots(ctx context.Context, chain []digest.Digest, made []*unpacking) error {
	var below []*safepath.Root // what shows through, the topmost first
	var opened []*safepath.Root
	defer func() {
		for _, r := range opened {
			r.Close()
		}
	}()
	for i, u := range made {
		var s snapshot
		if u != nil {
			s = snapshot{u.tree, u.result.OpaqueRoot}
		} else {
			var there bool
			var err error
			if s, there, err = e.snapshot(chain[i]); err != nil || !there {
				return errors.Join(fmt.Errorf("unpacked layer %s has vanished", chain[i]), err)
			}
		}
		root, err := safepath.OpenRoot(s.tree)
		if err != nil {
			return err
		}
		opened = append(opened, root)
		if s.opaque {
			below = nil
		}
		if u != nil {
			options := layer.Options{Name: chain[i].String(), Form: layer.Overlay}
			if err := layer.Complete(ctx, root, below, u.result.Pending, options); err != nil {
				return err
			}
		}
		below = slices.Insert(below, 0, root)
	}
	return nil
}

// publish gives the new snapshots their names, after they have reached the
// disk: a name must not outlive a power failure that the files do not.
func (e *Engine) publish(chain []digest.Digest, made []*unpacking) error {
	synced := false
	for i, u := range made {
		if u == nil {
			continue
		}
		if !synced {
			if err := unix.Syncfs(int(u.lock.Fd())); err != nil {
				return fmt.Errorf("sync %s: %w", e.snapshotsDir(), err)
			}
			synced = true
		}
		if u.result.OpaqueRoot {
			if err := os.Rename(u.tree, filepath.Join(u.path, opaqueName)); err != nil {
				return err
			}
		}
		dir, err := e.snapshotDir(chain[i])
		if err != nil {
			return err
		}
		if err := makeDir(filepath.Dir(dir), 0o700); err != nil {
			return err
		}
		switch err := u.rename(dir); {
		case err == nil:
			u.release()
			made[i] = nil
		case !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST): // made by somebody else meanwhile
			return err
		}
	}
	return nil
}
