package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// scheduling compiles what the kernel's schedulers and allocators are told of a
// process. Names that the tables do not have are errors: the configuration may
// come from elsewhere than package spec.
func (c *compiler) scheduling(p *specs.Process) {
	if s := p.Scheduler; s != nil {
		op := setScheduler{Policy: c.number("process.scheduler.policy", string(s.Policy), linux.SchedPolicy), Scheduler: s}
		for _, f := range s.Flags {
			op.Flags |= c.number("process.scheduler.flags", string(f), linux.SchedFlag)
		}
		c.step("process.scheduler", op)
	}
	if io := p.IOPriority; io != nil {
		if io.Priority < 0 || io.Priority > 7 {
			c.fail("process.ioPriority.priority", "%d is not between 0 and 7", io.Priority)
		}
		c.step("process.ioPriority", setIOPriority{c.number("process.ioPriority.class", string(io.Class), linux.IOPriorityClass), io})
	}
}

// domains compiles linux.personality and linux.memoryPolicy.
func (c *compiler) domains() {
	if p := c.linux().Personality; p != nil {
		c.step("linux.personality", setPersonality{c.number("linux.personality.domain", string(p.Domain), linux.Personality), string(p.Domain)})
	}
	p := c.linux().MemoryPolicy
	if p == nil {
		return
	}
	op := setMemoryPolicy{Mode: c.number("linux.memoryPolicy.mode", string(p.Mode), linux.MemoryPolicy), Names: []string{string(p.Mode)}}
	for _, f := range p.Flags {
		op.Mode |= c.number("linux.memoryPolicy.flags", string(f), linux.MemoryPolicyFlag)
		op.Names = append(op.Names, string(f))
	}
	var err error
	if op.Nodes, err = linux.ParseNumbers(p.Nodes, linux.MaxNodes); err != nil {
		c.fail("linux.memoryPolicy.nodes", "%w", err)
	}
	c.step("linux.memoryPolicy", op)
}

// affinity compiles one list of process.execCPUAffinity. config.md: it is for
// processes that join a container, and not for its first one.
func (c *compiler) affinity(field, list string) {
	cpus, err := linux.ParseNumbers(list, linux.MaxCPUs)
	switch {
	case err != nil:
		c.fail(field, "%w", err)
	case cpus != nil:
		c.step(field, setAffinity{cpus})
	}
}

func (c *compiler) number(field, name string, table func(string) (uint64, bool)) uint64 {
	n, ok := table(name)
	if !ok {
		c.fail(field, "unknown value %q", name)
	}
	return n
}
