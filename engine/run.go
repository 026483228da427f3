package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// RunOptions say what to run, and how. What is left out is as the image says,
// or else as docker has it.
type RunOptions struct {
	// Image is a name in the store, a registry reference (pulled when it is
	// missing), or oci:LAYOUT:TAG.
	Image string
	// Pull says how.
	Pull PullOptions
	// ID names the container: letters, digits and _+-. ; 64 random digits if empty.
	ID string

	// Args take the place of the image's Cmd.
	Args []string
	// Entrypoint takes the place of the image's, which makes its Cmd void too;
	// empty and not nil is none.
	Entrypoint []string
	// Env has NAME=VALUE, or NAME alone to take a variable away.
	Env []string
	// Workdir and User take the place of the image's.
	Workdir, User string
	// Hostname is by default the beginning of ID.
	Hostname string
	// Volumes are SRC:DST[:OPTION,OPTION…], with absolute paths.
	Volumes []string
	// ReadOnly makes the root file system read-only.
	ReadOnly bool
	// Network is "none", the default, with nothing but a loopback device, or
	// "host".
	Network string

	MemoryBytes int64 // 0 is no limit
	// MemorySwapBytes is the limit of memory and swap together; equal to
	// MemoryBytes is no swap, -1 any. 0 is twice MemoryBytes where the kernel
	// counts swap.
	MemorySwapBytes int64
	CPUs            float64 // 0 is no limit; 1.5 is one and a half processors' time
	PidsLimit       int64   // 0 is no limit

	// CapAdd and CapDrop have names with or without CAP_, or ALL.
	CapAdd, CapDrop []string
	// SecurityOpts have no-new-privileges, seccomp=unconfined or seccomp=FILE.
	SecurityOpts []string

	// Terminal gives the container a terminal.
	Terminal bool
	// Interactive lets it read Stdio[0], which is /dev/null otherwise.
	Interactive bool
	Stdio       [3]*os.File
	// Runtime is a program with runc's command line (runc or crun), by path or
	// by name; empty is our own, in process.
	Runtime string

	// Keep keeps the container when it has ended, for Commit, Changes and
	// RemoveContainer.
	Keep bool
}

// Run runs an image in a new container, in the foreground, and removes the
// container when it has ended, unless it is to be kept. It returns the exit status of the container's
// process, which is meaningless with an error; ExitStatus(err) is one for that.
//
// Signals are the container's once it runs; before, SIGINT, SIGTERM, SIGHUP and
// SIGQUIT end the preparation. So ctx must not be tied to signals. When ctx ends
// while the container runs, the container is killed.
func (e *Engine) Run(ctx context.Context, o RunOptions) (status int, err error) {
	ctx, handOver, stop := interruptible(ctx)
	defer stop()
	if !o.Interactive {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return 0, err
		}
		defer null.Close()
		o.Stdio[0] = null
	}
	err = e.withContainer(ctx, o, func(c *container, o RunOptions) (err error) {
		if o.Runtime != "" {
			status, err = external{e.options.RunRoot, o.Runtime}.run(ctx, c.id, c.bundle, o, handOver)
		} else {
			status, err = e.foreground(ctx, c, o, handOver)
		}
		if err == nil {
			c.record.Exit = &Exit{Status: status, Finished: time.Now().UTC()}
		}
		return commandError(err)
	})
	return status, err
}

// foreground runs the container with our own runtime. The container's process
// is forked by the calling thread, which has its root file system mounted.
func (e *Engine) foreground(ctx context.Context, c *container, o RunOptions, caught func()) (status int, err error) {
	defer context.AfterFunc(ctx, func() {
		// Before it runs there is nothing to kill: then ctx ends its creation.
		_ = e.options.runtime().Kill(context.WithoutCancel(ctx), c.id, unix.SIGKILL, true)
	})()
	create := lifecycle.CreateOptions{ID: c.id, Bundle: c.bundle, Stdio: o.Stdio, Warn: e.options.Warn}
	return foreground.Run(ctx, e.options.runtime(), create, foreground.Options{Caught: caught})
}

// interruptible ends the context on a signal that ends programs, until handOver
// is called by who has caught them as well by then. Until stop, no signal ends
// this program by itself.
func interruptible(parent context.Context) (ctx context.Context, handOver, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		if !signal.Ignored(s) { // as with nohup
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			cancel(&foreground.Interrupted{Signal: s})
		case <-ctx.Done():
		case <-over:
		}
	}()
	return ctx, func() { close(over) }, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// withContainer makes a container, calls use on a thread that has its root file
// system mounted, and closes it.
func (e *Engine) withContainer(ctx context.Context, o RunOptions, use func(*container, RunOptions) error) (err error) {
	if err := needRoot("run a container"); err != nil {
		return err
	}
	if o.ID == "" {
		o.ID = randomID()
	}
	if err := checkID(o.ID); err != nil {
		return err
	}
	if o.Runtime != "" {
		if o.Runtime, err = exec.LookPath(o.Runtime); err == nil {
			o.Runtime, err = filepath.Abs(o.Runtime)
		}
		if err != nil {
			return fmt.Errorf("runtime: %w", err)
		}
	}
	defer func() {
		if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
	}()
	e.sweep(ctx)
	release, err := e.lease(ctx, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer release()
	c, err := e.newContainer(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return inPrivateMounts(func() (err error) {
		unmount, err := c.mountRootfs(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unmount()) }()
		if err := c.configure(o); err != nil {
			return err
		}
		release() // the container's own record keeps its snapshots now
		return use(c, o)
	})
}
