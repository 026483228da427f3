package runtimecli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/cli/runtimecli"
	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/spec"
)

// The test binary is tare-runtime as well, under that name, and an attacker.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tare-runtime": func() { os.Exit(runtimecli.Main(os.Args[1:])) }, "swap-files": swapFiles})
}

// TestScripts runs testdata/script/*.txtar, the command line's behaviour. Besides
// testscript's own commands they have:
//
//	bundle DIR        make a bundle whose process is a shell in a busybox root
//	config DIR EXPR   change its config.json with jq
//	reap FILE         end the process whose number is in a file, an orphan that is ours: as long as it
//	                  is not waited for, its container's first process does not end either
//	detach COMMAND    exec for what leaves a process behind, which would keep exec's pipes open
//
// $ID, $ID2 are names for containers, and $ROOT, which tare-runtime finds by
// itself, is where their state is.
func TestScripts(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	jq := testenv.Tool(t, "jq")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ID", testenv.Name(t))
			env.Setenv("ID2", testenv.Name(t))
			env.Setenv("ROOT", filepath.Join(env.WorkDir, "state"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"bundle": func(ts *testscript.TestScript, _ bool, args []string) {
				dir := ts.MkAbs(args[0])
				ts.Check(makeRoot(filepath.Join(dir, "rootfs")))
				ts.Check(writeConfig(dir, exampleSpec()))
			},
			"detach": detach,
			"reap": func(ts *testscript.TestScript, _ bool, args []string) {
				pid, err := strconv.Atoi(ts.ReadFile(args[0]))
				ts.Check(err)
				ts.Check(unix.Kill(pid, unix.SIGKILL))
				_, err = unix.Wait4(pid, nil, 0, nil)
				ts.Check(err)
			},
			"config": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(filepath.Join(args[0], "config.json"))
				out, err := exec.Command(jq, args[1], path).Output()
				ts.Check(err)
				ts.Check(os.WriteFile(path, out, 0o644))
			},
		},
	})
}

func detach(ts *testscript.TestScript, neg bool, args []string) {
	out, err := os.CreateTemp(ts.Getenv("WORK"), ".output")
	ts.Check(err)
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	ts.Check(rerr)
	_, werr := ts.Stderr().Write(text)
	ts.Check(werr)
	if (err == nil) == neg {
		ts.Fatalf("%s: %v", cmd, err)
	}
}

const applets = "cat cut echo env false grep id kill ls mkdir ps readlink sed sh sleep sort stat stty test touch tr true tty wc"

// makeRoot makes a root file system with busybox.
func makeRoot(root string) error {
	for _, dir := range []string{"bin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		return err
	}
	for name := range strings.FieldsSeq(applets) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

// exampleSpec is runc's example without the terminal and with a root that can
// be written.
func exampleSpec() *specs.Spec {
	s := spec.Example(false)
	s.Process.Terminal, s.Root.Readonly = false, false
	s.Process.Env = []string{"PATH=/bin"}
	s.Process.Capabilities.Ambient = nil
	return s
}

func writeConfig(dir string, s *specs.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}

// A bundle is a container to be, and tare-runtime's command line for it.
type bundle struct {
	*specs.Spec
	t             testing.TB
	id, dir, root string
}

// newBundle makes a bundle whose process runs a shell script.
func newBundle(t testing.TB, script string) *bundle {
	t.Helper()
	testenv.Tool(t, "busybox")
	b := &bundle{Spec: exampleSpec(), t: t, id: testenv.Name(t), dir: t.TempDir()}
	b.root = filepath.Join(b.dir, "state")
	if err := makeRoot(filepath.Join(b.dir, "rootfs")); err != nil {
		t.Fatal(err)
	}
	b.Process.Args = []string{"sh", "-c", script}
	t.Cleanup(func() {
		if t.Failed() { // else the test has done it, or fails now
			_ = b.command("delete", "--force", "ID").Run()
		}
	})
	return b
}

// command is tare-runtime with a verb and its arguments, where ID stands for
// the container.
func (b *bundle) command(args ...string) *exec.Cmd {
	b.t.Helper()
	if err := writeConfig(b.dir, b.Spec); err != nil {
		b.t.Fatal(err)
	}
	all := []string{"--root", b.root}
	for _, arg := range args {
		if arg == "ID" {
			arg = b.id
		}
		all = append(all, arg)
	}
	cmd := exec.Command("tare-runtime", all...)
	cmd.Dir = b.dir
	return cmd
}

// do runs tare-runtime, which must not fail, and returns what it wrote. It does
// not write to pipes, which a container would keep open.
func (b *bundle) do(args ...string) string {
	b.t.Helper()
	cmd := b.command(args...)
	out, err := os.CreateTemp(b.dir, "output")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	if err != nil || rerr != nil {
		b.t.Fatalf("%s: %v, %v\n%s", cmd, err, rerr, text)
	}
	return strings.TrimRight(string(text), "\n")
}

// state is what tare-runtime says of the container.
func (b *bundle) state() (s specs.State) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.do("state", "ID")), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}
