package lifecycle

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
)

// StatePaused is the state of a container whose processes are stopped. The
// specification does not have it; runc does.
const StatePaused specs.ContainerState = "paused"

// Pause stops all processes of a container, and waits until they are.
func (s Store) Pause(ctx context.Context, id string) error {
	return s.freeze(ctx, id, "pause", true, ErrNotRunning, specs.StateCreated, specs.StateRunning)
}

// Resume lets the processes of a paused container run again.
func (s Store) Resume(ctx context.Context, id string) error {
	return s.freeze(ctx, id, "resume", false, ErrNotPaused, StatePaused)
}

// freeze changes the state of a container that is in one of from, else it is otherwise.
func (s Store) freeze(ctx context.Context, id, verb string, frozen bool, otherwise error, from ...specs.ContainerState) error {
	c, l, err := s.hold(id, false)
	defer func() { l.release() }()
	if err != nil {
		return err
	}
	status := specs.StateCreating
	if l != nil {
		status = c.Status()
	}
	for _, f := range from {
		if status != f {
			continue
		}
		m, err := c.cgroups()
		if err == nil {
			err = m.Freeze(ctx, frozen)
		}
		if err != nil {
			return fmt.Errorf("container %q: %s: %w", id, verb, err)
		}
		return nil
	}
	return fmt.Errorf("container %q: %s: %w: it is %s", id, verb, otherwise, status)
}

// Frozen says whether the container's processes are stopped.
func (c *Container) Frozen() (bool, error) { return cgroup.Frozen(c.Cgroups) }

// paused is Frozen for who takes no for an answer.
func (c *Container) paused() bool {
	frozen, err := c.Frozen()
	return err == nil && frozen
}
