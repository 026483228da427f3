package runtimecli_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A screen is a terminal's master, and what has been read from it.
type screen struct {
	t    testing.TB
	file *os.File
	text string
}

func newScreen(t testing.TB, fd int) *screen {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil { // for deadlines
		t.Fatal(err)
	}
	s := &screen{t, os.NewFile(uintptr(fd), "terminal"), ""}
	t.Cleanup(func() { s.file.Close() })
	return s
}

// expect reads until text appears, and forgets what came up to it.
func (s *screen) expect(text string) {
	s.t.Helper()
	if err := s.file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for !strings.Contains(s.text, text) {
		n, err := s.file.Read(buf)
		if err != nil {
			s.t.Fatalf("terminal: %v; read …%q, want %q", err, s.text[max(0, len(s.text)-500):], text)
		}
		s.text += string(buf[:n])
	}
	_, s.text, _ = strings.Cut(s.text, text)
}

func (s *screen) typing(text string) {
	s.t.Helper()
	if _, err := s.file.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) resize(height, width uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.file.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		s.t.Fatal(err)
	}
	// Fd has made it blocking again.
	if err := unix.SetNonblock(int(s.file.Fd()), true); err != nil {
		s.t.Fatal(err)
	}
}

// terminal makes the container want one.
func (b *bundle) terminal() {
	b.Process.Terminal = true
	b.Process.ConsoleSize = &specs.Box{Height: 30, Width: 100}
}

// console listens where create's --console-socket points to; master waits for
// the terminal that comes through.
func (b *bundle) console() (path string, master func() *screen) {
	b.t.Helper()
	path = filepath.Join(b.dir, "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { l.Close() })
	return path, func() *screen {
		b.t.Helper()
		if err := l.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			b.t.Fatal(err)
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			b.t.Fatal(err)
		}
		defer conn.Close()
		name, control := make([]byte, 64), make([]byte, 64)
		n, cn, _, _, err := conn.ReadMsgUnix(name, control)
		if err != nil {
			b.t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) != 1 {
			b.t.Fatalf("control messages: %v, %v", messages, err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 || string(name[:n]) != "/dev/ptmx" {
			b.t.Fatalf("descriptors %v with %q: %v", fds, name[:n], err)
		}
		unix.CloseOnExec(fds[0])
		if n, err := conn.Read(name); n != 0 || err == nil {
			b.t.Errorf("more comes through the console socket: %d bytes, %v", n, err)
		}
		return newScreen(b.t, fds[0])
	}
}

// The terminal that create makes: its size, its owner, and what it means to
// the process.
func TestTerminal(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const script = `tty; stty size; stat -c '%u %g %a' $(tty); test "$(stat -c %t,%T /dev/console)" = "$(stat -c %t,%T $(tty))" && echo console
		echo $(cut -d' ' -f6,8 /proc/self/stat); test $(cut -d' ' -f7 /proc/self/stat) != 0 && echo controlling
		ls -1 /proc/1/fd; echo to-console >/dev/console; read line; echo "[$line]"; exit 4`
	for name, uid := range map[string]uint32{"root": 0, "user": 1000} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, script)
			b.terminal()
			b.Process.User = specs.User{UID: uid, GID: uid}
			path, master := b.console()
			b.do("create", "--console-socket", path, "ID")
			screen := master()
			b.do("start", "ID")
			for _, want := range []string{
				"/dev/pts/0", "30 100", strconv.Itoa(int(uid)) + " 5 620", "console", "1 1", "controlling", "0\r\n1\r\n2\r\n", "to-console",
			} {
				screen.expect(want)
			}
			screen.typing("hello\n")
			screen.expect("[hello]")
			b.await(specs.StateStopped)
			b.do("delete", "ID")
		})
	}
	t.Run("detached run in a user namespace", func(t *testing.T) {
		b := newBundle(t, "tty; id -u; echo x >/dev/console; read wait")
		b.terminal()
		testenv.Run(t, "chown", "-R", "100000:100000", b.dir+"/rootfs")
		b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 2000}}
		b.Linux.GIDMappings = b.Linux.UIDMappings
		path, master := b.console()
		b.do("run", "--detach", "--console-socket="+path, "ID")
		screen := master()
		screen.expect("/dev/pts/0")
		screen.expect("0")
		screen.expect("x")
		// To hang up ends the session.
		screen.file.Close()
		b.await(specs.StateStopped)
		b.do("delete", "ID")
	})
}

// Keys reach the jobs of a shell inside as signals.
func TestJobControl(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "")
	b.terminal()
	b.Process.Args = []string{"sh", "-i"}
	b.Process.Env = append(b.Process.Env, "PS1=> ")
	path, master := b.console()
	b.do("create", "--console-socket", path, "ID")
	screen := master()
	b.do("start", "ID")
	screen.expect("> ")
	job := "sh -c 'echo u\"\"p; exec sleep 1000'\n" // what is printed differs from what is typed
	screen.typing(job)
	screen.expect("up\r\n")
	screen.typing("\x03")
	screen.expect("> ")
	screen.typing("echo status $?\n")
	screen.expect("status 130")
	screen.typing(job)
	screen.expect("up\r\n")
	screen.typing("\x1a")
	screen.expect("Stopped")
	screen.typing("exit 0\nexit 0\n") // the first one warns of the stopped job
	screen.expect("You have stopped jobs")
	b.await(specs.StateStopped)
	b.do("delete", "ID")
}

// pty makes a terminal as a user would sit in front of.
func pty(t testing.TB) (master *screen, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return newScreen(t, fd), slave
}

// run joins the container's terminal with ours: keys, output, size and, in the
// end, our terminal as it was.
func TestRunInTerminal(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, `stty size; trap 'stty size; stty size >/size' WINCH; while test ! -s /size; do echo ready; sleep 0.01; done
		echo resized; read line; echo "[$line]"; trap 'exit 9' INT; echo again; while :; do sleep 0.01; done`)
	b.Process.Terminal = true
	screen, slave := pty(t)
	screen.resize(11, 22)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.command("run", "ID")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen.expect("11 22")
	screen.expect("ready") // the handler is set
	screen.resize(33, 44)
	screen.expect("33 44")
	screen.expect("resized\r\n") // our terminal makes the line ends
	screen.typing("key\r")
	screen.expect("[key]")
	screen.expect("again")
	screen.typing("\x03") // the container's Ctrl-C, not that of tare-runtime
	if err := cmd.Wait(); exitCode(err) != 9 {
		t.Errorf("%v, want exit status 9", err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, err)
	}
}

// Input that is no terminal, and output that is none, work with a terminal
// inside too. Its settings are any new terminal's, but that the container's
// lines come as they were written (runc's tty.go clears ONLCR).
func TestRunWithTerminalInPipeline(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	_, fresh := pty(t)
	want, err := unix.IoctlGetTermios(int(fresh.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("%x:%x:%x:%x:", want.Iflag, want.Oflag&^unix.ONLCR, want.Cflag, want.Lflag)
	for _, key := range want.Cc {
		settings += fmt.Sprintf("%x:", key)
	}
	b := newBundle(t, "test -t 0 && echo terminal; stty -g; cat; exit 6")
	b.Process.Terminal = true
	cmd := b.command("run", "ID")
	cmd.Stdin = strings.NewReader("one\n")
	out, err := cmd.Output()
	if exitCode(err) != 6 || !strings.Contains(string(out), "terminal\n") || strings.Count(string(out), "one\n") != 2 {
		t.Errorf("%v, %q", err, out)
	}
	if !strings.Contains(string(out), strings.TrimSuffix(settings, ":")) {
		t.Errorf("settings\n%s\nwant %s", out, settings)
	}
}
