package plan

import (
	"errors"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// CompileExec makes the plan for one more process in a container that runs: it
// begins on the host, as one of ours, and enters the container when all that
// only the host can give is done. s is the container's configuration with the
// new process in the place of its own; of the rest only what belongs to a
// process counts. Errors are of type *FieldError.
func CompileExec(s *specs.Spec, facts *Facts) (*Plan, error) {
	c := &compiler{spec: s, facts: facts, exec: true, joined: map[uint64]string{},
		plan: &Plan{GOARCH: facts.Host.Arch, Steps: make([]Step, 0, 64)}}
	c.refuse()
	c.files()
	c.outside()
	c.enter()
	c.inside()
	c.labels()
	c.process()
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.plan, nil
}

// Forks says whether the process that the plan starts ends, and another runs
// the program.
func (p *Plan) Forks() bool {
	for _, s := range p.Steps {
		if _, ok := s.Op.(fork); ok {
			return true
		}
	}
	return false
}

// outside compiles what the process does on the host: in a user namespace it
// could not raise a limit, and in the container not find its control groups.
func (c *compiler) outside() {
	c.init = c.file("container", File{Kind: Init})
	if !c.hasMountNamespace() {
		c.hostRoot = c.file("container's root", File{Kind: Root})
	}
	c.step("", hold{First: len(c.plan.Files)})
	if c.facts.AwaitCgroup {
		c.step("linux.cgroupsPath", awaitCgroup{c.sync, true})
	}
	for _, g := range c.groups {
		c.step("linux.cgroupsPath", joinCgroup{Tasks: g})
	}
	c.procfs(false)
	p := c.spec.Process
	if a := p.ExecCPUAffinity; a != nil {
		c.affinity("process.execCPUAffinity.final", a.Final)
	}
	if p.OOMScoreAdj != nil {
		c.step("process.oomScoreAdj", oomScore{*p.OOMScoreAdj})
	}
	c.rlimits(false)
}

func (c *compiler) hasMountNamespace() bool {
	return slices.ContainsFunc(c.linux().Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.MountNamespace })
}

// enter compiles the way into the container's namespaces.
func (c *compiler) enter() {
	for _, ns := range c.linux().Namespaces {
		if info, ok := linux.Namespace(ns.Type); ok {
			c.fresh |= info.CloneFlag
		}
	}
	if c.fresh != 0 {
		c.step("linux.namespaces", enter{c.init, c.fresh})
	}
	if c.fresh&linux.CLONE_NEWPID != 0 {
		c.step("linux.namespaces", fork{Parent: c.sync})
	}
	if c.userNamespace() {
		c.step("linux.uidMappings", becomeRoot{})
	}
	if c.hostRoot.name != "" {
		c.step("root", changeRoot{c.hostRoot})
	}
}

// inside compiles what create does while it makes the root file system: the
// keyring, the terminal, and the working directory, which has to be there.
func (c *compiler) inside() {
	c.procfs(true)
	c.keyring()
	// To enter a mount namespace is to begin at its root: setns(2).
	c.root = FD{name: "root", number: linux.AT_FDCWD}
	if c.spec.Process.Terminal {
		c.step("process.terminal", sendTerminal{c.cons, c.terminal()})
	}
	c.cwd = c.newFD("cwd")
	c.step("process.cwd", openDir{c.root, c.spec.Process.Cwd, c.cwd})
}
