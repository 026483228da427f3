package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// freezeTimeout bounds Freeze. A process in uninterruptible sleep (a dead NFS server) never freezes.
const freezeTimeout = 10 * time.Second

func (m *v1) freezerState(state string) error {
	dir, err := m.dir("freezer")
	if err != nil {
		return err
	}
	return writeFile(dir+"/freezer.state", state)
}

// gone reports whether an error means that there is no such cgroup, or none any more: its open files then say ENODEV.
func gone(err error) bool {
	return errors.Is(err, ErrUnsupported) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// thaw lets killed processes die. It is no error that there is nothing to thaw.
func (m *v1) thaw() error {
	if err := m.freezerState("THAWED"); err != nil && !gone(err) {
		return err
	}
	return nil
}

func (m *v1) Freeze(ctx context.Context, frozen bool) error {
	if !frozen {
		if err := m.freezerState("THAWED"); err != nil {
			return fmt.Errorf("cgroup: thaw: %w", err)
		}
		return nil
	}
	deadline := time.Now().Add(freezeTimeout)
	for round := 1; ; round++ {
		if err := m.freezerState("FROZEN"); err != nil {
			return fmt.Errorf("cgroup: freeze: %w", err)
		}
		if ok, err := m.Frozen(); ok || err != nil {
			return err
		}
		if err := pause(ctx, deadline, time.Millisecond); err != nil {
			return errors.Join(fmt.Errorf("cgroup: freeze: %w", err), m.thaw())
		}
		if round%50 == 0 {
			// A process in vfork waits for a child that froze first. A moment of freedom lets both get on (as runc does, from experience).
			if err := m.thaw(); err != nil {
				return fmt.Errorf("cgroup: freeze: %w", err)
			}
			if err := pause(ctx, deadline, 10*time.Millisecond); err != nil {
				return fmt.Errorf("cgroup: freeze: %w", err)
			}
		}
	}
}

// pause waits, unless it is time to give up.
func pause(ctx context.Context, deadline time.Time, wait time.Duration) error {
	if time.Now().After(deadline) {
		return fmt.Errorf("not done after %v: %w", freezeTimeout, context.DeadlineExceeded)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func (m *v1) Frozen() (bool, error) { return Frozen(m.Paths()) }

// Frozen reports whether the cgroups that Paths named are frozen, by reading one file.
func Frozen(paths map[string]string) (bool, error) {
	if dir := paths["freezer"]; dir != "" {
		state, err := readFile(dir + "/freezer.state")
		if gone(err) {
			return false, nil
		}
		return err == nil && strings.TrimSpace(state) == "FROZEN", wrapped(err)
	}
	dir := paths[""]
	if dir == "" {
		return false, nil
	}
	// This is what has been reached, not what was asked for. An empty cgroup is frozen at once.
	n, err := counter(dir+"/cgroup.events", "frozen")
	if gone(err) {
		return false, nil
	}
	return n == 1, wrapped(err)
}

// Thaw lets the cgroups that Paths named run again, as far as that is needed for a process to die: version 1 delivers not even
// SIGKILL to what is frozen. It is no error that there is nothing to thaw.
func Thaw(paths map[string]string) error {
	if dir := paths["freezer"]; dir != "" {
		if err := writeFile(dir+"/freezer.state", "THAWED"); err != nil && !gone(err) {
			return wrapped(err)
		}
	}
	return nil
}

// thaw lets a cgroup run again without waiting until it does.
func (m *v2) thaw() error {
	err := writeFile(m.dir+"/cgroup.freeze", "0")
	if gone(err) {
		return nil
	}
	return err
}

func (m *v2) Freeze(ctx context.Context, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	if err := writeFile(m.dir+"/cgroup.freeze", value); err != nil {
		return fmt.Errorf("cgroup: freeze: %w", err)
	}
	for deadline := time.Now().Add(freezeTimeout); ; {
		is, err := m.Frozen()
		if err != nil || is == frozen {
			return err
		}
		if err := pause(ctx, deadline, time.Millisecond); err != nil {
			err = fmt.Errorf("cgroup: freeze: %w", err)
			if frozen {
				err = errors.Join(err, m.thaw())
			}
			return err
		}
	}
}

func (m *v2) Frozen() (bool, error) { return Frozen(m.Paths()) }
