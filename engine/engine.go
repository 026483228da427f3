package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// Options say where an engine keeps its things.
type Options struct {
	// Root is the directory of images, snapshots and containers.
	Root string
	// RunRoot is the directory of state that does not outlive a boot.
	RunRoot string
	// Names, if set, says which references a name may stand for; otherwise it is
	// what docker makes of it.
	Names func(name string) ([]distribution.Reference, error)
	// Warn, if set, is told of what was left out or went wrong without
	// stopping anything. It may be called from several goroutines at once.
	Warn func(message string)
}

// DefaultRoots are the usual places: those of the system for root, those of
// the XDG Base Directory Specification for others. getenv is os.Getenv.
func DefaultRoots(getenv func(string) string) (root, runRoot string, err error) {
	if os.Geteuid() == 0 {
		return "/var/lib/tare", "/run/tare", nil
	}
	data, run := getenv("XDG_DATA_HOME"), getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(data) { // the specification: a relative path is to be ignored
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", "", errors.New("no place for images: neither XDG_DATA_HOME nor HOME is an absolute path")
		}
		data = filepath.Join(home, ".local/share")
	}
	root = filepath.Join(data, "tare")
	if !filepath.IsAbs(run) {
		return root, filepath.Join(root, "run"), nil
	}
	return root, filepath.Join(run, "tare"), nil
}

// An Engine is a store of images and the containers that run from them. Its
// methods may be called concurrently, and several processes may have the same
// directories open.
type Engine struct {
	options Options
	images  *layout.Store
}

// Open opens the directories, and makes them where there are none.
func Open(o Options) (*Engine, error) {
	if o.Root == "" || o.RunRoot == "" {
		return nil, errors.New("open engine: Root and RunRoot must be named")
	}
	var err error
	if o.Root, err = filepath.Abs(o.Root); err == nil {
		o.RunRoot, err = filepath.Abs(o.RunRoot)
	}
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	e := &Engine{options: o}
	// Files of images and containers are their users' business: a setuid program
	// in there must not be in reach of this machine's (CVE-2021-41103).
	// So must what is packed in images, and the locks: who can read one can hold it.
	for _, dir := range []string{e.snapshotsDir(), e.containersDir(), e.ImagesDir()} {
		if err := makeDir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
	}
	if e.images, err = layout.Open(e.ImagesDir(), layout.Options{Create: true}); err != nil {
		return nil, err
	}
	return e, nil
}

// makeDir is MkdirAll, with perm for the last directory only.
func makeDir(dir string, perm os.FileMode) error {
	err := os.Mkdir(dir, perm)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o755); err == nil {
			err = os.Mkdir(dir, perm)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// Close gives the engine up. Nothing of it may be in use.
func (e *Engine) Close() error { return e.images.Close() }

// ImagesDir is the OCI image layout that the images are kept in.
func (e *Engine) ImagesDir() string { return filepath.Join(e.options.Root, "images") }

func (e *Engine) snapshotsDir() string  { return filepath.Join(e.options.Root, "snapshots") }
func (e *Engine) containersDir() string { return filepath.Join(e.options.Root, "containers") }

// runtime is where our runtime keeps the state of containers.
func (o Options) runtime() lifecycle.Store {
	return lifecycle.Store{Root: filepath.Join(o.RunRoot, "runtime")}
}

// bundle is the directory of a container's config.json and mount point.
func (o Options) bundle(id string) string { return filepath.Join(o.RunRoot, "containers", id) }

// lease makes sure, until release is called, that snapshots which are there
// stay: unix.LOCK_SH, for all that relies on some; or that nobody relies on
// any: unix.LOCK_EX, for GC. It is taken before a session of the image store.
func (e *Engine) lease(ctx context.Context, how int) (release func(), err error) {
	path := filepath.Join(e.options.Root, "lease.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	if err := flock(ctx, f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
