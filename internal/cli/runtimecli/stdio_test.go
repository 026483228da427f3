package runtimecli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// The container has the descriptors it is given and no other, whatever its
// caller has left open.
func TestDescriptors(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const list = "ls /proc/1/fd; true" // not in a pipeline, for which the shell opens some itself
	leak := func(n int) (files []*os.File) {
		for range n {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			files = append(files, f)
		}
		return files
	}
	for _, c := range []struct {
		name string
		args []string
		fds  int // the caller leaves open, from 3 up
		want string
	}{
		{"none but stdio", nil, 0, "0\n1\n2\n"},
		{"leaked by the caller", nil, 13, "0\n1\n2\n"},
		{"preserved", []string{"--preserve-fds", "2"}, 2, "0\n1\n2\n3\n4\n"},
		{"preserved, and more leaked", []string{"--preserve-fds=2"}, 13, "0\n1\n2\n3\n4\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, list)
			cmd := b.command(append(append([]string{"run"}, c.args...), "ID")...)
			cmd.ExtraFiles = leak(c.fds)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("descriptors %q, %v; want %q", out, err, c.want)
			}
			// The same for create and start, which are different processes.
			file, err := os.Create(b.dir + "/out")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			create := b.command(append(append([]string{"create"}, c.args...), "ID")...)
			create.Stdout = file
			create.ExtraFiles = leak(c.fds)
			if err := create.Run(); err != nil {
				t.Fatal(err)
			}
			start := b.command("start", "ID")
			start.ExtraFiles = leak(13)
			if err := start.Run(); err != nil {
				t.Fatal(err)
			}
			b.await(specs.StateStopped)
			if got, err := os.ReadFile(file.Name()); err != nil || string(got) != c.want {
				t.Errorf("descriptors after create and start %q, %v; want %q", got, err, c.want)
			}
			b.do("delete", "ID")
		})
	}
	t.Run("preserved that are not there", func(t *testing.T) {
		b := newBundle(t, list)
		cmd := b.command("run", "--preserve-fds", "3", "ID")
		cmd.ExtraFiles = leak(2)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "preserve descriptor 5: it is not open") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("a preserved one can be used", func(t *testing.T) {
		b := newBundle(t, "echo through >&3")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := b.command("run", "--preserve-fds", "1", "ID")
		cmd.ExtraFiles = []*os.File{w}
		out, err := cmd.CombinedOutput()
		w.Close()
		got := make([]byte, 64)
		n, _ := r.Read(got)
		if err != nil || string(got[:n]) != "through\n" {
			t.Errorf("%q, %v\n%s", got[:n], err, out)
		}
	})
}

// await waits until the container is in a state.
func (b *bundle) await(want specs.ContainerState) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if b.state().Status == want {
			return
		}
	}
	b.t.Fatalf("container is %s, and does not become %s", b.state().Status, want)
}

// Pipes and files that are another user's can be opened again through
// /dev/stdout by the container's user, as many programs do.
func TestStdioBelongsToTheUser(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, userns := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace %v", userns), func(t *testing.T) {
			b := newBundle(t, "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin")
			b.Process.User = specs.User{UID: 1000, GID: 1000}
			if userns {
				testenv.Run(t, "chown", "-R", "100000:100000", b.dir+"/rootfs")
				b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 2000}}
				b.Linux.GIDMappings = b.Linux.UIDMappings
			}
			cmd := b.command("run", "ID")
			var out, errs bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in\n"), &out, &errs
			if err := cmd.Run(); err != nil || out.String() != "out\nin\n" || errs.String() != "err\n" {
				t.Errorf("%v, %q, %q", err, &out, &errs)
			}
		})
	}
	t.Run("a file of somebody else, on which nothing can be changed", func(t *testing.T) {
		b := newBundle(t, "echo out")
		b.Process.User = specs.User{UID: 1000, GID: 1000}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		cmd := b.command("run", "ID")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(null.Fd()), &st); err != nil || st.Uid != 0 {
			t.Errorf("/dev/null now belongs to %d, %v", st.Uid, err)
		}
	})
}

// run passes signals on, and its exit status is the container's.
func TestRunForwardsSignals(t *testing.T) {
	testenv.Hangups(t)
	testenv.Root(t)
	testenv.Leaks(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGTSTP, unix.SIGCONT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			b := newBundle(t, fmt.Sprintf("trap 'exit 50' %d; echo ready; while :; do sleep 0.01; done", int(sig)))
			cmd := b.command("run", "ID")
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
				t.Errorf("%v, want exit status 50", err)
			}
		})
	}
}

// awaitCaught waits until run has asked for all signals, which it does a
// little after it has begun. Of those that Go programs have no handler for
// before they ask, SIGTTOU is the last that they get one for.
func awaitCaught(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), "SigCgt:\t")
		caught, err := strconv.ParseUint(rest[:16], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if caught&(1<<(unix.SIGTTOU-1)) != 0 {
			return
		}
	}
	t.Fatalf("process %d does not catch signals", pid)
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}
