package lifecycle

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// A supervised is a process about to run a program under a filter that asks an
// agent (config-linux.md, "The Container Process State").
type supervised struct {
	listener *plan.Listener
	pid      int
	state    specs.State // of its container
	// alive says whether pid still is that process.
	alive func() bool
}

// report hears the container's process, and the hooks that it runs, until it has become
// its program, which is no message, or says why it cannot. On the way, where a filter has a
// listener, each of them says its number, and the agent gets it.
func (c *Container) report(ctx context.Context, conn *os.File, frozen func() (bool, error)) ([]byte, error) {
	for {
		message, sender, err := receiveFrom(ctx, conn, frozen)
		if err != nil || c.Listener == nil || len(message)%program.ReportSize != plan.ListenerSize {
			return message, err
		}
		state := c.State()
		// runc's word for it, and the specification's in its example.
		state.Status, state.Pid = specs.StateCreating, c.PID
		who := supervised{c.Listener, c.PID, state, c.alive}
		if sender != 0 && sender != c.PID {
			who.pid, who.alive = sender, func() bool { return c.alive() && isChild(sender, c.PID) }
		}
		if err := who.hear(conn, message[:plan.ListenerSize]); err != nil {
			return nil, err
		}
		if rest := message[plan.ListenerSize:]; len(rest) > 0 {
			return rest, nil // the filter has refused to read our answer
		}
	}
}

// tellSender makes a socket say which process each message comes from.
func tellSender(f *os.File) error {
	if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fmt.Errorf("setsockopt SO_PASSCRED: %w", err)
	}
	return nil
}

// isChild says whether a process is a child of another, as hooks are of the container's.
func isChild(pid, parent int) bool {
	data, err := readBounded(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/status")
	return err == nil && strings.Contains(string(data), "\nPPid:\t"+strconv.Itoa(parent)+"\n")
}

// passListener gives the agent the listener of a further process, which is our child
// and not waited for: its number is its own. It may say so before the process that
// shows it the way has told who it is.
func (x *execution) passListener(message []byte, sender int) error {
	alive := func() bool { return true }
	return supervised{x.plan.Listener, sender, x.container.State(), alive}.hear(x.family.sync, message)
}

// hear passes on the listener that a process has said the number of, and lets
// the process go on.
func (s supervised) hear(conn *os.File, message []byte) error {
	if err := s.send(binary.LittleEndian.Uint32(message)); err != nil {
		return &plan.FieldError{Field: "linux.seccomp.listenerPath", Err: err}
	}
	if _, err := unix.Write(int(conn.Fd()), []byte{'g'}); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("let the process go on: %w", err)
	}
	return nil
}

// send passes a listener and the container process state to the agent.
func (s supervised) send(number uint32) error {
	fd, err := s.take(number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	text, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName},
		Pid: s.pid, Metadata: s.listener.Metadata, State: s.state})
	if err != nil {
		return err
	}
	agent, err := connectAgent(s.listener.Path)
	if err != nil {
		return fmt.Errorf("failed to connect with seccomp agent: %w", err)
	}
	defer unix.Close(agent)
	rights := unix.UnixRights(fd)
	for len(text) > 0 {
		n, err := unix.SendmsgN(agent, text, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("failed to send to seccomp agent: %w", err)
		}
		text, rights = text[n:], nil // the descriptor only with the first part
	}
	return nil
}

// connectAgent opens a stream to the agent's socket.
func connectAgent(path string) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	// An agent that neither accepts nor reads must not hold us for ever.
	timeout := unix.NsecToTimeval(agentTimeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return fd, nil
}

// agentTimeout is how long an agent may take to accept, and to read, the state.
const agentTimeout = 10 * time.Second

// take gets a copy of a descriptor of the process (pidfd_getfd, Linux 5.6).
func (s supervised) take(number uint32) (int, error) {
	pidfd, err := unix.PidfdOpen(s.pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", s.pid, err)
	}
	defer unix.Close(pidfd)
	if !s.alive() {
		return -1, ErrNotRunning
	}
	fd, err := unix.PidfdGetfd(pidfd, int(number), 0)
	if err != nil {
		return -1, fmt.Errorf("take the listener from process %d: pidfd_getfd: %w", s.pid, err)
	}
	return fd, nil
}
