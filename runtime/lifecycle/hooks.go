package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// hookGrace is how long the output of a hook that has ended is waited for: a
// process that it left behind may hold the pipe for ever.
const hookGrace = 100 * time.Millisecond

// runHooks runs hooks in the runtime's namespace, one after the other, until
// one fails (config.md, "POSIX-platform Hooks").
func runHooks(ctx context.Context, kind string, hooks []specs.Hook, state []byte) error {
	for i, h := range hooks {
		if err := runHook(ctx, h, state); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h specs.Hook, state []byte) error {
	// What our caller leaked to us is not the hook's either.
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	var timeout time.Duration
	if h.Timeout != nil {
		timeout = time.Duration(min(*h.Timeout, 100*365*24*3600)) * time.Second
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errHookTimeout)
		defer cancel()
	}
	var stdout, stderr lastBytes
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // and nothing else
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), &stdout, &stderr
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.Is(context.Cause(ctx), errHookTimeout):
		return fmt.Errorf("hook ran past specified timeout of %.1fs", timeout.Seconds())
	case cmd.ProcessState == nil:
		return err // it did not begin
	}
	return withOutput(err, &stdout, &stderr)
}

var errHookTimeout = errors.New("hook ran past its timeout")

// withOutput adds what a failed hook said.
func withOutput(err error, stdout, stderr *lastBytes) error {
	return fmt.Errorf("%w, stdout: %s, stderr: %s", err, stdout, stderr)
}

// lastBytes keeps the end of what is written to it, which says more of a
// failure than the beginning.
type lastBytes struct {
	mu   sync.Mutex
	data []byte
}

const maxHookOutput = 4096 // bytes

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(l.data, p...)
	if len(l.data) > 2*maxHookOutput {
		l.data = append(l.data[:0], l.data[len(l.data)-maxHookOutput:]...)
	}
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.data[max(0, len(l.data)-maxHookOutput):]))
}

// inner is the parent's side of the hooks that run in the container's
// namespaces: the files with the state that they read, and what they say.
type inner struct {
	states   [2]*os.File
	out, err lastBytes
	reading  sync.WaitGroup
}

// state makes the file that a hook reads the container's state from. Its
// content is known when the process is there.
func (h *inner) state(i int) (*os.File, error) {
	fd, err := unix.MemfdCreate("state.json", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL came with 6.3
		fd, err = unix.MemfdCreate("state.json", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	h.states[i] = os.NewFile(uintptr(fd), "state.json")
	return h.states[i], nil
}

// output makes a pipe for the output of hooks and returns the end they write to.
func (h *inner) output(i int) (*os.File, error) {
	if i == 0 {
		return openFile("/dev/null", unix.O_RDWR)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	h.reading.Go(func() {
		defer r.Close()
		_, _ = io.Copy([...]io.Writer{1: &h.out, 2: &h.err}[i], r) // a pipe does not fail
	})
	return w, nil
}

// describe writes the state files, with the number that the process has for
// the hooks, and seals them.
func (h *inner) describe(c *Container) error {
	statuses := [...]specs.ContainerState{specs.StateCreating, specs.StateCreated}
	for i, f := range h.states {
		if f == nil {
			continue
		}
		pid, err := pidInside(c.PID)
		if err != nil {
			return err
		}
		s := c.State()
		s.Status, s.Pid = statuses[i], pid
		if _, err := f.Write(appendState(nil, &s)); err != nil {
			return fmt.Errorf("state for hooks: %w", err)
		}
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			return fmt.Errorf("state for hooks: seal: %w", err)
		}
	}
	return nil
}

func (h *inner) close() {
	for _, f := range h.states {
		if f != nil {
			f.Close()
		}
	}
	h.states = [2]*os.File{}
}

// explain adds what a hook said to the report of its failure.
func (h *inner) explain(err error) error {
	if !isHook(err) {
		return err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		h.reading.Wait()
	}()
	select {
	case <-read:
	case <-time.After(hookGrace):
	}
	return withOutput(err, &h.out, &h.err)
}

// isHook says whether an error is the failure of a hook in the container.
func isHook(err error) bool {
	var step *plan.StepError
	return errors.As(err, &step) && strings.HasPrefix(step.Field, "hooks.")
}

// pidInside is the number of a process in its own pid namespace.
func pidInside(pid int) (int, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	data, err := readBounded(unix.AT_FDCWD, path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			return strconv.Atoi(fields[len(fields)-1])
		}
	}
	return pid, nil // a kernel without pid namespaces
}

// createHooks runs the hooks of create in the runtime's namespace, while the
// process waits with its mounts made and before it changes its root.
func (m *making) createHooks(ctx context.Context) error {
	if !m.plan.WaitsForHooks() {
		return nil
	}
	if err := m.expect(ctx, plan.SaysHooks); err != nil {
		return err
	}
	m.hooked = true
	s := m.container.State()
	s.Status, s.Pid = specs.StateCreating, m.pid
	state, h := appendState(nil, &s), m.spec.Hooks
	//nolint:staticcheck // Prestart is deprecated, not gone
	if err := runHooks(ctx, "prestart", h.Prestart, state); err != nil {
		return err
	}
	if err := runHooks(ctx, "createRuntime", h.CreateRuntime, state); err != nil {
		return err
	}
	return m.release()
}

// poststart runs the hooks that follow the start of the user's program.
func (c *Container) poststart(ctx context.Context) error {
	if len(c.Poststart) == 0 {
		return nil
	}
	s := c.State()
	return runHooks(ctx, "poststart", c.Poststart, appendState(nil, &s))
}

// poststop runs the hooks that follow the deletion of a container. One that
// fails keeps no other from running.
func (c *Container) poststop(warn func(format string, args ...any)) {
	if len(c.Poststop) == 0 {
		return
	}
	s := specs.State{Version: c.OCIVersion, ID: c.ID, Status: specs.StateStopped, Bundle: c.Bundle, Annotations: c.Annotations}
	state := appendState(nil, &s)
	for i, h := range c.Poststop {
		// The deletion is done: whoever asked for it does not end its hooks.
		if err := runHook(context.Background(), h, state); err != nil {
			warn("container %q: error running poststop hook #%d: %v", c.ID, i, err)
		}
	}
}
