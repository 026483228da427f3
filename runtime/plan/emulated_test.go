//go:build linux

package plan_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// The arm64 program of a container runs under qemu-user from its first step to
// the user's program, less the steps whose system calls qemu-user has not: the
// new mount API, openat2, pivot_root's directories and seccomp.
func TestARM64Program(t *testing.T) {
	testenv.Root(t)
	s := spec.Example(false)
	s.Process.Terminal = false
	s.Process.Args = []string{"sh", "-c", "id -u; id -g; id -G; umask; ulimit -n; grep -E '^(NoNewPrivs|Cap...):' /proc/self/status; echo $X; exit 5"}
	s.Process.Env = []string{"PATH=/missing:/bin:/usr/bin", "X=y"}
	mask := uint32(0o27)
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5}, Umask: &mask}
	kill := []string{"CAP_KILL"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: kill, Effective: kill, Inheritable: kill, Ambient: kill}
	f := facts(s)
	f.Host.Arch, f.Wait = "arm64", false
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	p.Steps = slices.DeleteFunc(p.Steps, func(step plan.Step) bool {
		op, _, _ := strings.Cut(step.Op.String(), " ")
		return !slices.Contains([]string{"keyring", "setrlimit", "find", "ready,", "no_new_privs", "drop", "groups", "user", "capset", "umask", "execve"}, op)
	})
	if len(p.Steps) != 11 {
		t.Fatalf("steps: %v", p.Steps)
	}
	out, report, status := runARM64(t, p)
	if len(report) != 0 {
		im, err := p.Program()
		if err != nil {
			t.Fatal(err)
		}
		failure, err := im.Failure(report)
		t.Fatalf("%v, %v", p.Explain(failure), err)
	}
	want := "1000\n1001\n1001 5\n0027\n1024\n" +
		"CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\n" +
		"NoNewPrivs:\t1\ny\n"
	if out != want || status != 5 {
		t.Errorf("exit status %d, printed\n%s\nwant\n%s", status, out, want)
	}
}

// The whole program gets as far as qemu-user does, and says where that is.
func TestARM64ProgramReports(t *testing.T) {
	testenv.Root(t)
	s := spec.Example(false)
	s.Process.Terminal = false
	f := facts(s)
	f.Host.Arch, f.Wait = "arm64", false
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	im, err := p.Program()
	if err != nil {
		t.Fatal(err)
	}
	out, report, status := runARM64(t, p)
	failure, err := im.Failure(report)
	if err != nil {
		t.Fatalf("%v; exit status %d, printed %s", err, status, out)
	}
	if got := p.Explain(failure).Error(); status != 255 || !strings.HasSuffix(got, ": function not implemented (linux.rootfsPropagation)") {
		t.Errorf("exit status %d, %s", status, got)
	}
}

// runARM64 runs a plan's program under qemu-user, with the parent's part of
// the conversation.
func runARM64(t *testing.T, p *plan.Plan) (out string, report []byte, status int) {
	t.Helper()
	qemu := testenv.Tool(t, "qemu-aarch64-static")
	im, err := p.Program()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(file, im.ELF, 0o755); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	parent, child := os.NewFile(uintptr(pair[0]), "parent"), os.NewFile(uintptr(pair[1]), "child")
	defer parent.Close()
	defer child.Close()
	if _, err := parent.Write([]byte{'g'}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(qemu, file)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.ExtraFiles = []*os.File{child} // descriptor 3
	_ = cmd.Run()                      // the status says it
	child.Close()
	buf := make([]byte, 64)
	for {
		n, err := unix.Read(int(parent.Fd()), buf)
		if errors.Is(err, unix.ECONNRESET) {
			continue // it has not read our answer; what it said comes next
		}
		if n <= 0 {
			break
		}
		if n > 1 { // not "ready"
			report = slices.Clone(buf[:n])
		}
	}
	return text.String(), report, cmd.ProcessState.ExitCode()
}
