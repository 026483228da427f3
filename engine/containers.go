package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/changeset"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/safepath"
)

// ErrNoContainer: there is no container of that name.
var ErrNoContainer = errors.New("no such container")

// ErrRunning: this cannot be done to a container that runs.
var ErrRunning = errors.New("the container is running")

// Container is one that is there.
type Container struct {
	ID      string
	Image   string   // that it was made from
	Command []string // as the user gave it; empty for the image's own
	Created time.Time
	Running bool // or being made, or being removed
	Exit    *Exit
}

// Exit is how a container has ended.
type Exit struct {
	Status   int       `json:"status"`
	Finished time.Time `json:"finished"`
}

// statusKilled is what a shell says of what SIGKILL has ended: a container whose keeper was killed is killed, too.
const statusKilled = 128 + int(unix.SIGKILL)

// Containers lists the containers that are there, the newest first.
func (e *Engine) Containers(ctx context.Context) ([]Container, error) {
	e.sweep(ctx)
	entries, err := os.ReadDir(e.containersDir())
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []Container
	for _, entry := range entries {
		if checkID(entry.Name()) != nil || !entry.IsDir() {
			continue
		}
		c, err := e.container(entry.Name())
		if err != nil {
			continue // it is just being made, or removed
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b Container) int { return b.Created.Compare(a.Created) })
	return all, ctx.Err()
}

func (e *Engine) containerDir(id string) string { return filepath.Join(e.containersDir(), id) }

// container describes the container with an ID.
func (e *Engine) container(id string) (Container, error) {
	r, err := readRecord(e.containerDir(id))
	if err != nil {
		return Container{}, err
	}
	return Container{ID: id, Image: r.Image, Command: r.Process.Args, Created: r.Created, Running: r.Exit == nil, Exit: r.Exit}, nil
}

// findContainer finds a container by its ID or the beginning of it.
func (e *Engine) findContainer(name string) (Container, error) {
	none := fmt.Errorf("%w: %.200q", ErrNoContainer, name)
	if checkID(name) != nil {
		return Container{}, none
	}
	c, err := e.container(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	matches, err := filepath.Glob(filepath.Join(e.containersDir(), name+"*")) // an ID has no wildcards
	switch {
	case err != nil:
		return Container{}, err
	case len(matches) == 0:
		return Container{}, none
	case len(matches) > 1:
		return Container{}, fmt.Errorf("container %q: ambiguous: %s and %s", name, filepath.Base(matches[0]), filepath.Base(matches[1]))
	}
	c, err = e.container(filepath.Base(matches[0]))
	if errors.Is(err, fs.ErrNotExist) {
		err = none
	}
	return c, err
}

// RemoveContainer removes a container that has ended, or with force ends it first. It returns its ID.
func (e *Engine) RemoveContainer(ctx context.Context, name string, force bool) (string, error) {
	c, err := e.findContainer(name)
	if err == nil {
		err = e.removeContainer(ctx, c, force)
	}
	if err != nil {
		return "", fmt.Errorf("remove container %s: %w", name, err)
	}
	return c.ID, nil
}

func (e *Engine) removeContainer(ctx context.Context, c Container, force bool) error {
	dir := e.containerDir(c.ID)
	o, err := takeOwned(dir)
	if errors.Is(err, errTaken) {
		if !force {
			return ErrRunning
		}
		// It may be ending by itself.
		if err := e.kill(ctx, dir); err != nil && !errors.Is(err, lifecycle.ErrNotExist) && !errors.Is(err, lifecycle.ErrNotRunning) {
			return err
		}
		o, err = awaitOwned(ctx, dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // its keeper has removed it
		return nil
	case err != nil:
		return err
	}
	return e.bury(ctx, o, true)
}

// kill ends what runs in a container.
func (e *Engine) kill(ctx context.Context, dir string) error {
	r, err := readRecord(dir)
	if err != nil {
		return err
	}
	id := filepath.Base(dir)
	if r.Runtime != "" {
		return external{r.RunRoot, r.Runtime}.delete(ctx, id)
	}
	return Options{Root: e.options.Root, RunRoot: r.RunRoot}.runtime().Kill(ctx, id, unix.SIGKILL, true)
}

// awaitOwned takes a directory when its owner gives it up.
func awaitOwned(ctx context.Context, dir string) (*owned, error) {
	const longest = 10 * time.Second
	for end := time.Now().Add(longest); ; {
		o, err := takeOwned(dir)
		if !errors.Is(err, errTaken) || time.Now().After(end) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// changedContainer finds what has changed in a container. One that runs may go on changing it: see CommitOptions.Pause.
func (e *Engine) changedContainer(ctx context.Context, found Container, o ChangeOptions) (*changedTree, error) {
	dir := e.containerDir(found.ID)
	r, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	c := &changedTree{origin: r.Origin, options: changeset.Options{Mask: slices.Concat(r.Masked, o.Mask), Warn: e.options.Warn}}
	if tree := filepath.Join(dir, copyName); exists(tree) {
		return c, c.compare(ctx, tree, filepath.Join(dir, recordFile))
	}
	if c.root, err = safepath.OpenRoot(filepath.Join(dir, upperName)); err != nil {
		return nil, err
	}
	if c.set, err = e.compareUpper(ctx, c, r); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (e *Engine) compareUpper(ctx context.Context, c *changedTree, r record) (*changeset.Set, error) {
	below, there, err := e.stack(r.Chain)
	if err == nil && !there {
		err = errors.New("an unpacked layer of its image has vanished")
	}
	if err != nil {
		return nil, err
	}
	var lowers []*safepath.Root
	defer func() {
		for _, l := range lowers {
			l.Close()
		}
	}()
	for _, s := range below {
		root, err := safepath.OpenRoot(s.tree)
		if err != nil {
			return nil, err
		}
		lowers = append(lowers, root)
	}
	return changeset.CompareUpper(ctx, c.root, lowers, c.options)
}

// keptImages are the images that containers were made from: a commit needs them.
func (e *Engine) keptImages() ([]v1.Descriptor, error) {
	entries, err := os.ReadDir(e.containersDir())
	if err != nil {
		return nil, err
	}
	var kept []v1.Descriptor
	for _, entry := range entries {
		r, err := readRecord(e.containerDir(entry.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		case err != nil:
			return nil, err
		case r.Origin.Manifest.Digest != "": // older ones have none
			kept = append(kept, r.Origin.Manifest)
		}
	}
	return kept, nil
}
