package linux

// A named number of the kernel's interface. These tables are short, and looked
// at by the few containers that ask.
type named struct {
	name   string
	number uint64
}

func number(table []named, name string) (uint64, bool) {
	for _, n := range table {
		if n.name == name {
			return n.number, true
		}
	}
	return 0, false
}

func names(table []named) []string {
	list := make([]string, len(table))
	for i, n := range table {
		list[i] = n.name
	}
	return list
}

// SchedPolicy returns the number of a scheduling policy (sched_setattr(2)).
// SCHED_ISO has a number and, so far, no implementation.
func SchedPolicy(name string) (uint64, bool) { return number(schedPolicies[:], name) }

// SchedFlag returns the bit of a flag of sched_setattr(2).
func SchedFlag(name string) (uint64, bool) { return number(schedFlags[:], name) }

// IOPriorityClass returns the number of a class of ioprio_set(2).
func IOPriorityClass(name string) (uint64, bool) { return number(ioPriorityClasses[:], name) }

// MemoryPolicy returns the number of a mode of set_mempolicy(2).
func MemoryPolicy(name string) (uint64, bool) { return number(memoryPolicies[:], name) }

// MemoryPolicyFlag returns the bit of a mode flag of set_mempolicy(2).
func MemoryPolicyFlag(name string) (uint64, bool) { return number(memoryPolicyFlags[:], name) }

// MemoryPolicyNames lists the modes of set_mempolicy(2).
func MemoryPolicyNames() []string { return names(memoryPolicies[:]) }

// MemoryPolicyFlagNames lists the mode flags of set_mempolicy(2).
func MemoryPolicyFlagNames() []string { return names(memoryPolicyFlags[:]) }

// Personality returns the number of an execution domain (personality(2)), as
// config-linux.md calls it.
func Personality(domain string) (uint64, bool) { return number(personalities[:], domain) }

// include/uapi/linux/sched.h.
var schedPolicies = [...]named{
	{"SCHED_OTHER", 0},
	{"SCHED_FIFO", 1},
	{"SCHED_RR", 2},
	{"SCHED_BATCH", 3},
	{"SCHED_ISO", 4},
	{"SCHED_IDLE", 5},
	{"SCHED_DEADLINE", 6},
}

var schedFlags = [...]named{
	{"SCHED_FLAG_RESET_ON_FORK", 0x01},
	{"SCHED_FLAG_RECLAIM", 0x02},
	{"SCHED_FLAG_DL_OVERRUN", 0x04},
	{"SCHED_FLAG_KEEP_POLICY", 0x08},
	{"SCHED_FLAG_KEEP_PARAMS", 0x10},
	{"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20},
	{"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40},
}

// SchedAttrSizeBytes is struct sched_attr, version 1: the one with the clamps
// of SCHED_FLAG_UTIL_CLAMP_* (5.3).
const SchedAttrSizeBytes = 56

// include/uapi/linux/ioprio.h.
var ioPriorityClasses = [...]named{
	{"IOPRIO_CLASS_RT", 1},
	{"IOPRIO_CLASS_BE", 2},
	{"IOPRIO_CLASS_IDLE", 3},
}

// ioprio_set(2).
const (
	IOPRIO_WHO_PGRP    = 2
	IOPRIO_CLASS_SHIFT = 13
)

// include/uapi/linux/mempolicy.h.
var memoryPolicies = [...]named{
	{"MPOL_DEFAULT", 0},
	{"MPOL_PREFERRED", 1},
	{"MPOL_BIND", 2},
	{"MPOL_INTERLEAVE", 3},
	{"MPOL_LOCAL", 4},
	{"MPOL_PREFERRED_MANY", 5},      // 5.15
	{"MPOL_WEIGHTED_INTERLEAVE", 6}, // 6.9
}

var memoryPolicyFlags = [...]named{
	{"MPOL_F_NUMA_BALANCING", 1 << 13}, // 5.12
	{"MPOL_F_RELATIVE_NODES", 1 << 14},
	{"MPOL_F_STATIC_NODES", 1 << 15},
}

// include/uapi/linux/personality.h.
var personalities = [...]named{
	{"LINUX", 0x00},
	{"LINUX32", 0x08},
}
