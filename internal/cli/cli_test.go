package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tare-oci/tare/internal/cli/runtimecli"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestMain lets the test binary be tare and tare-runtime, too: tests find both
// in PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tare":         func() { os.Exit(Main(os.Args[1:])) },
		"tare-runtime": func() { os.Exit(runtimecli.Main(os.Args[1:])) },
	})
}

// TestScripts runs the scripts that need nothing but this module.
func TestScripts(t *testing.T) {
	testenv.Leaks(t)
	runScripts(t, "testdata/script/offline/*.txtar", nil)
}

// TestScriptsWithRegistry runs those that pull from a real registry and run
// containers. They find in the environment:
//
//	REGISTRY   address of a registry with small, medium and multiarch
//	AUTH       address of one with small, for the user gopher with the password burrow
//	IMAGES     directory of the same images as layouts
func TestScriptsWithRegistry(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	images := testenv.Images(t)
	registry, auth := testenv.Registry(t), testenv.RegistryAuth(t, "gopher", "burrow")
	for _, name := range []string{"small", "medium", "multiarch"} {
		testenv.PushLayout(t, registry, filepath.Join(images, name), "latest", name)
	}
	testenv.PushLayout(t, auth, filepath.Join(images, "small"), "latest", "small", "--dest-creds=gopher:burrow")
	for _, tool := range []string{"skopeo", "runc"} {
		testenv.Tool(t, tool)
	}
	runScripts(t, "testdata/script/*.txtar", map[string]string{"REGISTRY": registry, "AUTH": auth, "IMAGES": images})
}

func runScripts(t *testing.T, pattern string, vars map[string]string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	// As a group, so that what cleans up after t waits for all of them.
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Files:               files,
			WorkdirRoot:         t.TempDir(), // removed also where -run chooses some of the scripts
			RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("TARE_ROOT", filepath.Join(env.WorkDir, "root"))
				env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
				env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
				for name, value := range vars {
					env.Setenv(name, value)
				}
				return nil
			},
			Condition: func(cond string) (bool, error) {
				if cond != "root" {
					return false, fmt.Errorf("unknown condition %q", cond)
				}
				return os.Geteuid() == 0, nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": statusCommand, "interrupt": interruptCommand},
		})
	})
}

// statusCommand is "status N COMMAND...": it must end with exit status N.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		status = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(status) != want {
		ts.Fatalf("exit status %d, want %s", status, want)
	}
}

// interruptCommand is "interrupt SIGNAL TEXT COMMAND...": the command gets the
// signal as soon as its output has the text. Its exit status must be the
// signal's.
func interruptCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt SIGNAL TEXT COMMAND [ARG...]")
	}
	sig := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"PATH", "TARE_ROOT", "TMPDIR", "HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	cmd.Stderr = cmd.Stdout
	ts.Check(cmd.Start())
	var seen strings.Builder
	lines, sent := bufio.NewScanner(out), false
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		if !sent && strings.Contains(lines.Text(), args[1]) {
			sent = true
			ts.Check(cmd.Process.Signal(sig))
		}
	}
	err = cmd.Wait()
	ts.Logf("%s", &seen)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !sent || !ok || exit.ExitCode() != 128+int(sig) {
		ts.Fatalf("interrupted by %v at %q: %v, want exit status %d", sig, args[1], err, 128+int(sig))
	}
}
