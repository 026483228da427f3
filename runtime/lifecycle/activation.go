package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// reaps says whether what the container leaves behind becomes ours.
func (m *making) reaps() bool { return m.options.Subreaper && sharesPIDs(m.spec) }

// activate adds to the configuration what connects the container's program with
// a service manager.
func (m *making) activate(dir string) {
	if m.spec.Linux == nil {
		m.spec.Linux = &specs.Linux{}
	}
	if m.spec.Process == nil {
		m.options.ListenFDs, m.options.NotifySocket = 0, ""
		return
	}
	if n := m.options.ListenFDs; n > 0 {
		env := m.spec.Process.Env
		m.spec.Process.Env = append(env[:len(env):len(env)], "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	if m.options.NotifySocket != "" {
		addNotify(m.spec, dir)
	}
}

// listenNotify makes the directory of the container's notify socket, and the
// socket where no start follows that would.
func (m *making) listenNotify(wait bool) error {
	if m.options.NotifySocket == "" {
		return nil
	}
	err := os.Mkdir(filepath.Join(m.container.dir, notifyDir), 0o755)
	if err == nil && !wait {
		m.notifier, err = newNotifier(m.container.dir, m.options.NotifySocket)
	}
	if err != nil {
		err = errors.Join(err, m.container.forget())
		m.lock.release()
	}
	return err
}

// sendPIDFD passes a descriptor of the process, by runc's name for it.
func (m *making) sendPIDFD() error {
	fd, err := unix.PidfdOpen(m.pid, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "standard")
	defer file.Close()
	return sendFile(m.options.PIDFDSocket, file)
}

// writePIDFile writes the process id where the engine will look for it, whole
// or not at all.
func writePIDFile(name string, pid int) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	_ = os.Remove(tmp) // left by a create that was killed
	// A link that somebody puts there meanwhile is not followed, nor a pipe opened.
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	_, err = f.Write(strconv.AppendInt(nil, int64(pid), 10))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("pid file: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}
