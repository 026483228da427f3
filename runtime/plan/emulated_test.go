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
	p := arm64Plan(t, s, "keyring", "setrlimit", "find", "ready,", "no_new_privs", "drop", "groups", "user", "capset", "umask", "execve")
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

// Hooks in the container, too: each is a child of the program that reads the state, has the
// program's rights and is waited for. One with a deadline needs CLONE_PIDFD, which qemu-user has not.
func TestARM64Hooks(t *testing.T) {
	testenv.Root(t)
	for name, c := range map[string]struct {
		script, wrote, said string
		status              int
	}{
		"ends well": {`echo "$0 $X $(id -u) $(cat)" >>$LOG`, "hook y 1000 state\nhook y 1000 state\nprogram\n", "", 5},
		"fails":     {"exit 3", "", "error running startContainer hook #0: exit status 3", 255},
	} {
		t.Run(name, func(t *testing.T) {
			log, err := os.CreateTemp(t.TempDir(), "")
			if err == nil {
				err = errors.Join(log.Chmod(0o666), os.Chmod(filepath.Dir(log.Name()), 0o755), os.Chmod(filepath.Dir(filepath.Dir(log.Name())), 0o755))
			}
			if err != nil {
				t.Fatal(err)
			}
			s := spec.Example(false)
			s.Process.Terminal, s.Process.User = false, specs.User{UID: 1000, GID: 1000}
			s.Process.Args, s.Process.Env = []string{"sh", "-c", "echo program >>$LOG; exit 5"}, []string{"PATH=/bin:/usr/bin", "LOG=" + log.Name()}
			hook := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", c.script, "hook"}, Env: append(s.Process.Env, "X=y")}
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{hook, hook}}
			p := arm64Plan(t, s, "find", "no_new_privs", "groups", "user", "hook", "execve")
			if len(p.Files) != 6 || p.Files[4].Kind != plan.HookState || p.Files[5].Kind != plan.HookOutput {
				t.Fatalf("descriptors: %v", p.Files)
			}
			state, err := os.Create(filepath.Join(t.TempDir(), "state"))
			if err == nil {
				_, err = state.WriteString("state")
			}
			null, nerr := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err := errors.Join(err, nerr); err != nil {
				t.Fatal(err)
			}
			out, report, status := runARM64(t, p, state, null)
			said := ""
			if len(report) != 0 {
				im, err := p.Program()
				if err != nil {
					t.Fatal(err)
				}
				failure, err := im.Failure(report)
				if err != nil {
					t.Fatal(err)
				}
				said = p.Explain(failure).Error()
			}
			wrote, err := os.ReadFile(log.Name())
			if err != nil || string(wrote) != c.wrote || !strings.HasPrefix(said, c.said) || (said == "") != (c.said == "") || status != c.status {
				t.Errorf("exit status %d, wrote %q, printed %q, said %q; %v", status, wrote, out, said, err)
			}
		})
	}
}

// The whole program gets as far as qemu-user does, and says where that is.
func TestARM64ProgramReports(t *testing.T) {
	testenv.Root(t)
	s := spec.Example(false)
	s.Process.Terminal = false
	f := facts(s)
	f.Host.Arch, f.Wait, f.AtOnce = "arm64", false, true
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

// arm64Plan compiles a configuration and keeps the steps whose text begins with one of the words.
func arm64Plan(t *testing.T, s *specs.Spec, words ...string) *plan.Plan {
	t.Helper()
	f := facts(s)
	f.Host.Arch, f.Wait, f.AtOnce = "arm64", false, true
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	p.Steps = slices.DeleteFunc(p.Steps, func(step plan.Step) bool {
		op, _, _ := strings.Cut(step.Op.String(), " ")
		return !slices.Contains(words, op)
	})
	return p
}

// runARM64 runs a plan's program under qemu-user, with the parent's part of
// the conversation and what else it is started with.
func runARM64(t *testing.T, p *plan.Plan, more ...*os.File) (out string, report []byte, status int) {
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
	cmd.ExtraFiles = append([]*os.File{child}, more...) // descriptors from 3 on
	_ = cmd.Run()                                       // the status says it
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
