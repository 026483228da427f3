package program

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/runtime/linux"
)

// onEach runs a test with the interpreter of each architecture.
func onEach(t *testing.T, test func(t *testing.T, goarch string)) {
	for _, goarch := range []string{"amd64", "arm64"} {
		t.Run(goarch, func(t *testing.T) { test(t, goarch) })
	}
}

// run starts b's program with a pipe as descriptor 3 and returns what it wrote
// there and its exit status. What this machine can't execute runs under qemu.
func run(t *testing.T, b *Builder) (im *Image, out []byte, status int) {
	t.Helper()
	im, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files := []*os.File{nil, nil, nil, w}
	var wait func() int
	if b.GOARCH() == runtime.GOARCH {
		pid, err := im.Start(Start{Files: files, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		wait = func() int {
			var ws syscall.WaitStatus
			if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
				t.Fatal(err)
			}
			return ws.ExitStatus()
		}
	} else {
		cmd := emulated(t, b.GOARCH(), im)
		cmd.ExtraFiles = files[3:]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait = func() int {
			_ = cmd.Wait() // the status says it
			return cmd.ProcessState.ExitCode()
		}
	}
	w.Close()
	if out, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return im, out, wait()
}

func emulated(t *testing.T, goarch string, im *Image) *exec.Cmd {
	t.Helper()
	qemu, err := exec.LookPath("qemu-" + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[goarch] + "-static")
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip("needs qemu-user-static")
		}
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, im.ELF, 0o700); err != nil {
		t.Fatal(err)
	}
	return exec.Command(qemu, path)
}

func TestResultsBranchesAndErrnos(t *testing.T) {
	onEach(t, func(t *testing.T, goarch string) {
		b := NewBuilder(goarch, 3)
		hello, bye := b.String("hello "), b.String("bye ")
		done := b.NewLabel()
		// A descriptor that is only known at run time, used twice.
		fd := b.Call("fcntl", Const(3), Const(linux.F_DUPFD_CLOEXEC), Const(40)).Result()
		b.Call("write", fd, hello, Const(6))
		// A tolerated errno goes on; a zero result branches over the second write.
		b.Call("openat", Const(linux.AT_FDCWD), b.String("/nowhere/at/all"), Const(0), Const(0)).Tolerate(linux.ENOENT)
		b.Call("close", fd).OnZero(done)
		b.Call("write", Const(3), hello, Const(6))
		b.Bind(done)
		// A result in a word of the arena: an iovec whose length is what write returned.
		n := b.Call("write", Const(3), bye, Const(4)).Result()
		b.Call("writev", Const(3), b.Words(bye, n), Const(1))
		b.Call("exit_group", Const(7))
		_, out, status := run(t, b)
		if string(out) != "hello bye bye " || status != 7 {
			t.Fatalf("wrote %q, exit %d", out, status)
		}
	})
}

// A program can wait for a child, tell how it ended, and go on.
func TestReportOfAChild(t *testing.T) {
	for want, child := range map[Cause]func(b *Builder){
		{Status: 3 << 8}: func(b *Builder) { b.Call("exit_group", Const(3)) },
		{Status: 9}:      func(b *Builder) { b.Call("kill", b.Call("getpid").Result(), Const(9)) },
	} {
		onEach(t, func(t *testing.T, goarch string) {
			b := NewBuilder(goarch, 3)
			inChild, zero := b.NewLabel(), Const(0)
			b.Step(7)
			pid := b.Call("clone", Const(linux.SIGCHLD), zero, zero, zero, zero).OnZero(inChild).Result()
			status := b.Words(StatusWord())
			b.Call("wait4", pid, status, zero, zero)
			b.Report(status)
			b.Call("exit_group", zero)
			b.Bind(inChild)
			child(b)
			im, out, exit := run(t, b)
			if f, err := im.Failure(out); err != nil || f.Cause != want || f.Step != 7 || exit != 0 {
				t.Errorf("%+v, %v, exit %d; want %+v", f, err, exit, want)
			}
		})
	}
	onEach(t, func(t *testing.T, goarch string) {
		b := NewBuilder(goarch, 0)
		// The descriptor reported to is known to the report of our own, too.
		b.ReportTo(b.Call("dup", Const(3)).Result())
		b.Report(b.Words(TimeoutWord(5)))
		b.Call("exit_group", Const(0))
		im, out, _ := run(t, b)
		if f, err := im.Failure(out); err != nil || f.TimeoutSeconds != 5 {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

func TestFailureNamesTheCall(t *testing.T) {
	onEach(t, func(t *testing.T, goarch string) {
		b := NewBuilder(goarch, 3)
		b.Step(1)
		b.Call("getpid")
		b.Step(2)
		b.Call("openat", Const(linux.AT_FDCWD), b.String("/nowhere/at/all"), Const(0), Const(0)).Tolerate(linux.EPERM)
		b.Call("exit_group", Const(0))
		im, out, status := run(t, b)
		f, err := im.Failure(out)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Failure{Step: 2, Call: "openat", Strings: []string{"/nowhere/at/all"}, Cause: Cause{Errno: linux.ENOENT}}); !reflect.DeepEqual(f, want) || status != exitFailed {
			t.Fatalf("got %+v, exit %d; want %+v", f, status, want)
		}
		for _, bad := range [][]byte{nil, make([]byte, reportSize), bytes.Repeat([]byte{0xff}, reportSize)} {
			if _, err := im.Failure(bad); err == nil {
				t.Errorf("report %x is accepted", bad)
			}
		}
	})
}

func TestReportTo(t *testing.T) {
	onEach(t, func(t *testing.T, goarch string) {
		b := NewBuilder(goarch, 99) // closed: nothing could be reported
		b.ReportTo(b.Call("fcntl", Const(3), Const(linux.F_DUPFD_CLOEXEC), Const(50)).Result())
		b.Step(5)
		b.Call("close", Const(77))
		im, out, _ := run(t, b)
		if f, err := im.Failure(out); err != nil || f.Step != 5 || f.Errno != linux.EBADF {
			t.Fatalf("got %+v, %v", f, err)
		}
	})
}

func TestExecve(t *testing.T) {
	b := NewBuilder(runtime.GOARCH, 3)
	b.Call("dup3", Const(3), Const(1), Const(0))
	argv := b.Words(b.String("sh"), b.String("-c"), b.String("echo $0 $X; readlink /proc/$$/exe"), Const(0))
	b.Call("execve", b.String("/bin/sh"), argv, b.Words(b.String("X=y"), Const(0)))
	_, out, status := run(t, b)
	if !strings.HasPrefix(string(out), "sh y\n/") || status != 0 {
		t.Fatalf("got %q, exit %d", out, status)
	}
}

// The process must not be able to change its own executable.
func TestExecutableIsSealed(t *testing.T) {
	b := NewBuilder(runtime.GOARCH, 3)
	b.Step(1)
	b.Call("openat", Const(linux.AT_FDCWD), b.String("/proc/self/exe"), Const(linux.O_RDWR), Const(0)).Tolerate(13, 26)
	f := b.Call("openat", Const(linux.AT_FDCWD), b.String("/proc/self/exe"), Const(0), Const(0)).Result()
	b.Step(2)
	b.Call("ftruncate", f, Const(0)).Tolerate(linux.EPERM, linux.EINVAL)
	b.Call("exit_group", Const(0))
	if _, out, status := run(t, b); len(out) != 0 || status != 0 {
		t.Fatalf("got %x, exit %d", out, status)
	}
}

// Where a filter refuses every call, the report and the exit among them, the
// process crashes instead of running in circles.
func TestRefusedReportAndExit(t *testing.T) {
	for _, errno := range []uint32{linux.EPERM, 200} {
		b := NewBuilder(runtime.GOARCH, 3)
		zero := Const(0)
		b.Call("prctl", Const(linux.PR_SET_NO_NEW_PRIVS), Const(1), zero, zero, zero)
		refuse := binary.LittleEndian.AppendUint32([]byte{6, 0, 0, 0}, linux.SECCOMP_RET_ERRNO|errno)
		b.Call("seccomp", Const(linux.SECCOMP_SET_MODE_FILTER), zero, b.Words(Const(1), b.Bytes(refuse)))
		b.Call("getpid")
		im, err := b.Image()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := im.Start(Start{Files: make([]*os.File, 4)})
		if err != nil {
			t.Fatal(err)
		}
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || ws.Signal() != syscall.SIGSEGV {
			t.Errorf("errno %d: %v, %v", errno, ws.Signal(), err)
		}
	}
}

// Files that have to change places in the child do not get in the way of the
// program's own.
func TestManyFiles(t *testing.T) {
	b := NewBuilder(runtime.GOARCH, 3)
	b.Call("exit_group", Const(7))
	im, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for range 40 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append([]*os.File{f}, files...)
	}
	pid, err := im.Start(Start{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 7 {
		t.Errorf("status %v, %v", ws, err)
	}
}

func TestErrors(t *testing.T) {
	for name, build := range map[string]func(*Builder){
		"unknown system call": func(b *Builder) { b.Call("no_such_call") },
		"seven arguments":     func(b *Builder) { b.Call("getpid", make([]Arg, 7)...) },
		"unbound label":       func(b *Builder) { b.Call("getpid").OnZero(b.NewLabel()) },
	} {
		b := NewBuilder("amd64", 3)
		build(b)
		if _, err := b.Image(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := NewBuilder("riscv64", 3).Image(); err == nil {
		t.Error("an architecture without interpreter: no error")
	}
}

// The constants are what the assembler makes of the sources beside them.
func TestInterpreterIsAssembled(t *testing.T) {
	cmd := exec.Command("asm/generate.sh")
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip("needs GNU binutils for amd64 and arm64")
		}
		t.Fatal(err)
	}
	want, err := os.ReadFile("interpreter.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("interpreter.go is not what asm/generate.sh prints: run go generate")
	}
}

func BenchmarkStart(bench *testing.B) {
	for bench.Loop() {
		b := NewBuilder(runtime.GOARCH, 3)
		b.Call("exit_group", Const(0))
		im, err := b.Image()
		if err != nil {
			bench.Fatal(err)
		}
		pid, err := im.Start(Start{Files: make([]*os.File, 4)})
		if err != nil {
			bench.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			bench.Fatal(err)
		}
	}
}
