package lifecycle_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/linux"
)

func nativeArch() linux.Arch {
	arch, _ := linux.NativeArch(runtime.GOARCH)
	return arch
}

// notify makes an agent answer calls of the container.
func (b *bundle) notify(a *agent, calls ...string) {
	b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: a.path, ListenerMetadata: "the\nmetadata",
		Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActNotify}}}
}

// An agent decides on the calls that a filter hands to it, also where those are
// the ones that the container's start needs.
func TestSeccompAgent(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	needed := []string{"mkdir", "mkdirat", "execve", "open", "openat", "openat2", "read", "close", "fcntl", "accept4", "setresuid", "capset", "prctl",
		"umask", "close_range", "sendmsg", "exit_group"}
	for name, change := range map[string]func(*bundle){
		"no new privileges": func(b *bundle) { b.Process.NoNewPrivileges = true },
		"new privileges":    func(b *bundle) { b.Process.NoNewPrivileges = false },
		"user":              func(b *bundle) { b.Process.User = specs.User{UID: 1000, GID: 1000} },
		"user namespace":    (*bundle).userNamespace,
		"killable wait": func(b *bundle) {
			b.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_TSYNC"}
		},
		"calls of ours":                    func(b *bundle) { b.Linux.Seccomp.Syscalls[0].Names = needed },
		"calls of ours and new privileges": func(b *bundle) { b.Linux.Seccomp.Syscalls[0].Names = needed; b.Process.NoNewPrivileges = false },
	} {
		t.Run(name, func(t *testing.T) {
			b, a := newBundle(t, "cd /dev/shm; mkdir x; echo $?; touch y && ls; sleep 0.1"), newAgent(t)
			b.Annotations = map[string]string{"key": "value"}
			b.notify(a, "mkdir", "mkdirat")
			change(b)
			want := lines("mkdir: can't create directory 'x': No medium found", "1", "y")
			if out, status := b.run(); out != want || status != 0 {
				t.Errorf("run: %d: %s", status, out)
			}
			<-a.states
			w, text := output(t)
			b.save()
			c, err := b.store.Create(t.Context(), b.options(w))
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			if len(a.states) > 0 {
				t.Error("the agent heard of a container that is not started")
			}
			if err := b.store.Start(t.Context(), b.id); err != nil {
				t.Error(err)
			}
			s := <-a.states
			if s.Version != specs.Version || s.Fds[0] != "seccompFd" || s.Pid != c.PID || s.Metadata != "the\nmetadata" ||
				s.State.ID != b.id || s.State.Status != specs.StateCreating || s.State.Pid != c.PID || s.State.Bundle != b.dir ||
				s.State.Annotations["key"] != "value" {
				t.Errorf("state %+v", s)
			}
			if out := text(); out != want {
				t.Errorf("start: %s", out)
			}
			b.awaitStatus(specs.StateStopped)
			if err := b.store.Delete(context.Background(), b.id, false); err != nil {
				t.Error(err)
			}
		})
	}
}

// Hooks of the container's have the agent, too, as with runc: each a listener of its own.
func TestSeccompAgentOfHooks(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for name, change := range map[string]func(*bundle){
		"no new privileges": func(b *bundle) { b.Process.NoNewPrivileges = true },
		"new privileges":    func(b *bundle) { b.Process.NoNewPrivileges = false },
		"calls of ours": func(b *bundle) {
			b.Linux.Seccomp.Syscalls[0].Names = []string{"mkdir", "mkdirat", "execve", "read", "setresuid", "capset"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, a := newBundle(t, "cat /dev/shm/hook; mkdir /dev/shm/y"), newAgent(t)
			hook := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "mkdir /dev/shm/x 2>>/dev/shm/hook; echo $? >>/dev/shm/hook; chmod 666 /dev/shm/hook"}, Env: []string{"PATH=/bin"}}
			b.Hooks = &specs.Hooks{StartContainer: []specs.Hook{hook, hook}}
			b.notify(a, "mkdir", "mkdirat")
			change(b)
			said := lines("mkdir: can't create directory '/dev/shm/x': No medium found", "1")
			want := lines(said, said, "mkdir: can't create directory '/dev/shm/y': No medium found")
			if out, status := b.run(); out != want || status != 1 {
				t.Errorf("run: %d: %s", status, out)
			}
			hooks := map[int]bool{}
			for range 2 {
				s := <-a.states
				hooks[s.Pid] = s.State.Pid != s.Pid
			}
			if s := <-a.states; s.Pid != s.State.Pid || len(hooks) != 2 || hooks[s.Pid] {
				t.Errorf("the agent heard of hooks %v, then of process %d of %d", hooks, s.Pid, s.State.Pid)
			}
			w, text := output(t)
			b.save()
			if _, err := b.store.Create(t.Context(), b.options(w)); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := b.store.Start(t.Context(), b.id); err != nil {
				t.Error(err)
			}
			if out := text(); out != want {
				t.Errorf("start: %s", out)
			}
			b.awaitStatus(specs.StateStopped)
			if err := b.store.Delete(t.Context(), b.id, false); err != nil {
				t.Error(err)
			}
		})
	}
}

// A further process has a filter, and so a listener, of its own.
func TestSeccompAgentOfExec(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, nnp := range []bool{true, false} {
		b, a := newBundle(t, "exec sleep 100"), newAgent(t)
		b.notify(a, "mkdir", "mkdirat", "execve", "read", "close")
		b.Process.NoNewPrivileges = nnp
		c := b.create()
		if err := b.store.Start(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		<-a.states
		w, text := output(t)
		p, err := b.store.Exec(t.Context(), lifecycle.ExecOptions{ID: b.id, Stdio: [3]*os.File{nil, w, w},
			Process: func(own *specs.Process) (*specs.Process, error) {
				own.Args = []string{"mkdir", "/dev/shm/x"}
				return own, nil
			}})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if s := <-a.states; s.Pid != p.PID || s.State.Pid != c.PID || s.State.Status != specs.StateRunning {
			t.Errorf("process %d of %d: state %+v", p.PID, c.PID, s)
		}
		status, err := p.Wait()
		if out := text(); out != "mkdir: can't create directory '/dev/shm/x': No medium found" || status != 1 || err != nil {
			t.Error(status, err, out)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Without an agent the calls fail, and without one at the start nothing starts.
func TestSeccompAgentGone(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b, a := newBundle(t, "mkdir /dev/shm/x"), newAgent(t)
	a.hangUp = true
	b.notify(a, "mkdir")
	if out, _ := b.run(); out != "mkdir: can't create directory '/dev/shm/x': Function not implemented" {
		t.Error(out)
	}
	for path, want := range map[string]string{
		filepath.Join(b.dir, "no.sock"):   "linux.seccomp.listenerPath: failed to connect with seccomp agent: connect " + b.dir + "/no.sock: no such file or directory",
		"@tare-test-nobody-listens-here":  "linux.seccomp.listenerPath: failed to connect with seccomp agent: connect @tare-test-nobody-listens-here: connection refused",
		strings.Repeat("/long", 40) + "/": "linux.seccomp.listenerPath: failed to connect with seccomp agent: ",
		"config.json":                     "connection refused",
	} {
		b.Linux.Seccomp.ListenerPath = path
		_, _, err := b.tryRun(t.Context())
		wantError(t, "run", err, want)
		b.wantNothing()
		b.save()
		null := openNull(t)
		if _, err := b.store.Create(t.Context(), b.options(null)); err != nil {
			t.Fatal(err)
		}
		wantError(t, "start", b.store.Start(t.Context(), b.id), want)
		b.awaitStatus(specs.StateStopped)
		if err := b.store.Delete(t.Context(), b.id, false); err != nil {
			t.Error(err)
		}
		b.wantNothing()
	}
	b.Linux.Seccomp.ListenerPath, b.Linux.Seccomp.ListenerMetadata = "", ""
	_, _, err := b.tryRun(t.Context())
	wantError(t, "no path", err, "linux.seccomp.listenerPath: not set, and SCMP_ACT_NOTIFY needs it")
	b.notify(a, "write")
	_, _, err = b.tryRun(t.Context())
	wantError(t, "write", err, "SCMP_ACT_NOTIFY cannot be used for the write syscall")
	// A path that nothing uses is ignored, as the specification wants.
	b.notify(a, "mkdir")
	b.Linux.Seccomp.Syscalls, b.Linux.Seccomp.ListenerPath = nil, "/nowhere"
	if out, status := b.run(); out != "" || status != 0 {
		t.Error(status, out)
	}
}

// A filter that refuses everything ends the container, and holds up nobody.
func TestSeccompRefusesEverything(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, errno := range []uint{1, 300} {
		for _, nnp := range []bool{true, false} {
			b := newBundle(t, "true")
			b.Linux.Seccomp, b.Process.NoNewPrivileges = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}, nnp
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, status, err := b.tryRun(ctx)
			cancel()
			if err == nil && status != 128+11 {
				t.Errorf("errno %d: status %d", errno, status)
			}
		}
	}
}

// A profile that says nothing is none, as in runc.
func TestEmptySeccomp(t *testing.T) {
	testenv.Root(t)
	b := newBundle(t, "grep Seccomp: /proc/self/status")
	b.Linux.Seccomp = &specs.LinuxSeccomp{}
	if out, _ := b.run(); out != "Seccomp:\t0" {
		t.Error(out)
	}
}
