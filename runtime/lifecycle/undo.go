package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
)

// undo removes all that was made, and returns why.
func (m *making) undo(why error) error {
	// The reason may be that the context has ended; cleaning up has its own time.
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	defer m.lock.release()
	errs := []error{why}
	if m.pid > 0 && errors.Is(why, cgroup.ErrFrozen) {
		errs = append(errs, m.cgroup.Kill(ctx, unix.SIGKILL))
	}
	errs = append(errs, m.settleDevices(false))
	m.end()
	if m.classed {
		errs = append(errs, m.class.Remove())
	}
	if m.made {
		errs = append(errs, m.cgroup.Destroy(ctx))
	}
	if m.told {
		if err := os.Remove(m.options.PIDFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	m.notifier.close()
	errs = append(errs, m.container.unmountRoot(), m.container.forget())
	if m.hooked {
		m.lock.release() // the name is free
		m.container.poststop(m.options.warn)
	}
	return errors.Join(errs...)
}

const cleanupTimeout = 10 * time.Second

func wait4(pid int) (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return ws, err
		}
	}
}
