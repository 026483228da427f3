package lifecycle

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
)

// Watch reports on a container that has not stopped.
func (s Store) Watch(id string) (*Watch, error) {
	c, err := s.Load(id)
	if err != nil {
		return nil, err
	}
	if c.phase() == specs.StateStopped {
		return nil, fmt.Errorf("container with id %s is not running", id)
	}
	m, err := c.cgroups()
	if err != nil {
		return nil, err
	}
	return &Watch{c, m}, nil
}

// A Watch is for looking at what a container does.
type Watch struct {
	container *Container
	cgroup    cgroup.Manager
}

// Stats reads what the container uses now.
func (w *Watch) Stats() (*cgroup.Stats, error) {
	s, err := w.cgroup.Stats()
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", w.container.ID, err)
	}
	if class := w.container.Resctrl; class != nil {
		shares, err := class.Stats()
		if err != nil {
			return nil, fmt.Errorf("container %q: %w", w.container.ID, err)
		}
		s.IntelRdt = *shares
	}
	return s, nil
}

// OOMs calls f each time the kernel kills for want of memory, until the
// container's control group is gone or, on version 2, empty.
func (w *Watch) OOMs(ctx context.Context, f func()) error {
	if err := w.cgroup.OOMs(ctx, f); err != nil {
		return fmt.Errorf("container %q: %w", w.container.ID, err)
	}
	return nil
}
