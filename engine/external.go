package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/host"
)

// external is a runtime with runc's command line, as a program.
type external struct {
	runRoot string
	program string
}

// root is where the program keeps its state of our containers.
func (x external) root() string {
	return filepath.Join(x.runRoot, filepath.Base(x.program))
}

// run runs the container in dir in the foreground. It must be called on the
// thread that has the container's root file system mounted.
func (x external) run(ctx context.Context, id, dir string, o RunOptions, caught func()) (status int, err error) {
	log := filepath.Join(dir, "runtime.log")
	cmd := exec.Command(x.program, "--root", x.root(), "--log", log, "--log-format", "json", "run", "--bundle", dir, id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Stdio[0], o.Stdio[1], o.Stdio[2]
	// In a process group of its own it gets the signals that we get only once,
	// from us. With a terminal it must stay in the terminal's foreground group;
	// there, keys make no signals for us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !o.Terminal}
	signals := make(chan os.Signal, 64)
	foreground.CatchAll(signals)
	defer signal.Stop(signals)
	caught()
	if err := context.Cause(ctx); err != nil { // a signal that came before
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("runtime: %w", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go relay(ctx, signals, ended, cmd.Process, func() {
		_ = x.delete(context.WithoutCancel(ctx), id) // the runtime's end tells
	})
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		err = fmt.Errorf("runtime: %w", err)
	} else {
		status, err = exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), loggedError(log)
	}
	return status, errors.Join(err, x.delete(context.WithoutCancel(ctx), id))
}

func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// relay passes signals to a process until ended is closed, and calls kill when
// ctx ends.
func relay(ctx context.Context, signals <-chan os.Signal, ended <-chan struct{}, p *os.Process, kill func()) {
	done := ctx.Done()
	for {
		select {
		case <-ended:
			return
		case <-done:
			kill()
			done = nil
		case sig := <-signals:
			if sig != unix.SIGCHLD && sig != unix.SIGURG && sig != unix.SIGPIPE && sig != unix.SIGWINCH {
				_ = p.Signal(sig) // it may have ended just now
			}
		}
	}
}

// loggedError is the error that the runtime has logged, if any: its exit status
// alone could be the container's.
func loggedError(log string) error {
	data, err := os.ReadFile(log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var found error
	for line := range bytes.Lines(data) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) != nil || entry.Level != "error" && entry.Level != "fatal" {
			continue
		}
		found = classify(errors.New("runtime: " + entry.Msg))
	}
	return found
}

// classify finds out by its words whether the user's command is what is wrong.
func classify(err error) error {
	said := strings.ToLower(err.Error())
	if !strings.Contains(said, "exec") {
		return err
	}
	for text, notFound := range map[string]bool{
		"not found in $path": true, "no such file or directory": true,
		"permission denied": false, "exec format error": false, "is a directory": false,
	} {
		if strings.Contains(said, text) {
			return kindOfCommandError(err, notFound)
		}
	}
	return err
}

// call has the program do something to a container.
func (x external) call(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, x.program, append([]string{"--root", x.root()}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("runtime: %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// delete ends a container and removes what the runtime has of it.
func (x external) delete(ctx context.Context, id string) error {
	if exists(filepath.Join(x.root(), id)) {
		err := x.call(ctx, "delete", "--force", id)
		if err != nil && exists(filepath.Join(x.root(), id)) { // not gone by itself meanwhile
			return err
		}
	}
	// A runtime whose container ends while it deletes it may leave the cgroup.
	machine, err := host.Probe()
	if err != nil || machine.CgroupMode == host.CgroupNone {
		return err
	}
	m, err := cgroup.New(machine, cgroup.Options{Path: cgroupsPath(id), ID: id})
	if err != nil {
		return err
	}
	return m.Destroy(ctx)
}
