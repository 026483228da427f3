package lifecycle_test

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/linux"
)

// An agent answers the calls that filters hand to it: mkdir and its like with
// ENOMEDIUM, all others go on.
type agent struct {
	path   string
	states chan specs.ContainerProcessState
	// hangUp closes each listener instead of answering.
	hangUp bool
}

func newAgent(t testing.TB) *agent {
	t.Helper()
	a := &agent{path: filepath.Join(t.TempDir(), "agent.sock"), states: make(chan specs.ContainerProcessState, 8)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return // the test is over
			}
			if err := a.serve(conn); err != nil {
				t.Error("agent:", err)
			}
			conn.Close()
		}
	}()
	return a
}

// serve reads one container process state, to the end of the connection.
func (a *agent) serve(conn *net.UnixConn) error {
	text, oob := make([]byte, 1<<20), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return err
	}
	for {
		m, err := conn.Read(text[n:])
		if err != nil {
			break
		}
		n += m
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(text[:n], &state); err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return errors.Join(err, errors.New("no control message"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 || len(state.Fds) != 1 {
		return errors.Join(err, errors.New("not one descriptor"))
	}
	a.states <- state
	if a.hangUp {
		return unix.Close(fds[0])
	}
	go answer(fds[0])
	return nil
}

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const (
	ioctlReceive  = 0xc0502100
	ioctlSend     = 0xc0182101
	flagContinue  = 1
	noMedium      = 123
	listenerEnded = unix.POLLHUP
)

// answer answers until the last filtered process has ended.
func answer(fd int) {
	defer unix.Close(fd)
	native := nativeArch()
	mkdir, _ := linux.SyscallNumber(native, "mkdir")
	mkdirat, _ := linux.SyscallNumber(native, "mkdirat")
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if poll[0].Revents&listenerEnded != 0 {
			return
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the caller was killed meanwhile
		}
		r := response{id: n.id, flags: flagContinue}
		if int(n.nr) == mkdir || int(n.nr) == mkdirat {
			r = response{id: n.id, errno: -noMedium}
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&r))) // the same
	}
}
