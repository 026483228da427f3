package criu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Notice says that CRIU has come to a point where its caller may act.
type Notice struct {
	Script string // "post-dump", "setup-namespaces", "post-restore"…
	PID    int
	// File comes with some notices: "orphan-pts-master" brings a terminal's master.
	File *os.File
}

// A Call is one request.
type Call struct {
	Operation Operation
	Options   Options
	// Stdio is CRIU's, and what restored processes may inherit.
	Stdio [3]*os.File
	// Extra are its descriptors from FirstExtra up.
	Extra []*os.File
	// Started is called with CRIU's process id before it hears what to do, and
	// may still change Options.
	Started func(pid int) error
	// Notice is called with each notice; an error ends the operation.
	Notice func(Notice) error
}

// FirstExtra is the descriptor of Call's first extra file: behind stdio and
// the socket.
const FirstExtra = 4

// ErrMissing is wrapped where there is no CRIU.
var ErrMissing = errors.New("criu is not installed")

// find returns CRIU's path. Engines often give us no PATH, and others one
// without the directories where it usually is.
func find() (string, error) {
	if path, err := exec.LookPath("criu"); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, "criu")); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: exec: \"criu\": executable file not found in $PATH", ErrMissing)
}

// Do runs CRIU. It returns the id of the restored process, which is our child.
func (c *Call) Do(ctx context.Context) (pid int, err error) {
	r, err := c.run(ctx)
	if err != nil {
		return 0, fmt.Errorf("criu %v: %w", c.Operation, err)
	}
	return r.pid, nil
}

// InstalledVersion asks CRIU for its version.
func InstalledVersion(ctx context.Context) (Version, error) {
	r, err := (&Call{Operation: version}).run(ctx)
	if err != nil {
		return Version{}, fmt.Errorf("criu version: %w", err)
	}
	return r.version, nil
}

func (c *Call) run(ctx context.Context) (r response, err error) {
	path, err := find()
	if err != nil {
		return r, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return r, fmt.Errorf("socketpair: %w", err)
	}
	conn, theirs := os.NewFile(uintptr(pair[0]), "criu"), os.NewFile(uintptr(pair[1]), "criu")
	defer conn.Close()
	cmd := exec.Command(path, "swrk", "3")
	cmd.ExtraFiles = append([]*os.File{theirs}, c.Extra...)
	for i, f := range c.Stdio {
		if f == nil {
			continue // an interface with a nil pointer is not nil
		}
		switch i {
		case 0:
			cmd.Stdin = f
		case 1:
			cmd.Stdout = f
		default:
			cmd.Stderr = f
		}
	}
	err = cmd.Start()
	theirs.Close() // now its end shows when CRIU ends
	if err != nil {
		return r, err
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(int(conn.Fd()), unix.SHUT_RDWR) }) // what fails then, says so
	defer stop()
	if c.Started != nil {
		err = c.Started(cmd.Process.Pid)
	}
	if err == nil {
		r, err = c.talk(conn)
	}
	_ = unix.Shutdown(int(conn.Fd()), unix.SHUT_RDWR) // CRIU ends, if it has not yet
	if werr := cmd.Wait(); err == nil && werr != nil && c.Operation != PreDump {
		// After a pre-dump CRIU waits for the next request, and takes our end for a failure.
		err = werr
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

// talk sends the request and answers notices until the answer comes.
func (c *Call) talk(conn *os.File) (response, error) {
	if err := send(conn, c.request()); err != nil {
		return response{}, err
	}
	for {
		m, file, err := receive(conn)
		if err != nil {
			return response{}, err
		}
		r, err := m.response()
		if err != nil || r.op != notify {
			if file != nil {
				file.Close()
			}
			if err == nil {
				err = c.verdict(r)
			}
			return r, err
		}
		if c.Notice != nil {
			err = c.Notice(Notice{r.script, r.about, file})
		}
		if file != nil {
			file.Close()
		}
		if serr := send(conn, goOn(err == nil)); err == nil {
			err = serr
		}
		if err != nil {
			return response{}, err
		}
	}
}

func (c *Call) verdict(r response) error {
	switch {
	case r.success && r.op == c.Operation:
		return nil
	case r.success:
		return fmt.Errorf("answer to %v", r.op)
	}
	text := "failed"
	if r.errno != 0 {
		text += ": " + unix.Errno(r.errno).Error()
	}
	reason := c.reason()
	if reason == "" {
		reason = strings.TrimPrefix(strings.TrimSpace(r.errText), "Error ")
	}
	if reason != "" {
		text += ": " + reason
	}
	return errors.New(text)
}

// reason finds the first error in CRIU's log.
func (c *Call) reason() string {
	dir := c.Options.Work
	if dir == nil {
		dir = c.Options.Images
	}
	if dir == nil || c.Options.Log == "" {
		return ""
	}
	fd, err := unix.Openat(int(dir.Fd()), c.Options.Log, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), c.Options.Log)
	defer f.Close()
	const maxLog = 16 << 20
	for lines := bufio.NewScanner(io.LimitReader(f, maxLog)); lines.Scan(); {
		// Kernels without TUN are usual, and that one is no reason.
		if _, text, ok := strings.Cut(lines.Text(), "Error "); ok && !strings.Contains(text, "criu/tun.c") {
			return fmt.Sprintf("%s (%s)", text, filepath.Join(dir.Name(), c.Options.Log))
		}
	}
	return ""
}

func send(conn *os.File, m message) error {
	for {
		_, err := unix.Write(int(conn.Fd()), m)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// maxMessage is what a message and its notices need, and more.
const maxMessage = 64 << 10

// receive reads a message, and the descriptor that may come with it.
func receive(conn *os.File) (message, *os.File, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, 256)
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(int(conn.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, errors.New("it ended without an answer")
	}
	var file *os.File
	if oobn > 0 {
		control, err := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range control {
			fds, ferr := unix.ParseUnixRights(&control[i])
			err = errors.Join(err, ferr)
			for _, fd := range fds {
				if file == nil {
					file = os.NewFile(uintptr(fd), "from criu")
					continue
				}
				unix.Close(fd)
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("descriptor: %w", err)
		}
	}
	return message(buf[:n]), file, nil
}
