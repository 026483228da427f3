package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
)

// A Process is a container's running process that we are the parent of.
type Process struct {
	PID       int
	container *Container
	cgroup    cgroup.Manager
	lock      *lock
	notifier  *notifier
	warn      func(format string, args ...any)
	reaps     bool // orphans of the container are our children
	ended     bool
}

// Run creates a container and runs its program at once. The caller must Wait
// for the process and Close it.
func (s Store) Run(ctx context.Context, o CreateOptions) (*Process, error) {
	m, err := s.make(ctx, o, false)
	if err != nil {
		return nil, err
	}
	end := ctx
	if !m.plan.WaitsForHooks() {
		// Nothing makes it wait any more: whoever wants its end from here on can
		// send it a signal.
		end = context.WithoutCancel(ctx)
	}
	report, err := m.container.report(end, m.family.sync, m.cgroup.Frozen)
	if err == nil && len(report) > 0 {
		err = m.explain(report)
	}
	if err != nil {
		return nil, m.undo(err)
	}
	lock := m.lock
	m.lock = nil
	m.finish()
	p := &Process{PID: m.pid, container: m.container, cgroup: m.cgroup, lock: lock, notifier: m.notifier, warn: m.options.warn, reaps: m.reaps()}
	if err := lock.unlock(); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	if err := m.container.poststart(ctx); err != nil {
		return nil, errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	return p, nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) error {
	n, ok := sig.(unix.Signal)
	if !ok {
		return fmt.Errorf("container %q: signal %v", p.container.ID, sig)
	}
	return p.container.signal(n)
}

// Wait waits for the process to end and returns its exit status, as a shell
// counts it: 128 and the signal's number for a process that a signal ended.
func (p *Process) Wait() (status int, err error) {
	ws, err := p.wait()
	if err != nil {
		return 0, fmt.Errorf("container %q: wait: %w", p.container.ID, err)
	}
	p.ended = true
	return exitStatus(ws), nil
}

func (p *Process) wait() (unix.WaitStatus, error) {
	for p.reaps {
		var ws unix.WaitStatus
		switch pid, err := unix.Wait4(-1, &ws, 0, nil); {
		case pid == p.PID:
			return ws, nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return ws, err
		}
	}
	return wait4(p.PID)
}

// Notify tells the service manager when the container is ready, and that mainPID
// stands for its service. It returns when it has, or the container ends first.
func (p *Process) Notify(ctx context.Context, mainPID int) error {
	defer p.notifier.close()
	return p.notifier.relay(ctx, p.PID, mainPID)
}

func exitStatus(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// Close deletes the container, and ends it first where it still runs. Somebody
// else may have deleted it already.
func (p *Process) Close(ctx context.Context) error {
	var errs []error
	if !p.ended {
		errs = append(errs, unix.Kill(p.PID, unix.SIGKILL))
		_, err := wait4(p.PID)
		errs = append(errs, err)
	}
	defer p.lock.release()
	switch there, err := p.lock.relock(); {
	case err != nil:
		errs = append(errs, fmt.Errorf("container %q: lock: %w", p.container.ID, err))
	case there:
		errs = append(errs, p.container.remove(ctx, p.cgroup))
		p.lock.release()
		p.container.poststop(p.warn)
	}
	return errors.Join(errs...)
}
