package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Where the socket for notifications lies: below the state directory, and in
// the container, where it is runc's place.
const (
	notifyDir    = "notify"
	notifyName   = "notify.sock"
	notifyInside = "/run/notify"
)

// A notifier tells the service manager that a container is ready, when the
// container says so: sd_notify(3). The container gets a socket of its own, as
// what the service manager is told decides about its service.
type notifier struct {
	host   string // the service manager's socket
	socket *os.File
}

// newNotifier listens to the container in dir. It is nil where there is no
// service manager at host, or the container was created without one.
func newNotifier(dir, host string) (*notifier, error) {
	if host == "" {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), notifyName)
	err = through(filepath.Join(dir, notifyDir), notifyName, func(path string) error {
		// Another start may have been killed when it had made it.
		if err := os.Remove(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return err
		}
		return os.Chmod(path, 0o777) // for every user of the container
	})
	if err != nil {
		socket.Close()
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	return &notifier{host, socket}, nil
}

// addNotify adds the socket to a configuration.
func addNotify(s *specs.Spec, dir string) {
	s.Mounts = append(s.Mounts[:len(s.Mounts):len(s.Mounts)], specs.Mount{Destination: notifyInside, Source: filepath.Join(dir, notifyDir),
		Type: "bind", Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	s.Process.Env = append(s.Process.Env[:len(s.Process.Env):len(s.Process.Env)], "NOTIFY_SOCKET="+notifyInside+"/"+notifyName)
}

// relay waits until the container is ready, and tells the service manager so,
// and that mainPID stands for the service. It returns as well when the process
// pid has ended.
func (n *notifier) relay(ctx context.Context, pid, mainPID int) error {
	if n == nil {
		return nil
	}
	ready, err := n.await(ctx, pid)
	if err != nil || !ready {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: n.host}
	for _, message := range []string{"READY=1\n", "MAINPID=" + strconv.Itoa(mainPID) + "\n"} {
		if err := unix.Sendto(fd, []byte(message), 0, to); err != nil {
			return fmt.Errorf("notify %s: %w", n.host, err)
		}
	}
	return barrier(fd, to)
}

// close ends what newNotifier began.
func (n *notifier) close() {
	if n != nil {
		n.socket.Close()
	}
}

// await waits until the container says that it is ready, or ends.
func (n *notifier) await(ctx context.Context, pid int) (ready bool, err error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, nil // it has ended
	}
	defer unix.Close(process)
	const patience = 100 // milliseconds between looks at ctx
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(n.socket.Fd()), Events: unix.POLLIN}, {Fd: int32(process), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, patience); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("notify: poll: %w", err)
		}
		if fds[0].Revents != 0 {
			size, err := unix.Read(int(n.socket.Fd()), buf)
			if err != nil {
				return false, fmt.Errorf("notify: %w", err)
			}
			for line := range bytes.Lines(buf[:size]) {
				if string(bytes.TrimSpace(line)) == "READY=1" {
					return true, nil
				}
			}
		} else if fds[1].Revents != 0 {
			return false, nil
		}
	}
	return false, ctx.Err()
}

// barrierTimeout is sd_notify's own.
const barrierTimeout = 30 * time.Second

// barrier waits until the service manager has read what it was sent: it closes
// the descriptor that comes last (sd_notify_barrier(3)). One that does not know of it
// closes all descriptors that it gets.
func barrier(fd int, to unix.Sockaddr) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer unix.Close(pipe[0])
	err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(pipe[1]), to, 0)
	unix.Close(pipe[1])
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}}, int(barrierTimeout.Milliseconds())) // it has been told, at any rate
	return nil
}
