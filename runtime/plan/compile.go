package plan

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/spec"
)

// A FieldError is what is wrong with a field of config.json.
type FieldError = spec.FieldError

func fieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// A compiler builds one plan.
type compiler struct {
	spec     *specs.Spec
	facts    *Facts
	exec     bool // one more process, in a container that runs
	plan     *Plan
	errs     []error
	fresh    uint64            // flags of the namespaces that are new
	joined   map[uint64]string // paths of the namespaces that are joined
	root     FD
	sync     FD
	gate     FD
	program  FD // of the whole plan, for the process that has begun with Opening
	init     FD // pidfd of the running container's first process
	cons     FD
	groups   []FD
	null     FD // the host's /dev/null
	tty      FD
	hostRoot FD // root of a running container without a mount namespace
	cwd      FD
	proc     FD // a procfs of the process's own, where something is written through it
	self     FD // our directory in /proc, where a time namespace is to be made
	list     []mount
	trees    map[string]FD
	dev      FD // the mount at /dev, where the container has one of its own
	// kernel has the mounts at /proc and /sys, open until what lies in them is protected.
	kernel map[string]FD
	// devLate says that dev is in late.
	devLate bool
	// What hooks of the container's namespace read and write: those of create,
	// and those of start.
	hookState, hookOut, hookErr FD
	startState, hookNull        FD

	idle bool       // there is no process to run
	isIn bool       // the process has joined the control groups that are made beside it
	late []lateMark // wait until everything below is mounted
}

// Compile makes the plan for creating a container. The configuration must be
// valid (package spec). Errors are of type *FieldError.
func Compile(s *specs.Spec, facts *Facts) (*Plan, error) {
	c := newCompiler(s, facts)
	c.refuse()
	c.readMounts()
	c.namespaces()
	c.files()
	c.begin()
	late := c.lateMounts()
	c.mounts(c.list[:late])
	c.devices()
	c.mounts(c.list[late:])
	c.joinCgroups()
	c.createHooks()
	c.console()
	c.protect()
	c.pivot()
	c.settings()
	c.labels()
	c.process()
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.plan, nil
}

func newCompiler(s *specs.Spec, facts *Facts) *compiler {
	c := &compiler{spec: s, facts: facts, joined: map[uint64]string{},
		plan: &Plan{GOARCH: facts.Host.Arch, Steps: make([]Step, 0, 96)}}
	if s.Process == nil {
		c.withoutProgram()
	}
	return c
}

func (c *compiler) fail(field, format string, args ...any) {
	c.errs = append(c.errs, fieldError(field, format, args...))
}

func (c *compiler) warn(field, format string, args ...any) {
	c.plan.Warnings = append(c.plan.Warnings, field+": "+fmt.Sprintf(format, args...))
}

func (c *compiler) step(field string, op Op) {
	c.plan.Steps = append(c.plan.Steps, Step{op, field})
}

// newFD names a descriptor that a step will make.
func (c *compiler) newFD(name string) FD {
	c.plan.slots++
	return FD{name, c.plan.slots - 1, true}
}

// file adds a descriptor the process is started with.
func (c *compiler) file(name string, f File) FD {
	c.plan.Files = append(c.plan.Files, f)
	return FD{name, len(c.plan.Files) - 1, false}
}

func (c *compiler) linux() *specs.Linux {
	if c.spec.Linux == nil {
		return &specs.Linux{}
	}
	return c.spec.Linux
}

// refuse names what the configuration asks for and this machine does not have:
// ignoring a field would be worse.
func (c *compiler) refuse() {
	l := c.linux()
	if l.MountLabel != "" && !c.facts.Host.SELinux {
		c.fail("linux.mountLabel", "SELinux is not enabled on this machine")
	}
	if l.IntelRdt != nil && c.facts.Resctrl == "" {
		c.fail("linux.intelRdt", "no resctrl file system is mounted on this machine")
	}
}

// treesFromParent says that mounts are copied by the parent, because the
// process's own user may not reach them, or its mount namespace not have them.
func (c *compiler) treesFromParent() bool {
	return (c.userNamespace() || c.joined[linux.CLONE_NEWNS] != "") && c.facts.Host.HasCap(linux.CAP_SYS_ADMIN)
}

// files lists the descriptors every container's process starts with. Those of
// mounts are added where the mounts are compiled.
func (c *compiler) files() {
	for i := range 3 {
		c.file("stdio", File{Kind: Stdio, Index: i})
	}
	for i := range c.facts.PreserveFDs {
		c.file("preserved", File{Kind: Preserved, Index: i})
	}
	c.sync = c.file("parent", File{Kind: SyncPipe})
	if c.opens() {
		c.program = c.file("program", File{Kind: Program})
	}
	if c.facts.Wait {
		c.gate = c.file("start", File{Kind: StartGate})
	}
	if c.spec.Process.Terminal {
		c.cons = c.file("console", File{Kind: Console, Field: "process.terminal"})
	}
	for i := range c.cgroupFiles() {
		c.groups = append(c.groups, c.file(fmt.Sprintf("cgroup %d", i), File{Kind: Cgroup, Index: i, Field: "linux.cgroupsPath"}))
	}
	c.hookDescriptors()
}

func (c *compiler) begin() {
	joins, trees := c.open()
	if c.facts.AwaitCgroup {
		c.step("linux.cgroupsPath", awaitCgroup{c.sync, true})
	}
	for _, g := range c.groups {
		c.step("linux.cgroupsPath", joinCgroup{Tasks: g})
	}
	c.procfs(false)
	if c.fresh&linux.CLONE_NEWTIME != 0 {
		// Opened before a mount namespace is joined, which may show another /proc.
		c.self = c.newFD("proc self")
		c.step("linux.timeOffsets", openPath{"/proc/self", c.self})
	}
	c.settle(joins)
	c.devicesOfParent()
	c.procfs(true)
	c.keyring()
	c.rootfs(trees)
}
