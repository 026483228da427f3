package plan

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// hold makes the process what it must be while it has the host's files: named,
// not dumpable (nobody may trace it or look at its files through /proc), a
// session leader, with exact modes for what it makes, and without the
// descriptors that its caller leaked.
type hold struct {
	First int
	// Dumpable leaves it dumpable until becomeRoot: its own user, who is not
	// root, has to write files of it in /proc, and so does the process.
	Dumpable bool
}

func (o hold) String() string {
	return fmt.Sprintf("begin as session leader, %sumask 0, descriptors below %d only", flag(!o.Dumpable, "not dumpable, "), o.First)
}

func (o hold) lower(l *lowering) {
	l.b.Call("close_range", program.Const(o.First), program.Const(^uint32(0)), program.Const(0))
	if !o.Dumpable {
		l.prctl(linux.PR_SET_DUMPABLE, 0)
	}
	l.prctl(linux.PR_SET_NAME, 0, l.str("tare-init"))
	l.b.Call("setsid")
	l.b.Call("umask", program.Const(0))
}

// prctl calls prctl(2) with one number, or with an address where there is one.
func (l *lowering) prctl(option int, n uint64, addr ...program.Arg) program.Call {
	arg := program.Const(n)
	if len(addr) > 0 {
		arg = addr[0]
	}
	zero := program.Const(0)
	return l.b.Call("prctl", program.Const(option), arg, zero, zero, zero)
}

// joinCgroup moves the process into a version 1 control group through its
// tasks file, which is open or lies at a path. A thread that writes 0 moves itself, which spares the lock over
// all thread groups that another process would need (kernel/cgroup/cgroup.c,
// cgroup_procs_write_start).
type joinCgroup struct {
	Tasks FD
	Path  string // of the group's directory, where Tasks is none
}

func (o joinCgroup) String() string {
	if o.Path != "" {
		return fmt.Sprintf("join %q", o.Path)
	}
	return fmt.Sprintf("join %v", o.Tasks)
}

func (o joinCgroup) lower(l *lowering) {
	tasks := l.fd(o.Tasks)
	if o.Path != "" {
		tasks = l.b.Call("openat", l.fd(cwd), l.str(o.Path+"/tasks"), program.Const(linux.O_WRONLY|linux.O_CLOEXEC), program.Const(0)).Result()
	}
	l.b.Call("write", tasks, l.str("0"), program.Const(1))
	l.close(tasks)
}

// setName sets the host name or the NIS domain name.
type setName struct {
	Call string // sethostname or setdomainname
	Name string
}

func (o setName) String() string { return fmt.Sprintf("%s %q", o.Call, o.Name) }

func (o setName) lower(l *lowering) {
	l.b.Call(o.Call, l.str(o.Name), program.Const(len(o.Name)))
}

// loopbackUp brings up the lo interface of a new network namespace.
type loopbackUp struct{}

func (o loopbackUp) String() string { return "ifup lo" }

func (o loopbackUp) lower(l *lowering) {
	request := make([]byte, 40) // struct ifreq
	copy(request, "lo")
	request[16] = linux.IFF_UP | linux.IFF_RUNNING
	s := l.b.Call("socket", program.Const(linux.AF_INET), program.Const(linux.SOCK_DGRAM|linux.SOCK_CLOEXEC), program.Const(0)).Result()
	l.b.Call("ioctl", s, program.Const(linux.SIOCSIFFLAGS), l.b.Bytes(request))
	l.close(s)
}

// setRlimit sets one resource limit.
type setRlimit struct {
	Resource   int
	Soft, Hard uint64
}

func (o setRlimit) String() string {
	return fmt.Sprintf("setrlimit %s %d %d", linux.RlimitName(o.Resource), o.Soft, o.Hard)
}

func (o setRlimit) lower(l *lowering) {
	l.b.Call("prlimit64", program.Const(0), program.Const(o.Resource),
		l.b.Words(program.Const(o.Soft), program.Const(o.Hard)), program.Const(0))
}

// umask sets the file mode creation mask of the user's program.
type umask struct{ Mask uint32 }

func (o umask) String() string    { return fmt.Sprintf("umask %#o", o.Mask) }
func (o umask) lower(l *lowering) { l.b.Call("umask", program.Const(o.Mask)) }

// noNewPrivs makes set-user-ID bits and file capabilities ineffective for good.
type noNewPrivs struct{}

func (o noNewPrivs) String() string    { return "no_new_privs" }
func (o noNewPrivs) lower(l *lowering) { l.prctl(linux.PR_SET_NO_NEW_PRIVS, 1) }

// dropBounding removes capabilities from the bounding set.
type dropBounding struct{ Caps uint64 }

func (o dropBounding) String() string { return "drop bounding " + capNames(o.Caps) }

func (o dropBounding) lower(l *lowering) {
	for c := range linux.CapabilityLast + 1 {
		if o.Caps&(1<<c) != 0 {
			l.prctl(linux.PR_CAPBSET_DROP, uint64(c))
		}
	}
}

// setGroups sets the supplementary groups of the container's process.
type setGroups struct {
	Groups []uint32
	// MayBeDenied: the user namespace may deny it. Then it has to be none.
	MayBeDenied bool
}

func (o setGroups) String() string { return fmt.Sprintf("groups %v", o.Groups) }

func (o setGroups) lower(l *lowering) {
	call := l.b.Call("setgroups", program.Const(len(o.Groups)), l.b.Bytes(le32(o.Groups...)))
	if o.MayBeDenied && len(o.Groups) == 0 {
		call.Tolerate(linux.EPERM)
	}
}

// setUser changes to the user of the container's process; its capabilities
// survive until setCaps.
type setUser struct{ UID, GID uint32 }

func (o setUser) String() string { return fmt.Sprintf("user %d:%d", o.UID, o.GID) }

func (o setUser) lower(l *lowering) {
	gid, uid := program.Const(o.GID), program.Const(o.UID)
	l.b.Call("setresgid", gid, gid, gid)
	if o.UID != 0 {
		l.prctl(linux.PR_SET_KEEPCAPS, 1)
	}
	l.b.Call("setresuid", uid, uid, uid)
}

// setCaps sets the effective, permitted, inheritable and ambient sets.
type setCaps struct{ Effective, Permitted, Inheritable, Ambient uint64 }

func (o setCaps) String() string {
	return fmt.Sprintf("capset effective %s permitted %s inheritable %s ambient %s",
		capNames(o.Effective), capNames(o.Permitted), capNames(o.Inheritable), capNames(o.Ambient))
}

func (o setCaps) lower(l *lowering) {
	lo, hi := func(v uint64) uint32 { return uint32(v) }, func(v uint64) uint32 { return uint32(v >> 32) }
	l.b.Call("capset", l.b.Bytes(le32(linux.LINUX_CAPABILITY_VERSION_3, 0)), l.b.Bytes(le32(
		lo(o.Effective), lo(o.Permitted), lo(o.Inheritable), hi(o.Effective), hi(o.Permitted), hi(o.Inheritable))))
	ambient := func(op, c int) {
		l.b.Call("prctl", program.Const(linux.PR_CAP_AMBIENT), program.Const(op), program.Const(c), program.Const(0), program.Const(0))
	}
	ambient(linux.PR_CAP_AMBIENT_CLEAR_ALL, 0)
	for c := range linux.CapabilityLast + 1 {
		if o.Ambient&(1<<c) != 0 {
			ambient(linux.PR_CAP_AMBIENT_RAISE, c)
		}
	}
}

// capNames prints a set of capabilities, or its complement where that is
// shorter, without the CAP_ prefix.
func capNames(set uint64) string {
	all := uint64(1)<<(linux.CapabilityLast+1) - 1
	prefix := ""
	if bits.OnesCount64(set) > 24 {
		set, prefix = all&^set, "all but "
	}
	if set == 0 {
		if prefix != "" {
			return "all"
		}
		return "none"
	}
	var names []string
	for c := range linux.CapabilityLast + 1 {
		if set&(1<<c) != 0 {
			names = append(names, strings.ToLower(strings.TrimPrefix(linux.CapabilityName(c), "CAP_")))
		}
	}
	return prefix + strings.Join(names, ",")
}
