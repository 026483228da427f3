package lifecycle_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// Whatever fails while a container is made names its cause, and leaves nothing.
func TestFailures(t *testing.T) {
	testenv.Root(t)
	args := func(args ...string) func(*bundle) { return func(b *bundle) { b.Process.Args = args } }
	for _, c := range []struct {
		name   string
		change func(*bundle)
		want   string
	}{
		{"no root file system", func(b *bundle) { b.Root.Path = "missing" }, "root.path"},
		{"a file as root file system", func(b *bundle) { b.Root.Path = "rootfs/bin/busybox" }, "root.path"},
		{"link in the place of proc", func(b *bundle) { // procfs would land where no path is masked (CVE-2019-19921)
			_ = os.Remove(b.path("rootfs", "proc"))
			b.mkdir("rootfs/p")
			b.symlink("/p", "rootfs/proc")
		}, `open "/proc" directory, no link: openat2: too many levels of symbolic links (mounts[0].destination)`},
		{"missing bind source", func(b *bundle) { b.mount("bind", "missing", "/x", "bind") }, `mounts[7].source: bind mount source "missing": no such file or directory`},
		{"unknown file system", func(b *bundle) { b.mount("nosuchfs", "", "/x", "") }, "fsopen: no such device (mounts[7])"},
		{"unknown mount option", func(b *bundle) { b.mount("tmpfs", "", "/x", "nosuchoption") }, "nosuchoption"},
		{"bad mount option", func(b *bundle) { b.mount("tmpfs", "", "/x", "size=much") }, `option "size=much": invalid argument (mounts[7].options)`},
		{"destination below a file", func(b *bundle) { b.mount("tmpfs", "", "/etc/passwd/x", "") }, "not a directory (mounts[7].destination)"},
		{"file on a directory", func(b *bundle) { b.write("f", "", 0o644); b.mount("bind", "f", "/etc", "bind") }, "(mounts[7])"},
		{"directory on a file", func(b *bundle) { b.mkdir("d"); b.mount("bind", "d", "/etc/passwd", "bind") }, "not a directory (mounts[7].destination)"},
		{"dangling link in a mount", func(b *bundle) {
			b.write("f", "", 0o644)
			b.symlink("/etc/stray", "d/l")
			b.mkdir("d/etc")
			b.mount("bind", "d", "/d", "bind")
			b.mount("bind", "f", "/d/l", "bind")
		}, "no such file or directory (mounts[8].destination)"},
		{"destination on a read-only mount", func(b *bundle) {
			b.mkdir("d")
			b.mount("bind", "d", "/d", "bind,ro")
			b.mount("tmpfs", "", "/d/x", "")
		}, "read-only file system (mounts[8].destination)"},
		{"device below a file", func(b *bundle) {
			b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null/x", Type: "c", Major: 1, Minor: 3}}
		}, "not a directory (linux.devices[0])"},
		{"unknown sysctl", func(b *bundle) { b.Linux.Sysctl = map[string]string{"net.ipv4.nosuch": "1"} }, "no such file or directory (linux.sysctl"},
		{"bad sysctl", func(b *bundle) { b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "maybe"} }, "write: invalid argument (linux.sysctl"},
		{"sysctl of the host", func(b *bundle) { b.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, "linux.sysctl"},
		{"unknown cgroup limit", func(b *bundle) { b.Linux.Resources.Unified = map[string]string{"memory.nosuch": "1"} }, "linux.resources.unified"},
		{"bad cgroup limit", func(b *bundle) {
			b.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "9999"}
		}, "linux.resources.cpu.cpus"},
		{"terminal without socket", func(b *bundle) { b.Process.Terminal = true }, "process.terminal: a terminal needs --console-socket"},
		{"invalid seccomp action", func(b *bundle) { b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_WHAT"} }, "linux.seccomp"},
		{"invalid seccomp architecture", func(b *bundle) {
			b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_PDP11"}}
		}, "linux.seccomp"},
		{"no command", args(), "process.args"},
		{"command not in PATH", args("nope", "x"), `exec: "nope": executable file not found in $PATH (process.args)`},
		{"command that is missing", args("/bin/nope"), `exec: "/bin/nope": no such file or directory (process.args)`},
		{"command that is no program", args("/etc/passwd"), `exec: "/etc/passwd": permission denied (process.args)`},
		{"command below a file", args("/etc/passwd/x"), `exec: "/etc/passwd/x": not a directory (process.args)`},
		{"working directory that is a file", func(b *bundle) { b.Process.Cwd = "/etc/passwd" }, "not a directory (process.cwd)"},
		{"working directory on a read-only mount", func(b *bundle) {
			b.mkdir("d")
			b.mount("bind", "d", "/d", "bind,ro")
			b.Process.Cwd = "/d/x"
		}, "read-only file system (process.cwd)"},
		{"several at once", func(b *bundle) { b.mount("bind", "missing", "/x", "bind"); b.Linux.RootfsPropagation = "up" }, "linux.rootfsPropagation"},
		{"annotations that no state file would be read with", func(b *bundle) {
			b.Annotations = map[string]string{"a": strings.Repeat("x", 1<<20)}
		}, "too many annotations"},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Leaks(t)
			b := newBundle(t, "true")
			c.change(b)
			_, _, err := b.tryRun(t.Context())
			wantError(t, "run", err, c.want)
			o := b.options(nil)
			o.PIDFile = b.path("pid")
			_, err = b.store.Create(t.Context(), o)
			wantError(t, "create", err, c.want)
			b.wantNothing()
			for _, stray := range []string{"d/etc/stray", "rootfs/etc/stray"} {
				if _, err := os.Lstat(b.path(stray)); err == nil {
					t.Errorf("%s was made", stray)
				}
			}
		})
	}
}

// A control group with processes is somebody's, who keeps it.
func TestControlGroupInUse(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	first := newBundle(t, "true")
	first.Linux.CgroupsPath = "/" + first.id
	c := first.create()
	second := newBundle(t, "true")
	second.Linux.CgroupsPath = first.Linux.CgroupsPath
	_, _, err := second.tryRun(t.Context())
	wantError(t, "run in the control group of another", err, "cgroup has processes")
	second.wantNothing()
	first.wantStatus(specs.StateCreated)
	for _, dir := range c.Cgroups {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

// wantNothing checks that nothing of the container is on disk.
func (b *bundle) wantNothing() {
	b.t.Helper()
	entries, _ := os.ReadDir(b.store.Root) // none is fine as well
	for _, e := range entries {
		b.t.Errorf("left behind: %s", filepath.Join(b.store.Root, e.Name()))
	}
	if _, err := os.Lstat(b.path("pid")); err == nil {
		b.t.Error("left behind: the pid file")
	}
}

// What fails once start was called is told by start, and the container is
// stopped.
func TestStartFailures(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		name   string
		change func(*bundle)
		want   string
	}{
		{"exec format", func(b *bundle) {
			b.write("rootfs/text", "neither ELF nor script", 0o755)
			b.Process.Args = []string{"/text"}
		}, `exec: "/text": exec format error (process.args)`},
		{"interpreter that is missing", func(b *bundle) {
			b.write("rootfs/script", "#!/bin/nope\n", 0o755)
			b.Process.Args = []string{"/script"}
		}, `exec: "/script": no such file or directory (process.args)`},
		{"directory", func(b *bundle) { b.Process.Args = []string{"/etc"} }, `exec: "/etc": permission denied (process.args)`},
		{"program for root only", func(b *bundle) {
			b.write("rootfs/own", "#!/bin/sh\n", 0o700)
			b.Process.Args = []string{"/own"}
			b.Process.User = specs.User{UID: 1000, GID: 1000}
		}, `exec: "/own": permission denied (process.args)`},
		{"user outside of the map", func(b *bundle) { b.userNamespace(); b.Process.User.UID = 5000 }, "invalid argument (process.user)"},
		{"filter that forbids execve", func(b *bundle) {
			b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"execve"}, Action: specs.ActErrno}}}
		}, `exec: "sh": operation not permitted (process.args)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Leaks(t)
			b := newBundle(t, "true")
			c.change(b)
			_, _, err := b.tryRun(t.Context())
			wantError(t, "run", err, c.want)
			b.wantNothing()
			b.create()
			wantError(t, "start", b.store.Start(t.Context(), b.id), c.want)
			b.wantStatus(specs.StateStopped) // at once
			if err := b.store.Delete(t.Context(), b.id, false); err != nil {
				t.Error(err)
			}
			b.wantNothing()
		})
	}
}

func TestBrokenConfigurations(t *testing.T) {
	testenv.Root(t)
	for text, want := range map[string]string{
		"{": "config.json: ",
		`{"ociVersion": "1.0.0", "process": {"args": "sh"}}`:                           "process.args: want an array",
		`{"ociVersion": "1.0.0", "root": {"path": 5}}`:                                 "root.path: want a string, got a number",
		`{"ociVersion": "1.0.0", "mounts": [{}, {"options": [1]}]}`:                    "mounts[1].options[0]: want a string, got a number",
		`{"ociVersion": "1.0.0", "process": {"args": ["sh"], "cwd": "relative"}}`:      "process.cwd",
		`{"ociVersion": "1.0.0", "root": {"path": "rootfs"}, "process": {"cwd": "/"}}`: "process.args",
		`{"ociVersion": "7.0.0"}`:                                                      "ociVersion",
	} {
		testenv.Leaks(t)
		b := newBundle(t, "true")
		b.write("config.json", text, 0o644)
		_, err := b.store.Create(t.Context(), b.options(nil))
		wantError(t, "create", err, want)
		b.wantNothing()
	}
	b := newBundle(t, "true")
	_, err := b.store.Create(t.Context(), b.options(nil))
	wantError(t, "create", err, "config.json: no such file or directory")
}

// Sockets, files and descriptors that the caller names and that are not there.
func TestCallersFailures(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		name   string
		change func(*bundle, *lifecycle.CreateOptions)
		want   string
	}{
		{"console socket that is missing", func(b *bundle, o *lifecycle.CreateOptions) {
			b.Process.Terminal, o.ConsoleSocket = true, b.path("missing.sock")
		}, "console socket: connect "},
		{"console socket that is a file", func(b *bundle, o *lifecycle.CreateOptions) {
			b.write("f", "", 0o644)
			b.Process.Terminal, o.ConsoleSocket = true, b.path("f")
		}, "connection refused"},
		{"console socket without a terminal", func(b *bundle, o *lifecycle.CreateOptions) { o.ConsoleSocket = b.path("f") }, "process.terminal"},
		{"terminal without devpts", func(b *bundle, o *lifecycle.CreateOptions) {
			b.Process.Terminal = true
			b.Mounts = append(b.Mounts[:2:2], b.Mounts[3:]...)
			o.Console = func() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }
		}, "no such file or directory (process.terminal)"},
		{"console that is no socket", func(b *bundle, o *lifecycle.CreateOptions) {
			b.Process.Terminal = true
			o.Console = func() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }
		}, "sendmsg: socket operation on non-socket (process.terminal)"},
		{"pid file in no directory", func(b *bundle, o *lifecycle.CreateOptions) { o.PIDFile = b.path("missing/pid") }, "pid file: "},
		{"pid file that is a directory", func(b *bundle, o *lifecycle.CreateOptions) { b.mkdir("d/x"); o.PIDFile = b.path("d") }, "pid file: "},
		{"descriptor to preserve", func(b *bundle, o *lifecycle.CreateOptions) { o.PreserveFDs = 500 }, "preserve"},
		{"masked root", func(b *bundle, o *lifecycle.CreateOptions) { b.Linux.MaskedPaths = []string{"/bin/.."} }, "linux.maskedPaths[0]: the container's root itself"},
		{"descriptors without end", func(b *bundle, o *lifecycle.CreateOptions) { o.PreserveFDs = math.MaxInt }, "preserve descriptor"},
		{"fewer descriptors than none", func(b *bundle, o *lifecycle.CreateOptions) { o.PreserveFDs = -1 }, "preserve -1 descriptors"},
		{"descriptors that are our own", func(b *bundle, o *lifecycle.CreateOptions) { o.PreserveFDs = 3 }, "preserve"},
		{"state directory that is a file", func(b *bundle, o *lifecycle.CreateOptions) {
			b.write("state", "", 0o644)
			b.store.Root = b.path("state")
		}, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Leaks(t)
			b := newBundle(t, "true")
			o := b.options(nil)
			c.change(b, &o)
			b.save()
			before := tree(t, b.dir)
			_, err := b.store.Create(t.Context(), o)
			wantError(t, "create", err, c.want)
			b.wantNothing()
			if after := tree(t, b.dir); after != before {
				t.Errorf("the bundle's directory was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// tree lists a directory, without what the container's mounts have added to
// its root file system.
func tree(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, "\n")
}

// An interrupted creation leaves nothing, whenever it is interrupted.
func TestCancelled(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := newBundle(t, "sleep 1000")
	if _, _, err := b.tryRun(ctx); err == nil {
		t.Error("run with a context that has ended: no error")
	}
	b.wantNothing()

	ctx, cancel = context.WithCancel(t.Context())
	b.Process.Terminal = true
	b.save()
	o := b.options(nil)
	o.Console = func() (*os.File, error) {
		// Nobody reads from the other end, and nobody has to.
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { unix.Close(pair[0]) })
		cancel()
		f := os.NewFile(uintptr(pair[1]), "console")
		t.Cleanup(func() { f.Close() })
		return f, nil
	}
	if _, err := b.store.Create(ctx, o); err == nil {
		t.Error("create interrupted in the middle: no error")
	}
	b.wantNothing()
}

// A process that the kernel ends for its memory limit is told of as such.
func TestMemoryTooSmall(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr[int64](4096)}
	_, _, err := b.tryRun(t.Context())
	wantError(t, "run", err, "linux.resources.memory.limit")
	b.wantNothing()
}

// A full disk where the state is kept.
func TestFullDisk(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.save()
	b.store.Root = b.path("state")
	b.mkdir("state")
	testenv.Tmpfs(t, b.store.Root, 16<<10)
	fill := b.path("state/fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		err = nil
	}
	f.Close()
	_, err = b.store.Create(t.Context(), b.options(nil))
	wantError(t, "create", err, "no space left on device")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	b.wantNothing()

	// The pid file's disk is full.
	if err := os.WriteFile(b.path("state/pid.fill"), make([]byte, 16<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	b.store.Root = b.path("other")
	o := b.options(nil)
	o.PIDFile = b.path("state/pid")
	_, err = b.store.Create(t.Context(), o)
	wantError(t, "create", err, "no space left on device")
	if got := tree(t, b.path("state")); got != "pid.fill" {
		t.Errorf("on the full disk: %s", got)
	}
	b.wantNothing()
}
