package runtimecli_test

import (
	"bytes"
	"crypto/rand"
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

// running starts a container that runs until the test ends.
func running(t *testing.T, change func(*bundle)) *bundle {
	t.Helper()
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "trap 'exit 0' TERM; while :; do sleep 0.01; done")
	if change != nil {
		change(b)
	}
	b.do("run", "--detach", "ID")
	t.Cleanup(func() { b.do("delete", "--force", "ID") })
	return b
}

// What goes in and comes out is the same, however much, and each has its end.
func TestExecPassesStdio(t *testing.T) {
	b := running(t, nil)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data) // it never fails
	cmd := b.command("exec", "ID", "sh", "-c", "cat; echo end >&2; exec >&- 2>&-; exit 3")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, &errs
	if err := cmd.Run(); exitCode(err) != 3 || !bytes.Equal(out.Bytes(), data) || errs.String() != "end\n" {
		t.Errorf("%v, %d bytes of %d, %q", err, out.Len(), len(data), &errs)
	}
}

// The process has the descriptors it is given and no other.
func TestExecDescriptors(t *testing.T) {
	b := running(t, nil)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "0\n1\n2\n"},
		{[]string{"--preserve-fds", "2"}, "0\n1\n2\n3\n4\n"},
	} {
		cmd := b.command(append(append([]string{"exec"}, c.args...), "ID", "sh", "-c", "ls /proc/$$/fd; true")...)
		cmd.ExtraFiles = []*os.File{null, null, null, null, null}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%v: descriptors %q, %v, want %q", c.args, out, err, c.want)
		}
	}
	cmd := b.command("exec", "--preserve-fds", "1", "ID", "true")
	if out, err := cmd.CombinedOutput(); exitCode(err) != 255 || !strings.Contains(string(out), "preserve descriptor 3: it is not open") {
		t.Errorf("%v, %s", err, out)
	}
}

// exec passes signals on to its process and not to the container's.
func TestExecForwardsSignals(t *testing.T) {
	testenv.Hangups(t)
	b := running(t, nil)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGTSTP} {
		cmd := b.command("exec", "ID", "sh", "-c", fmt.Sprintf("trap 'exit 50' %d; echo ready; while :; do sleep 0.01; done", int(sig)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		awaitCaught(t, cmd.Process.Pid)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); exitCode(err) != 50 {
			t.Errorf("%v: %v, want exit status 50", sig, err)
		}
	}
	if s := b.state().Status; s != specs.StateRunning {
		t.Errorf("container is %s", s)
	}
}

// exec -t joins the terminal of the process with ours.
func TestExecInTerminal(t *testing.T) {
	b := running(t, nil)
	screen, slave := pty(t)
	screen.resize(11, 22)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.command("exec", "--tty", "ID", "sh", "-c", `tty; stty size; echo $(cut -d' ' -f6,8 /proc/self/stat) $$
		read line; echo "[$line]"; trap 'exit 9' INT; echo again; while :; do sleep 0.01; done`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen.expect("/dev/pts/0")
	screen.expect("11 22\r\n")
	screen.typing("key\r")
	screen.expect("[key]")
	screen.expect("again")
	screen.typing("\x03")
	if err := cmd.Wait(); exitCode(err) != 9 {
		t.Errorf("%v, want exit status 9", err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, err)
	}
}

// An engine gets the terminal through its socket, and tells with a process.json
// that it wants one.
func TestExecConsoleSocket(t *testing.T) {
	b := running(t, func(b *bundle) { b.Process.User = specs.User{UID: 1000, GID: 1000} })
	const process = `{"terminal": true, "consoleSize": {"height": 30, "width": 100}, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 7},
		"args": ["sh", "-c", "tty; stty size; stat -c '%u %g %a' $(tty); echo x >/dev/tty; read line; echo \"[$line]\""]}`
	if err := os.WriteFile(filepath.Join(b.dir, "process.json"), []byte(process), 0o644); err != nil {
		t.Fatal(err)
	}
	path, master := b.console()
	b.do("exec", "--process", "process.json", "--detach", "--tty", "--console-socket", path, "--pid-file", "pid", "ID")
	screen := master()
	for _, want := range []string{"/dev/pts/0", "30 100", "1000 5 620", "x"} {
		screen.expect(want)
	}
	screen.typing("hello\n")
	screen.expect("[hello]")
	b.reap("pid")
}

// reap waits for an orphan of a detached exec, which has become ours.
func (b *bundle) reap(pidFile string) (status unix.WaitStatus) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, pidFile))
	if err != nil {
		b.t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err == nil {
		_, err = unix.Wait4(pid, &status, 0, nil)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return status
}

// --pidfd-socket passes a descriptor of the process.
func TestExecPidfdSocket(t *testing.T) {
	b := running(t, nil)
	path := filepath.Join(b.dir, "pidfd")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.do("exec", "--detach", "--pid-file", "pid", "--pidfd-socket", path, "ID", "sleep", "1000")
	if err := l.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	control := make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), control)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	defer unix.Close(fds[0])
	if err := unix.PidfdSendSignal(fds[0], unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
	if status := b.reap("pid"); status.Signal() != unix.SIGKILL {
		t.Errorf("the process of the pid file ended with %v", status)
	}
}
