package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/mutate"
)

// CommitOptions say how a container becomes an image.
type CommitOptions struct {
	NewImageOptions
	// Pause stops the container's processes while its files are read, if it runs.
	Pause bool
}

// Commit makes an image of a container: the one that it was made from, with a layer of what the container has changed, and what it
// was asked to run in place of what the image said. The name may be any that Copy takes; if it is empty, the image is called by its
// digest. The image's history says how the container was run, unless the options do.
func (e *Engine) Commit(ctx context.Context, container, name string, o CommitOptions) (n NewImage, err error) {
	n, err = e.commit(ctx, container, name, o)
	if err != nil {
		return n, fmt.Errorf("commit container %s: %w", container, err)
	}
	return n, nil
}

func (e *Engine) commit(ctx context.Context, container, name string, o CommitOptions) (n NewImage, err error) {
	found, err := e.findContainer(container)
	if err != nil {
		return n, err
	}
	c, err := e.heldContainer(ctx, found, o.Changes, o.Pause)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r, err := readRecord(e.containerDir(found.ID))
	if err != nil {
		return n, err
	}
	if o.History.CreatedBy == "" {
		o.History.CreatedBy = strings.Join(slices.Concat(r.Process.Entrypoint, r.Process.Args), " ")
	}
	o.Edits = slices.Concat([]mutate.Edit{r.Process.edit}, o.Edits)
	return e.put(ctx, c, name, o.NewImageOptions)
}

// heldContainer finds what has changed in a container, and keeps that from changing until it is closed.
func (e *Engine) heldContainer(ctx context.Context, found Container, o ChangeOptions, pause bool) (*changedTree, error) {
	release, err := e.hold(ctx, found.ID, pause)
	if err != nil {
		return nil, err
	}
	c, err := e.changedContainer(ctx, found, o)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	c.release = release
	return c, nil
}

// hold keeps a container as it is until release is called: one that has ended from being removed, one that runs, with pause, from
// running on.
func (e *Engine) hold(ctx context.Context, id string, pause bool) (release func() error, err error) {
	dir := e.containerDir(id)
	o, err := takeOwned(dir)
	if err == nil {
		return func() error { o.release(); return nil }, nil
	}
	if !errors.Is(err, errTaken) {
		return nil, err
	}
	r, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	if !pause || r.Exit != nil {
		return func() error { return nil }, nil
	}
	freezer := r.freezer()
	if err := freezer.Pause(ctx, id); err != nil {
		return nil, fmt.Errorf("%w (without --pause, it is read as it runs)", err)
	}
	return func() error { return freezer.Resume(context.WithoutCancel(ctx), id) }, nil
}

// freezer is what can stop the processes of a container.
type freezer interface {
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
}

func (r record) freezer() freezer {
	if r.Runtime != "" {
		return external{r.RunRoot, r.Runtime}
	}
	return Options{RunRoot: r.RunRoot}.runtime()
}

// Pause implements freezer.
func (x external) Pause(ctx context.Context, id string) error { return x.call(ctx, "pause", id) }

// Resume implements freezer.
func (x external) Resume(ctx context.Context, id string) error { return x.call(ctx, "resume", id) }

// edit makes what a container was asked to run the image's.
func (p process) edit(cfg *v1.Image) {
	c := &cfg.Config
	switch {
	case p.Entrypoint != nil: // which makes the image's Cmd void, also when there are no arguments
		c.Entrypoint, c.Cmd = p.Entrypoint, p.Args
	case len(p.Args) > 0:
		c.Cmd = p.Args
	}
	for _, e := range p.Env {
		name, _, sets := strings.Cut(e, "=")
		i := slices.IndexFunc(c.Env, func(have string) bool { return have == name || strings.HasPrefix(have, name+"=") })
		switch {
		case sets && i >= 0:
			c.Env = slices.Concat(c.Env[:i], []string{e}, c.Env[i+1:])
		case sets:
			c.Env = append(slices.Clone(c.Env), e)
		case i >= 0:
			c.Env = slices.Concat(c.Env[:i], c.Env[i+1:])
		}
	}
	if p.Workdir != "" {
		c.WorkingDir = p.Workdir
	}
	if p.User != "" {
		c.User = p.User
	}
}
