package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/netdev"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
	"github.com/tare-oci/tare/runtime/rdt"
	"github.com/tare-oci/tare/runtime/spec"
)

// CreateOptions are what a container is created from.
type CreateOptions struct {
	ID string
	// Bundle is the directory with config.json.
	Bundle string
	// Stdio are the descriptors 0 to 2 of the container's process; nil is closed.
	Stdio [3]*os.File
	// ConsoleSocket is the path of a unix socket that takes the terminal's master.
	ConsoleSocket string
	// Console makes the socket instead, where the caller holds the other end.
	// It is called for a container with a terminal only, and keeps its file.
	Console func() (*os.File, error)
	// ConsoleSize, where not nil, is the terminal's size instead of the configuration's.
	ConsoleSize *specs.Box
	// PIDFile is written with the process id once the container is created.
	PIDFile string
	// PIDFDSocket is the path of a unix socket that takes a pidfd of the process.
	PIDFDSocket string
	// ListenFDs is how many descriptors from 3 up are sockets that a service
	// manager has opened for the container's program: sd_listen_fds(3).
	ListenFDs int
	// PreserveFDs is how many descriptors behind those the container keeps.
	PreserveFDs int
	// NotifySocket is the socket of a service manager that is to know when the
	// container is ready. StartNotifying has to know it
	// as well; Process.Notify tells it.
	NotifySocket string
	// Subreaper has processes that the container leaves behind become children of
	// ours, where they would not be its own. Wait reaps them.
	Subreaper bool
	// NoNewKeyring leaves the caller's session keyring to the container.
	NoNewKeyring bool
	// NoPivot leaves the host's root file system mounted beneath the container's:
	// for hosts that run from the initial ramdisk.
	NoPivot bool
	// CgroupManager is who makes the control groups.
	CgroupManager cgroup.Driver
	// Rootless says whether we may do without control groups that we may not
	// make; nil is when we are not root, or in a user namespace.
	Rootless *bool
	// Begin is called before the first thing is made that would have to be
	// cleaned up.
	Begin func()
	// Warn is called with what cannot be granted and is left out, Debug with
	// what is done.
	Warn, Debug func(message string)
}

func (o *CreateOptions) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

// Create makes a container and leaves it waiting for Start (runtime.md,
// "Create"). After an error nothing of it is left.
func (s Store) Create(ctx context.Context, o CreateOptions) (*Container, error) {
	m, err := s.make(ctx, o, true)
	if err != nil {
		return nil, err
	}
	m.finish()
	return m.container, nil
}

// A making is a container that is being created.
type making struct {
	options   CreateOptions
	spec      *specs.Spec
	config    []byte // what spec was decoded from
	facts     host.Facts
	plan      *plan.Plan // at first its opening
	image     *program.Image
	container *Container
	cgroup    cgroup.Manager
	made      bool // the control group exists
	told      bool // the pid file is written
	hooked    bool // hooks have begun to run
	notifier  *notifier
	lock      *lock
	family    *family
	pid       int
	class     *rdt.Group
	classed   bool            // it is made
	devices   []*netdev.Moved // network interfaces that came from the host
	early     []byte          // what it said before it was asked
	gate      *os.File        // that the process waits at for start
	opening   bool            // plan is one
	loaded    bool            // the process has been given the program that it waits for
}

// make brings a container to the point where its process is ready.
func (s Store) make(ctx context.Context, o CreateOptions, wait bool) (_ *making, err error) {
	m := &making{options: o}
	if err := checkID(o.ID); err != nil {
		return nil, err
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	m.activate(filepath.Join(s.Root, o.ID))
	if m.reaps() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("become subreaper: %w", err)
		}
	}
	defer m.closeGate()
	defer func() {
		if err != nil {
			m.end()
		}
	}()
	if err := m.begin(s.Root, wait); err != nil {
		return nil, err
	}
	if err := m.prepare(s.Root, wait); err != nil {
		return nil, err
	}
	debug := debugger(o.Debug)
	if o.Begin != nil {
		o.Begin()
	}
	if err := m.reserve(s.Root, wait); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = m.undo(err)
		}
	}()
	if err := m.confine(ctx); err != nil {
		return nil, err
	}
	if err := m.start(wait); err != nil {
		return nil, err
	}
	debug.printf("container %q: process %d makes it", o.ID, m.pid)
	if err := m.attend(ctx); err != nil {
		return nil, err
	}
	debug.printf("container %q: made", o.ID)
	return m, m.settleDevices(true)
}

// attend does the parent's part while the process makes the container.
func (m *making) attend(ctx context.Context) error {
	if err := m.settle(ctx); err != nil {
		return err
	}
	if err := m.equip(ctx); err != nil {
		return err
	}
	if err := m.provide(); err != nil {
		return err
	}
	if err := m.createHooks(ctx); err != nil {
		return err
	}
	if err := m.release(); err != nil {
		return err
	}
	return m.awaitReady(ctx)
}

// finish lets go of what only the making needed.
func (m *making) finish() {
	if m.family != nil {
		m.family.close()
	}
	m.lock.release()
}

func (m *making) load() (err error) {
	if m.options.Bundle, err = filepath.Abs(m.options.Bundle); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if m.spec, m.config, err = spec.LoadData(filepath.Join(m.options.Bundle, "config.json")); err != nil {
		return err
	}
	if err := spec.Validate(m.spec); err != nil {
		return err
	}
	if m.facts, err = host.Probe(); err != nil {
		return err
	}
	terminal := m.spec.Process != nil && m.spec.Process.Terminal
	if terminal && m.options.ConsoleSize != nil {
		m.spec.Process.ConsoleSize = m.options.ConsoleSize
	}
	console := m.options.ConsoleSocket != "" || m.options.Console != nil
	switch {
	case terminal && !console:
		return &plan.FieldError{Field: "process.terminal", Err: errors.New("a terminal needs --console-socket")}
	case !terminal && m.options.ConsoleSocket != "":
		return &plan.FieldError{Field: "process.terminal", Err: errors.New("--console-socket needs a terminal: it is false")}
	}
	return nil
}

// compile makes the program. Nothing is made yet that a failure would have to
// remove. The bundle's files are looked at from here: the caller's thread may be
// in a mount namespace of its own.
func (m *making) compile(wait bool) (err error) {
	f, err := Facts(m.spec, m.facts, m.options.Bundle, m.options.ID)
	if err != nil {
		return err
	}
	if m.options.NotifySocket != "" { // which is made later
		f.Sources[m.spec.Mounts[len(m.spec.Mounts)-1].Source] = plan.Source{Dir: true}
	}
	if err := m.callersFacts(f, wait); err != nil {
		return err
	}
	if f.NoPivot {
		if f.HostMounts, err = kernelMounts(absolute(m.options.Bundle, m.spec.Root.Path)); err != nil {
			return err
		}
	}
	if m.spec.Hooks != nil && strings.HasSuffix(m.spec.Linux.RootfsPropagation, "shared") {
		if f.RootMount, err = mountPoint(absolute(m.options.Bundle, m.spec.Root.Path)); err != nil {
			return &plan.FieldError{Field: "root.path", Err: err}
		}
	}
	m.opening = false
	if m.plan, err = plan.Compile(m.spec, f); err != nil {
		return err
	}
	if m.image, err = m.plan.Program(); err != nil {
		return err
	}
	if err := m.findClass(f.Resctrl); err != nil {
		return err
	}
	for _, w := range append(m.plan.Warnings, cgroup.Warnings(m.spec.Linux.Resources)...) {
		m.options.warn("%s", w)
	}
	debugger(m.options.Debug).plan(m.plan, m.image)
	return nil
}

// callersFacts are those that are known before anything is looked at.
func (m *making) callersFacts(f *plan.Facts, wait bool) (err error) {
	if m.cgroup == nil {
		if err := m.newCgroup(); err != nil {
			return err
		}
	}
	m.cgroupPlan(f)
	f.Wait, f.NoNewKeyring, f.NoPivot = wait, m.options.NoNewKeyring, m.options.NoPivot
	f.Foreground = m.options.Console != nil
	f.PreserveFDs, err = preserved(m.options.ListenFDs, m.options.PreserveFDs)
	return err
}

// reserve takes the container's name and records what would have to be cleaned
// up, before there is anything to clean.
func (m *making) reserve(root string, wait bool) error {
	dir := filepath.Join(root, m.options.ID)
	hostRoot, err := m.hostRoot()
	if err != nil {
		return err
	}
	// Nobody else gets into it: with a umask of 0, start.sock is open to all.
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(root, 0o711); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		err = ErrExist
	}
	if err != nil {
		return fmt.Errorf("container %q: %w", m.options.ID, err)
	}
	c := &Container{dir: dir, Record: Record{Version: recordVersion, OCIVersion: m.spec.Version, ID: m.options.ID,
		Bundle: m.options.Bundle, Rootfs: absolute(m.options.Bundle, m.spec.Root.Path), Created: time.Now().UTC(),
		UID: m.facts.UID, Annotations: m.spec.Annotations, NoNewKeyring: m.options.NoNewKeyring, Cgroups: m.cgroup.Paths(),
		Unit: m.cgroup.Unit(), HostRoot: hostRoot}}
	m.describe(c, wait)
	c.SharedPID = sharesPIDs(m.spec)
	if h := m.spec.Hooks; h != nil {
		c.Poststart, c.Poststop = h.Poststart, h.Poststop
	}
	m.container = c
	if m.lock, err = lockNew(dir, c.ID); err != nil {
		return err // deleted before it was ours
	}
	if err = c.save(m.lock, true); err == nil {
		return m.listenNotify(wait)
	}
	switch {
	case errors.Is(err, unix.ENOENT): // the directory is gone, and what has its name is another's
		err = fmt.Errorf("container %q: deleted before it was created: %w", c.ID, ErrNotExist)
	case !errors.Is(err, ErrExist):
		err = errors.Join(err, c.forget())
	}
	m.lock.release()
	return err
}

// describe records what the plan says.
func (m *making) describe(c *Container, wait bool) {
	if wait {
		c.Tail = m.plan.Tail(m.image)
	}
	c.Listener, c.Creating, c.Resctrl = m.plan.Listener, m.plan.WaitsForHooks(), m.class
}

// provide does for the running program what only its parent can, and records
// its process.
func (m *making) provide() (err error) {
	c := m.container
	c.PID = m.pid
	if c.StartTime, _, err = processStart(m.pid); err != nil {
		return err
	}
	if m.plan.Maps == nil {
		if err := m.oomScore(); err != nil {
			return err
		}
	}
	if m.class != nil {
		if err := m.class.Add(m.pid); err != nil {
			return &plan.FieldError{Field: "linux.intelRdt", Err: err}
		}
	}
	for _, r := range m.plan.Rlimits {
		if err := raise(m.pid, r); err != nil {
			return &plan.FieldError{Field: r.Field, Err: err}
		}
	}
	// A later exec needs it, and the bundle's may have changed by then. It costs
	// no time: the process has its hands full.
	if err := writeFile(m.lock.dir, configName, m.config, 0o600); err != nil {
		return fmt.Errorf("container %q: keep config.json: %w", c.ID, err)
	}
	if err := c.save(m.lock, false); err != nil {
		return err
	}
	return m.family.hooks.describe(c)
}

// sharesPIDs says whether a container's process is not the first of a pid
// namespace of its own.
func sharesPIDs(s *specs.Spec) bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path != ""
		}
	}
	return true
}

func (m *making) oomScore() error {
	adj := m.process().OOMScoreAdj
	if adj == nil {
		return nil
	}
	if err := writeFile(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/oom_score_adj", m.pid), []byte(strconv.Itoa(*adj)), 0); err != nil {
		return &plan.FieldError{Field: "process.oomScoreAdj", Err: err}
	}
	return nil
}

// expect waits until the process says what.
func (m *making) expect(ctx context.Context, what byte) error {
	said, err := m.hear(ctx)
	switch {
	case err != nil:
		return err
	case len(said) == 1 && said[0] == what:
		return nil
	case len(said) == 0:
		return fmt.Errorf("container init died while the container was made%s", m.ending())
	default:
		return m.explain(said)
	}
}

// hear is what the process says next.
func (m *making) hear(ctx context.Context) ([]byte, error) {
	if said := m.early; said != nil {
		m.early = nil
		return said, nil
	}
	return receive(ctx, m.family.sync, m.cgroup.Frozen)
}

// awaitReady waits until the process has made the container.
func (m *making) awaitReady(ctx context.Context) error {
	if err := m.expect(ctx, plan.SaysReady); err != nil {
		return err
	}
	if c := m.container; c.Creating {
		c.Creating = false
		if err := c.save(m.lock, false); err != nil {
			return err
		}
	}
	if m.options.PIDFDSocket != "" {
		if err := m.sendPIDFD(); err != nil {
			return fmt.Errorf("pidfd socket: %w", err)
		}
	}
	if m.options.PIDFile != "" {
		if err := writePIDFile(m.options.PIDFile, m.pid); err != nil {
			return err
		}
		m.told = true
	}
	return nil
}

func (m *making) explain(report []byte) error {
	f, err := m.image.Failure(report)
	if err != nil {
		return err
	}
	return m.family.hooks.explain(m.plan.Explain(f))
}

// release lets the process go on once it is ready. Nothing is left for the
// parent to do by then, so it need not wait to say so.
func (m *making) release() error {
	_, err := unix.Write(int(m.family.sync.Fd()), []byte{'g'})
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) { // the latter where it has not read what came before
		return nil // it has ended, and awaitReady will hear why
	}
	if err != nil {
		return fmt.Errorf("let container init go on: %w", err)
	}
	return nil
}
