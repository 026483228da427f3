package runtimes

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/measure"
)

// A Contender is one runtime. Its containers' names begin with its own.
type Contender struct {
	Name string
	path string
}

// Contenders are tare-runtime, built into dir, and those it is compared with.
func Contenders(dir string) ([]Contender, error) {
	ours, err := Build(dir)
	if err != nil {
		return nil, err
	}
	return []Contender{{"tare-runtime", ours}, {"crun", "crun"}, {"runc", "runc"}}, nil
}

// State is the directory where the runtime keeps its state.
func (c Contender) State() string { return filepath.Join(State, c.Name) }

// Args is the command line of one verb.
func (c Contender) Args(args ...string) []string {
	return append([]string{c.path, "--root", c.State()}, args...)
}

// Command is one verb.
func (c Contender) Command(ctx context.Context, args ...string) *exec.Cmd {
	all := c.Args(args...)
	return exec.CommandContext(ctx, all[0], all[1:]...)
}

// Run runs one verb, whose container may outlive it.
func (c Contender) Run(ctx context.Context, args ...string) error {
	_, err := measure.Run(c.Command(ctx, args...))
	return err
}

// AdoptOrphans makes this process the parent of what the runtimes leave running,
// as an engine's monitor is.
func AdoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_CHILD_SUBREAPER: %w", err)
	}
	return nil
}

// WaitForOrphans waits until all have ended. No command may be running.
func WaitForOrphans() error {
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait4: %w", err)
		}
	}
}
