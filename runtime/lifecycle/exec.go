package lifecycle

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// ExecOptions are what a further process of a container is made from.
type ExecOptions struct {
	ID string
	// Process makes the configuration of the process from that of the
	// container's own, which it may change and return.
	Process func(own *specs.Process) (*specs.Process, error)
	// Stdio, ConsoleSocket, Console, ConsoleSize, PIDFile, PreserveFDs, Begin,
	// Warn and Debug are as in CreateOptions.
	Stdio         [3]*os.File
	ConsoleSocket string
	Console       func() (*os.File, error)
	ConsoleSize   *specs.Box
	PIDFile       string
	PreserveFDs   int
	Begin         func()
	Warn, Debug   func(message string)
	// PIDFDSocket is the path of a unix socket that takes a pidfd of the process.
	PIDFDSocket string
	// Cgroups are the control groups to run in, below the container's own, by
	// controller; the one for "" is in all hierarchies.
	Cgroups map[string]string
	// IgnorePaused waits for a paused container to go on, instead of failing.
	IgnorePaused bool
}

// An ExecProcess is a process that Exec has started, our child.
type ExecProcess struct {
	PID   int
	pidfd *os.File
	ended bool
}

// Exec runs one more program in a container, and returns once it runs. The
// caller either waits for the process and closes it, or leaves it to run when
// the caller itself ends.
func (s Store) Exec(ctx context.Context, o ExecOptions) (_ *ExecProcess, err error) {
	x := &execution{options: o}
	if x.container, err = s.Load(o.ID); err != nil {
		return nil, err
	}
	if x.init, err = x.container.openProcess(); err != nil {
		return nil, err
	}
	defer x.init.Close()
	if x.machine, err = host.Probe(); err != nil {
		return nil, err
	}
	if err := x.chooseCgroup(); err != nil {
		return nil, err
	}
	if err := x.configure(); err != nil {
		return nil, err
	}
	if o.Begin != nil {
		o.Begin()
	}
	if err = x.start(); err == nil {
		err = x.await(ctx)
	}
	if err == nil {
		err = x.announce()
	}
	if err != nil {
		return nil, x.undo(err)
	}
	x.family.sync.Close()
	return &ExecProcess{PID: x.pid, pidfd: x.pidfd}, nil
}

// An execution is a process on its way into a container.
type execution struct {
	options   ExecOptions
	container *Container
	init      *os.File // pidfd of the container's first process
	machine   host.Facts
	cgroup    cgroup.Manager
	// joinsItself: the process is not cloned into its version 2 control group.
	joinsItself bool
	spec        *specs.Spec
	plan        *plan.Plan
	image       *program.Image
	family      *family
	scout       int // process that enters the container; 0 when it was waited for
	pid         int // process that runs the program: the same, or its successor
	pidfd       *os.File
}

// openProcess opens the container's process where it has one that lives.
func (c *Container) openProcess() (*os.File, error) {
	switch c.phase() {
	case specs.StateCreating:
		return nil, fmt.Errorf("cannot exec in a container that is being created: %w", ErrNotRunning)
	case specs.StateStopped:
		return nil, fmt.Errorf("cannot exec in a stopped container: %w", ErrNotRunning)
	}
	fd, err := unix.PidfdOpen(c.PID, 0)
	// If it is another's by now, the container's has ended since we looked.
	if errors.Is(err, unix.ESRCH) || err == nil && !c.alive() {
		err = errors.Join(fmt.Errorf("cannot exec in a stopped container: %w", ErrNotRunning), closeFD(fd))
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func closeFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// configure compiles the program.
func (x *execution) configure() (err error) {
	if x.spec, err = x.container.execSpec(x.options.Process); err != nil {
		return err
	}
	p := x.spec.Process
	if p.Terminal && x.options.ConsoleSize != nil {
		p.ConsoleSize = x.options.ConsoleSize
	}
	if p.Terminal && x.options.ConsoleSocket == "" && x.options.Console == nil {
		return errors.New("cannot allocate tty without a console socket")
	}
	if x.spec.Linux.Namespaces, err = x.otherNamespaces(); err != nil {
		return err
	}
	f := &plan.Facts{Host: x.machine, ID: x.container.ID, Bundle: x.container.Bundle,
		NoNewKeyring: x.container.NoNewKeyring}
	if f.PreserveFDs, err = preserved(x.options.PreserveFDs); err != nil {
		return err
	}
	if f.AwaitCgroup = x.attached(); x.cgroup != nil && !f.AwaitCgroup {
		CgroupFacts(f, x.cgroup.Paths())
		if x.joinsItself {
			f.CgroupFiles = 1
		}
	}
	if !hasHome(p.Env) {
		f.Home = x.container.home(p.User.UID)
	}
	f.Foreground = x.options.Console != nil
	if err := processFacts(x.spec, f); err != nil {
		return err
	}
	if x.plan, err = plan.CompileExec(x.spec, f); err != nil {
		return err
	}
	for _, w := range x.plan.Warnings {
		if x.options.Warn != nil {
			x.options.Warn(w)
		}
	}
	if x.image, err = x.plan.Program(); err == nil {
		debugger(x.options.Debug).plan(x.plan, x.image)
	}
	return err
}

// start runs the program.
func (x *execution) start() (err error) {
	src := sources{stdio: x.options.Stdio, init: x.init}
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	var dir *os.File
	if x.cgroup != nil && !x.attached() {
		src.cgroups, dir, err = x.cgroupFiles()
		if opened = append(opened, src.cgroups...); dir != nil {
			opened = append(opened, dir)
		}
		if err != nil {
			return err
		}
	}
	if x.container.HostRoot != 0 {
		if src.root, err = x.openRoot(); err != nil {
			return err
		}
		opened = append(opened, src.root)
	}
	p := x.spec.Process
	if p.Terminal {
		if src.console, err = x.console(); err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		if x.options.ConsoleSocket != "" {
			opened = append(opened, src.console)
		}
	}
	if x.family, err = assemble(x.plan, src); err != nil {
		return err
	}
	defer x.family.closeOpened()
	uid, gid := hostID(p.User.UID, x.spec.Linux.UIDMappings), hostID(p.User.GID, x.spec.Linux.GIDMappings)
	if uid != 0 && !p.Terminal {
		ownStdio(src.stdio, uid, gid)
	}
	if x.container.Resctrl == nil && !x.attached() {
		// It may go on as soon as it asks: we do nothing for it but wait.
		if err := x.release(); err != nil {
			return err
		}
	}
	return onInitialCPUs(p.ExecCPUAffinity, func() error {
		s := program.Start{Files: x.family.files, CgroupDir: dir, Dir: x.container.dir}
		x.scout, err = x.image.Start(s)
		if err != nil && dir != nil {
			x.scout, err = x.startElsewhere(s, err)
		}
		return err
	})
}

func (x *execution) console() (*os.File, error) {
	if x.options.ConsoleSocket != "" {
		return connect(x.options.ConsoleSocket)
	}
	return x.options.Console()
}

// await hears what becomes of the process, until it says no more: then it has
// ended, or execve has closed its end.
func (x *execution) await(ctx context.Context) error {
	var failure []byte
	for {
		m, sender, err := receiveFrom(ctx, x.family.sync, x.frozen)
		if err != nil {
			return err
		}
		switch len(m) {
		case 0:
			return x.arrived(failure)
		case plan.PIDSize:
			x.pid = int(binary.LittleEndian.Uint64(m))
		case program.ReportSize:
			failure = m
		case 1: // it waits for us
			if err := x.answer(m[0]); err != nil {
				return err
			}
		case plan.ListenerSize:
			if err := x.passListener(m, sender); err != nil {
				return err
			}
		}
	}
}

func (x *execution) release() error {
	if _, err := unix.Write(int(x.family.sync.Fd()), []byte{'g'}); err != nil {
		return fmt.Errorf("let the process go on: %w", err)
	}
	return nil
}

// classify puts the process where resctrl has its container, and lets it go on.
func (x *execution) classify() error {
	if x.container.Resctrl == nil {
		return nil
	}
	if err := x.container.Resctrl.Add(cmp.Or(x.pid, x.scout)); err != nil {
		return &plan.FieldError{Field: "linux.intelRdt", Err: err}
	}
	return x.release()
}

// arrived waits for the process that only showed the way.
func (x *execution) arrived(failure []byte) error {
	if !x.plan.Forks() {
		x.pid, x.scout = x.scout, 0
	} else if _, err := wait4(x.scout); err != nil {
		return fmt.Errorf("wait for the process that entered the container: %w", err)
	} else {
		x.scout = 0
	}
	if failure != nil {
		f, err := x.image.Failure(failure)
		if err != nil {
			return err
		}
		return x.plan.Explain(f)
	}
	if x.pid == 0 {
		return errors.New("the process ended on its way into the container")
	}
	return nil
}

// announce tells all who want to know of the process. It is our child and not
// waited for, so its number is its own even if it has ended.
func (x *execution) announce() error {
	fd, err := unix.PidfdOpen(x.pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd of process %d: %w", x.pid, err)
	}
	x.pidfd = os.NewFile(uintptr(fd), "setns")
	if x.options.PIDFDSocket != "" {
		if err := sendFile(x.options.PIDFDSocket, x.pidfd); err != nil {
			return fmt.Errorf("pidfd socket: %w", err)
		}
	}
	if x.options.PIDFile != "" {
		return writePIDFile(x.options.PIDFile, x.pid)
	}
	return nil
}

// sendFile passes a descriptor, with its name, to whoever listens at path.
func sendFile(path string, f *os.File) error {
	conn, err := connect(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	return unix.Sendmsg(int(conn.Fd()), []byte(f.Name()), unix.UnixRights(int(f.Fd())), nil, 0)
}

// undo ends the processes, and returns why.
func (x *execution) undo(why error) error {
	if x.family != nil && x.family.sync != nil {
		x.family.sync.Close()
	}
	for _, pid := range []int{x.scout, x.pid} {
		if pid > 0 { // our own child, not reaped: the number is still its
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
			reap(pid)
		}
	}
	if x.pidfd != nil {
		x.pidfd.Close()
	}
	return why
}

// reap waits for a killed process, unless it is frozen: then it dies when its
// container goes on, and init reaps it.
func reap(pid int) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); got == pid || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Signal sends a signal to the process.
func (p *ExecProcess) Signal(sig os.Signal) error {
	n, ok := sig.(unix.Signal)
	if !ok {
		return fmt.Errorf("signal %v", sig)
	}
	return unix.PidfdSendSignal(int(p.pidfd.Fd()), n, nil, 0)
}

// Wait waits for the process to end and returns its exit status, as a shell
// counts it.
func (p *ExecProcess) Wait() (status int, err error) {
	ws, err := wait4(p.PID)
	if err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	p.ended = true
	return exitStatus(ws), nil
}

// Close ends the process where it still runs.
func (p *ExecProcess) Close(context.Context) error {
	var errs []error
	if !p.ended {
		errs = append(errs, p.Signal(unix.SIGKILL))
		_, err := p.Wait()
		errs = append(errs, err)
	}
	return errors.Join(append(errs, p.pidfd.Close())...)
}
