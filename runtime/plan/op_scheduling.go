package plan

import (
	"encoding/binary"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// setScheduler sets how the process, and what it starts, is scheduled.
type setScheduler struct {
	Policy, Flags uint64
	Scheduler     *specs.Scheduler
}

func (o setScheduler) String() string {
	s := o.Scheduler
	text := fmt.Sprintf("scheduler %s nice %d priority %d", s.Policy, s.Nice, s.Priority)
	if s.Runtime|s.Deadline|s.Period != 0 {
		text += fmt.Sprintf(" runtime %d deadline %d period %d", s.Runtime, s.Deadline, s.Period)
	}
	for _, f := range s.Flags {
		text += " " + string(f)
	}
	return text
}

func (o setScheduler) lower(l *lowering) {
	s := o.Scheduler
	attr := le32(linux.SchedAttrSizeBytes, uint32(o.Policy))
	attr = binary.LittleEndian.AppendUint64(attr, o.Flags)
	attr = append(attr, le32(uint32(s.Nice), uint32(s.Priority))...)
	for _, ns := range []uint64{s.Runtime, s.Deadline, s.Period} {
		attr = binary.LittleEndian.AppendUint64(attr, ns)
	}
	attr = append(attr, le32(0, 0)...) // the specification has no values for the clamps
	l.b.Call("sched_setattr", program.Const(0), l.b.Bytes(attr), program.Const(0))
}

// setIOPriority sets the I/O priority of the process group, which is the
// process alone so far; what it starts inherits it.
type setIOPriority struct {
	Class    uint64
	Priority *specs.LinuxIOPriority
}

func (o setIOPriority) String() string {
	return fmt.Sprintf("io priority %s %d", o.Priority.Class, o.Priority.Priority)
}

func (o setIOPriority) lower(l *lowering) {
	l.b.Call("ioprio_set", program.Const(linux.IOPRIO_WHO_PGRP), program.Const(0),
		program.Const(o.Class<<linux.IOPRIO_CLASS_SHIFT|uint64(o.Priority.Priority)))
}

// setPersonality sets the execution domain.
type setPersonality struct {
	Domain uint64
	Name   string
}

func (o setPersonality) String() string    { return "personality " + o.Name }
func (o setPersonality) lower(l *lowering) { l.b.Call("personality", program.Const(o.Domain)) }

// setMemoryPolicy sets on which NUMA nodes memory is taken.
type setMemoryPolicy struct {
	Mode  uint64 // and its flags
	Nodes linux.NumberSet
	Names []string
}

func (o setMemoryPolicy) String() string {
	return fmt.Sprintf("memory policy %s nodes %q", strings.Join(o.Names, " "), o.Nodes)
}

func (o setMemoryPolicy) lower(l *lowering) {
	mask, bits := program.Const(0), program.Const(0)
	if len(o.Nodes) > 0 {
		// The kernel takes one bit less than it is told (get_nodes in
		// mm/mempolicy.c).
		mask, bits = l.numbers(o.Nodes), program.Const(len(o.Nodes)*64+1)
	}
	l.b.Call("set_mempolicy", program.Const(o.Mode), mask, bits)
}

func (o setMemoryPolicy) explain(errno int) string {
	if errno == linux.ENOSYS {
		return "set_mempolicy: this kernel is built without NUMA"
	}
	return ""
}

// setAffinity says which CPUs the process may run on.
type setAffinity struct{ CPUs linux.NumberSet }

func (o setAffinity) String() string { return fmt.Sprintf("run on CPUs %v", o.CPUs) }

func (o setAffinity) lower(l *lowering) {
	l.b.Call("sched_setaffinity", program.Const(0), program.Const(len(o.CPUs)*8), l.numbers(o.CPUs))
}

func (l *lowering) numbers(set linux.NumberSet) program.Arg {
	words := make([]program.Arg, len(set))
	for i, w := range set {
		words[i] = program.Const(w)
	}
	return l.b.Words(words...)
}
