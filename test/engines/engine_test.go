package engines

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long one command of an engine may take.
const patience = 60 * time.Second

// engine is the command line of an engine, in a test.
type engine struct {
	testing.TB
	// command prepares the engine's command, with the options that lead to the
	// test's own directories and to the runtime under test.
	command func(args ...string) *exec.Cmd
}

// in returns the engine for a subtest.
func (e engine) in(t testing.TB) engine { return engine{t, e.command} }

// run runs a command that has to succeed and returns what it wrote to stdout,
// without the last line's end.
func (e engine) run(args ...string) string {
	e.Helper()
	return e.input("", args...)
}

// input is run with something on stdin.
func (e engine) input(stdin string, args ...string) string {
	e.Helper()
	out, stderr, status := e.outcome(stdin, args...)
	if status != 0 {
		e.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), status, out, stderr)
	}
	return strings.TrimRight(out, "\r\n")
}

// says runs a command that has to succeed and to write exactly want.
func (e engine) says(want string, args ...string) {
	e.Helper()
	if got := e.run(args...); got != want {
		e.Errorf("%s: %q; want %q", strings.Join(args, " "), got, want)
	}
}

// mentions runs a command that has to succeed and whose output has to contain want.
func (e engine) mentions(want string, args ...string) {
	e.Helper()
	if got := e.run(args...); !strings.Contains(got, want) {
		e.Errorf("%s: no %q in:\n%s", strings.Join(args, " "), want, got)
	}
}

// fails runs a command that has to end with the status; the message, told on
// stderr, has to contain want.
func (e engine) fails(status int, want string, args ...string) {
	e.Helper()
	out, stderr, got := e.outcome("", args...)
	if got != status || !strings.Contains(strings.ToLower(stderr), want) {
		e.Errorf("%s: exit status %d; want %d and %q\n%s%s", strings.Join(args, " "), got, status, want, out, stderr)
	}
}

// outcome runs a command to its end, whatever that is.
func (e engine) outcome(stdin string, args ...string) (stdout, stderr string, status int) {
	e.Helper()
	cmd := e.command(args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	if stdin == "" {
		cmd.Stdin = nil
	}
	cmd.WaitDelay = 5 * time.Second
	if e := cmd.Start(); e != nil {
		return "", e.Error(), -1
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait() // what it returns is in ProcessState
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// terminal runs a command on a terminal, by script(1), and returns what appeared.
func (e engine) terminal(typed string, args ...string) string {
	e.Helper()
	inner := e.command(args...)
	var line strings.Builder
	for _, arg := range inner.Args {
		line.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "' ")
	}
	on := engine{e.TB, func(...string) *exec.Cmd {
		cmd := exec.Command("script", "--quiet", "--return", "--log-out", "/dev/null", "--command", "stty rows 33 cols 77; exec "+line.String())
		cmd.Env, cmd.SysProcAttr, cmd.Dir = inner.Env, inner.SysProcAttr, inner.Dir
		return cmd
	}}
	return on.input(typed)
}

// dir makes a directory for whoever the engine runs as.
func (e engine) dir() string {
	e.Helper()
	cmd := e.command()
	if cmd.SysProcAttr == nil {
		return e.TempDir()
	}
	dir, err := os.MkdirTemp(cmd.Dir, "dir")
	if err == nil {
		err = os.Chown(dir, int(cmd.SysProcAttr.Credential.Uid), int(cmd.SysProcAttr.Credential.Gid))
	}
	if err != nil {
		e.Fatal(err)
	}
	return dir
}

// write puts text into a new file and returns its directory.
func (e engine) write(name, text string) (dir string) {
	e.Helper()
	dir = e.dir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		e.Fatal(err)
	}
	return dir
}

// eventually waits until the condition holds.
func (e engine) eventually(what string, holds func() bool) {
	e.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not within half a minute: %s", what)
		}
	}
}

// onTerminal tells a container's shell to say where it is. The engine sets the
// size after the start, and podman 4.3 loses what comes last: so wait for both.
const onTerminal = "tty; until stty size 2>/dev/null | grep 77; do usleep 1000; done; usleep 300000"

// terminals tests run and exec with --tty, which podman and docker have alike.
func (e engine) terminals() {
	e.Helper()
	has := func(got string, want ...string) {
		e.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				e.Errorf("on a terminal: no %q in %q", w, got)
			}
		}
	}
	has(e.terminal("", "run", "--rm", "--tty", "base", "sh", "-c", onTerminal), "/dev/pts/0", "33 77")
	has(e.terminal("typed\n", "run", "--rm", "--interactive", "--tty", "base", "sh", "-c", "read x; echo =$x=; usleep 300000"), "=typed=")
	e.run("run", "--detach", "--tty", "--name", "tty", "base", "sleep", "1000")
	defer func() { e.run("kill", "tty"); e.run("rm", "--force", "tty") }()
	has(e.terminal("", "exec", "--tty", "tty", "sh", "-c", onTerminal), "/dev/pts/1", "33 77")
	e.fails(5, "", "exec", "--tty", "tty", "sh", "-c", "exit 5")
}
