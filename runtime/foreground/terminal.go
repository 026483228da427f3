package foreground

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A terminal connects the container's terminal, where it wants one, with the
// one we run in.
type terminal struct {
	stdin, stdout *os.File
	ours, child   *os.File // the socket that the master comes through
	master        *os.File
	restore       func()
	copied        chan struct{}
}

// open makes the socket and returns the container's end.
func (t *terminal) open() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("terminal: socketpair: %w", err)
	}
	t.ours, t.child = os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
	t.copied = make(chan struct{})
	return t.child, nil
}

// attach takes the master that the container's process has sent, and relays
// until the container closes its end.
func (t *terminal) attach() error {
	if t.ours == nil {
		return nil
	}
	t.child.Close()
	control := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := unix.Recvmsg(int(t.ours.Fd()), make([]byte, 256), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("terminal: receive: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return errors.Join(errors.New("terminal: no descriptor received"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return errors.Join(errors.New("terminal: no descriptor received"), err)
	}
	// Non-blocking, so that the poller can interrupt a read when we close it.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	t.master = os.NewFile(uintptr(fds[0]), "terminal")
	t.resize()
	if t.stdin != nil && term.IsTerminal(int(t.stdin.Fd())) {
		state, err := term.MakeRaw(int(t.stdin.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: raw mode: %w", err)
		}
		t.restore = func() { _ = term.Restore(int(t.stdin.Fd()), state) } // the terminal may be gone
		if err := processOutput(int(t.stdin.Fd())); err != nil {
			return err
		}
	}
	// The Go runtime takes up to 10 ms to see that a read or a wait will last and to
	// let others on the processor. So each of the three that last has its own, also
	// where the command makes do with one otherwise.
	runtime.GOMAXPROCS(max(3, runtime.GOMAXPROCS(0)))
	if t.stdin != nil {
		go func() {
			// The end of our input is a Ctrl-D for the container; the relay ends with the process.
			if _, err := io.Copy(t.master, t.stdin); err == nil {
				_, _ = t.master.Write([]byte{4})
			}
		}()
	}
	go func() {
		defer close(t.copied)
		_, _ = io.Copy(t.stdout, t.master) // ends with EIO when the container's end is closed
	}()
	return nil
}

// processOutput lets a terminal in raw mode make line ends: the container's
// does not (plan.Facts.Foreground).
func processOutput(fd int) error {
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		mode.Oflag |= unix.OPOST
		err = unix.IoctlSetTermios(fd, unix.TCSETS, mode)
	}
	if err != nil {
		return fmt.Errorf("terminal: settings: %w", err)
	}
	return nil
}

// size is that of the terminal we run in, or nil where we do not.
func (t *terminal) size() *specs.Box {
	if t.stdin == nil {
		return nil
	}
	size, err := unix.IoctlGetWinsize(int(t.stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return nil
	}
	return &specs.Box{Height: uint(size.Row), Width: uint(size.Col)}
}

// resize gives the container's terminal the size of ours.
func (t *terminal) resize() {
	if t.master == nil || t.stdin == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(t.stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size) // the container may have ended
	}
}

// drain waits for the rest of the container's output. A process that the
// container left behind may hold its terminal, so the wait has an end.
func (t *terminal) drain() {
	if t.copied == nil {
		return
	}
	select {
	case <-t.copied:
	case <-time.After(time.Second):
	}
}

func (t *terminal) close() {
	if t.restore != nil {
		t.restore()
	}
	for _, f := range []*os.File{t.ours, t.child, t.master} {
		if f != nil {
			f.Close()
		}
	}
}
