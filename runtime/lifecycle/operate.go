package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// Start runs the user's program of a created container (runtime.md, "Start").
func (s Store) Start(ctx context.Context, id string) error { return s.StartNotifying(ctx, id, "") }

// StartNotifying is Start, and where notify is the socket of a service manager,
// it waits until the container is ready and says so there.
func (s Store) StartNotifying(ctx context.Context, id, notify string) error {
	c, l, err := s.hold(id, false)
	defer func() { l.release() }()
	if err != nil {
		return err
	}
	status := specs.StateCreating
	if l != nil {
		status = c.Status()
	}
	switch status {
	case specs.StateCreated:
	case specs.StateStopped:
		return fmt.Errorf("container %q: cannot start a container that has stopped", id)
	case specs.StateRunning:
		return fmt.Errorf("container %q: cannot start an already running container", id)
	default:
		return fmt.Errorf("container %q: cannot start a container in the %s state", id, status)
	}
	if len(c.Tail) == 0 {
		// runtime.md, "Start": an error, and the container stays as it is.
		return fmt.Errorf("container %q: start: %w", id, &plan.FieldError{Field: "process", Err: errors.New("missing: there is nothing to run")})
	}
	n, err := newNotifier(c.dir, notify)
	if err != nil {
		return fmt.Errorf("container %q: start: %w", id, err)
	}
	defer n.close()
	if err := c.start(ctx); err != nil {
		if isHook(err) { // runtime.md, "Lifecycle": continue at step 12
			err = errors.Join(err, s.end(ctx, c, l))
		}
		return fmt.Errorf("container %q: start: %w", id, err)
	}
	if len(c.Poststart) == 0 && n == nil {
		return nil
	}
	l.release() // hooks may call us, and the container may take long
	if err := c.poststart(ctx); err != nil {
		return fmt.Errorf("container %q: start: %w", id, errors.Join(err, s.destroy(c)))
	}
	return n.relay(ctx, c.PID, c.PID)
}

// start lets the waiting process go on and waits until it has become the user's
// program.
func (c *Container) start(ctx context.Context) error {
	conn, err := c.knock()
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.Listener != nil {
		if err := tellSender(conn); err != nil {
			return err
		}
	}
	if _, err := unix.Write(int(conn.Fd()), []byte{'s'}); errors.Is(err, unix.EPIPE) {
		return ErrNotRunning // killed just now
	} else if err != nil {
		return err
	}
	// From here on the container runs, whatever becomes of us.
	if err := os.Remove(filepath.Join(c.dir, gateName)); err != nil {
		return err
	}
	report, err := c.report(ctx, conn, c.Frozen)
	if errors.Is(err, cgroup.ErrFrozen) {
		err = fmt.Errorf("the container is paused, and goes on when it is resumed: %w", err)
	}
	if err != nil {
		return err
	}
	if len(report) > 0 {
		// A stream can have more behind the report: another of a process that a filter keeps from ending,
		// or of one that waited for it.
		err := c.Tail.Explain(report[:min(len(report), program.ReportSize)])
		// It ends by itself. Callers delete it next: dockerd leaves a container behind that has not stopped by then.
		return errors.Join(err, c.awaitEnd(ctx))
	}
	return nil
}

// knock connects to the waiting process.
func (c *Container) knock() (conn *os.File, err error) {
	err = through(c.dir, gateName, func(path string) error {
		conn, err = connect(path)
		return err
	})
	if errors.Is(err, unix.ECONNREFUSED) {
		// A start before us was killed after it had started the container.
		return nil, errors.Join(errors.New("it has been started"), os.Remove(filepath.Join(c.dir, gateName)))
	}
	return conn, err
}

// Kill sends a signal to the container's process, or to all of its processes
// (runtime.md, "Kill").
func (s Store) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	c, err := s.Load(id)
	if err != nil {
		return err
	}
	switch {
	case all:
		err := s.killAll(ctx, c, sig)
		if errors.Is(err, ErrNotRunning) {
			return nil // there is nobody to be signalled
		}
		return err
	case sig == unix.SIGKILL && c.SharedPID && len(c.Cgroups) > 0:
		return s.killAll(ctx, c, sig) // what it leaves behind ends with it, as it would in a pid namespace
	case endsProgram(sig) && c.waiting():
		// The first process of a pid namespace does not notice signals that it
		// has no handler for (pid_namespaces(7)), and the program that would
		// have one has not begun.
		sig = unix.SIGKILL
	}
	return c.signal(sig)
}

// killAll sends a signal to all processes of a container. It locks it, as its
// control group can be that of the next container of its name.
func (s Store) killAll(ctx context.Context, c *Container, sig unix.Signal) (err error) {
	if sig == unix.SIGKILL {
		err = c.signal(sig) // also where a start holds the lock, which waits for a hook
		if len(c.Cgroups) == 0 && !c.SharedPID {
			return err // with its first process the others of a pid namespace end
		}
	}
	now, l, herr := s.hold(c.ID, false)
	defer func() { l.release() }()
	switch {
	case herr != nil:
		return herr
	case l == nil || now.PID != c.PID || now.StartTime != c.StartTime:
		return err
	}
	return errors.Join(err, now.signalAll(ctx, sig))
}

// endsProgram says whether a signal is what programs are asked to end with.
func endsProgram(sig unix.Signal) bool {
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT:
		return true
	}
	return false
}

// signalAll sends a signal to all processes of the container.
func (c *Container) signalAll(ctx context.Context, sig unix.Signal) error {
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	if err := m.Kill(ctx, sig); err != nil {
		return fmt.Errorf("container %q: %w", c.ID, err)
	}
	return nil
}

// signal sends a signal to the container's process and to no other that has
// got its number since: a pidfd cannot be reused.
func (c *Container) signal(sig unix.Signal) error {
	gone := fmt.Errorf("container %q: %w", c.ID, ErrNotRunning)
	if c.PID == 0 {
		return gone
	}
	fd, err := unix.PidfdOpen(c.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return gone
	}
	if err != nil {
		return fmt.Errorf("container %q: kill: %w", c.ID, err)
	}
	defer unix.Close(fd)
	if !c.alive() {
		return gone
	}
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return gone
	}
	if err == nil && sig == unix.SIGKILL {
		err = cgroup.Thaw(c.Cgroups)
	}
	if err != nil {
		return fmt.Errorf("container %q: kill: %w", c.ID, err)
	}
	return nil
}

// manager returns the container's control groups, or nil where it has none.
func (c *Container) manager() (cgroup.Manager, error) {
	if len(c.Cgroups) == 0 {
		return nil, nil
	}
	return c.cgroups()
}

// Delete removes a container that has stopped; with force, any (runtime.md,
// "Delete").
func (s Store) Delete(ctx context.Context, id string, force bool) error {
	c, l, err := s.hold(id, force)
	defer func() { l.release() }()
	if force && errors.Is(err, ErrNotExist) {
		// As runc: --force makes sure that it is gone. A create that was killed
		// before it had written a record left a directory and nothing else.
		if l == nil {
			return nil
		}
		return (&Container{dir: filepath.Join(s.Root, id)}).forget()
	}
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("cannot delete container %q that is not stopped: %s", id, specs.StateCreating)
	}
	if !force && c.phase() != specs.StateStopped {
		return fmt.Errorf("cannot delete container %q that is not stopped: %s", id, c.Status())
	}
	return s.end(ctx, c, l)
}

// end ends and deletes a container that is locked, and runs the hooks that
// follow.
func (s Store) end(ctx context.Context, c *Container, l *lock) error {
	if err := c.delete(ctx); err != nil {
		return err
	}
	l.release() // the name is free
	c.poststop(s.warn)
	return nil
}

// destroy ends and deletes a container whose hook has failed, unless somebody
// has deleted it meanwhile.
func (s Store) destroy(c *Container) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	now, l, err := s.hold(c.ID, true)
	defer func() { l.release() }()
	if errors.Is(err, ErrNotExist) || err == nil && (now.PID != c.PID || now.StartTime != c.StartTime) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.end(ctx, now, l)
}

func (c *Container) delete(ctx context.Context) error {
	m, err := c.manager()
	if err != nil {
		return err
	}
	if err := c.signal(unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if c.PID == 0 {
		// A create that was killed before it had a process may not even have
		// looked whether the control group was free: what is in it is another's.
		return c.removeUnstarted(ctx, m)
	}
	if m != nil && c.alive() {
		// Frozen processes die of this only, and not of the signal before.
		if err := m.Kill(ctx, unix.SIGKILL); err != nil {
			return fmt.Errorf("container %q: %w", c.ID, err)
		}
	}
	if err := c.awaitEnd(ctx); err != nil {
		return err
	}
	return c.remove(ctx, m)
}

// removeUnstarted removes a container that never had a process on record, and
// its control group where nobody else is in it.
func (c *Container) removeUnstarted(ctx context.Context, m cgroup.Manager) error {
	if m != nil && !emptied(ctx, m) {
		m = nil
	}
	return c.remove(ctx, m)
}

// emptied waits for a control group to become empty. A process that a killed
// create had just begun ends by itself, as nobody lets it go on; one that stays
// is another's.
func emptied(ctx context.Context, m cgroup.Manager) bool {
	for deadline := time.Now().Add(orphanTimeout); ; time.Sleep(time.Millisecond) {
		pids, err := m.Pids()
		if err != nil || len(pids) == 0 {
			return err == nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
	}
}

// orphanTimeout is ample for what a process does until it waits for its parent.
const orphanTimeout = 2 * time.Second

// remove removes all that is kept of a container whose process has ended, and
// ends what else runs in it.
func (c *Container) remove(ctx context.Context, m cgroup.Manager) error {
	if m != nil {
		if err := m.Destroy(ctx); err != nil {
			return fmt.Errorf("container %q: %w", c.ID, err)
		}
	}
	if c.Resctrl != nil {
		if err := c.Resctrl.Remove(); err != nil {
			return fmt.Errorf("container %q: %w", c.ID, err)
		}
	}
	if err := errors.Join(c.unmountRoot(), c.forget()); err != nil {
		return fmt.Errorf("container %q: %w", c.ID, err)
	}
	return nil
}

// awaitEnd waits until the container's process has ended.
func (c *Container) awaitEnd(ctx context.Context) error {
	if c.PID == 0 || !c.alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(cleanupTimeout)
	for c.alive() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("container %q: process %d does not end", c.ID, c.PID)
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100) // the loop looks again
	}
	return nil
}

// Processes are the ids of all processes of a container.
func (s Store) Processes(id string) ([]int, error) {
	c, err := s.Load(id)
	if err != nil {
		return nil, err
	}
	m, err := c.manager()
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	if m == nil {
		return c.inNamespace()
	}
	pids, err := m.Pids()
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return pids, nil
}
