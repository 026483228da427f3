package plan

import (
	"fmt"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// ownProcfs opens a procfs of the process's own that is attached nowhere, so
// that nothing a container mounts can redirect what is written through it
// (CVE-2019-16884, CVE-2025-52881).
type ownProcfs struct {
	Out FD
	// Caller takes a copy of the caller's procfs where a new one is denied.
	Caller bool
}

func (o ownProcfs) String() string { return fmt.Sprintf("open procfs = %v", o.Out) }

func (o ownProcfs) lower(l *lowering) {
	done := l.b.NewLabel()
	zero := program.Const(0)
	fs := l.b.Call("fsopen", l.str("proc"), program.Const(linux.FSOPEN_CLOEXEC)).Result()
	create := l.b.Call("fsconfig", fs, program.Const(linux.FSCONFIG_CMD_CREATE), zero, zero, zero)
	mount := l.b.Call("fsmount", fs, program.Const(linux.FSMOUNT_CLOEXEC), zero).Into(l.fd(o.Out))
	l.b.Bind(done)
	l.close(fs)
	if !o.Caller {
		return
	}
	denied := l.b.NewLabel()
	create.OnErrno(denied, linux.EPERM)
	mount.OnErrno(denied, linux.EPERM)
	l.later(func() {
		// A user namespace that does not own the process id namespace, or that
		// sees a procfs with places hidden, gets no new one. Nothing of the
		// container is mounted yet: what is on /proc is what our caller uses.
		l.b.Bind(denied)
		l.b.Call("open_tree", l.fd(cwd), l.str("/proc"),
			program.Const(linux.OPEN_TREE_CLONE|linux.OPEN_TREE_CLOEXEC|linux.AT_RECURSIVE)).Into(l.fd(o.Out))
		l.jump(done)
	})
}

// openProc opens a file of a procfs for writing. The one symbolic link it passes
// is the procfs's own "self".
func (l *lowering) openProc(proc FD, path string, resolve uint64) program.Call {
	h := openHow{linux.O_WRONLY | linux.O_CLOEXEC, 0,
		linux.RESOLVE_BENEATH | linux.RESOLVE_NO_XDEV | linux.RESOLVE_NO_MAGICLINKS | resolve}
	return l.b.Call("openat2", l.fd(proc), l.str(path), l.how(h), program.Const(linux.OpenHowSizeBytes))
}

// confine asks AppArmor to run the user's program under a profile.
type confine struct {
	Proc    FD
	Profile string
}

func (o confine) String() string { return fmt.Sprintf("apparmor profile %q on execve", o.Profile) }

func (o confine) lower(l *lowering) {
	old, opened := l.b.NewLabel(), l.b.NewLabel()
	file := l.b.Var()
	// Linux 5.1 has files for each security module; before, and where the
	// module was built without them, attr/exec is that of the first one.
	l.openProc(o.Proc, "self/attr/apparmor/exec", 0).OnErrno(old, linux.ENOENT).Into(file)
	l.b.Bind(opened)
	text := "exec " + o.Profile
	l.b.Call("write", file, l.str(text), program.Const(len(text)))
	l.close(file)
	l.later(func() {
		l.b.Bind(old)
		l.openProc(o.Proc, "self/attr/exec", 0).Into(file)
		l.jump(opened)
	})
}

func (o confine) explain(errno int) string {
	if errno == linux.ENOENT {
		return fmt.Sprintf("apparmor profile %q is not loaded", o.Profile)
	}
	return ""
}

// label writes an SELinux context to one of the process's attributes: exec is
// that of the user's program, keycreate that of keys it makes.
type label struct {
	Proc      FD
	Attribute string
	Context   string // empty: the default again
}

func (o label) String() string { return fmt.Sprintf("selinux %s context %q", o.Attribute, o.Context) }

func (o label) lower(l *lowering) {
	file := l.openProc(o.Proc, "self/attr/"+o.Attribute, 0).Result()
	text := o.Context
	if text == "" {
		text = "\n" // as selinux_lsm_setattr has it: nothing but the end of a line
	}
	l.b.Call("write", file, l.str(text), program.Const(len(text)))
	l.close(file)
}

func (o label) explain(errno int) string {
	if errno == linux.EINVAL {
		return fmt.Sprintf("selinux: the policy has no context %q", o.Context)
	}
	return ""
}

// writeSysctl sets a kernel parameter of the process's namespaces.
type writeSysctl struct {
	Proc  FD
	Path  string // below /proc/sys
	Value string
}

func (o writeSysctl) String() string { return fmt.Sprintf("sysctl %s = %q", o.Path, o.Value) }

func (o writeSysctl) lower(l *lowering) {
	file := l.openProc(o.Proc, "sys/"+o.Path, linux.RESOLVE_NO_SYMLINKS).Result()
	l.b.Call("write", file, l.str(o.Value), program.Const(len(o.Value)))
	l.close(file)
}

// sessionKeyring gives the container a session keyring of its own, so that it
// does not see the caller's keys.
type sessionKeyring struct {
	Name string
	// Permissions of a new one; 0 joins one that is there.
	Permissions uint32
}

// Permissions of a session keyring: what join_session_keyring (security/keys)
// gives a new one, and, as runc, that its owner can search it. In a user
// namespace, where the kernel counts the owner as somebody else, all can.
const (
	newKeyring      = 0x3f13_0000
	keySearchOwner  = 0x0008_0000 // KEY_USR_SEARCH
	keySearchOthers = 0x0000_0008 // KEY_OTH_SEARCH
)

func (o sessionKeyring) String() string {
	if o.Permissions == 0 {
		return fmt.Sprintf("join keyring %q", o.Name)
	}
	return fmt.Sprintf("keyring %q permissions %08x", o.Name, o.Permissions)
}

func (o sessionKeyring) lower(l *lowering) {
	const join, setPermissions = 1, 5 // KEYCTL_*
	without := l.b.NewLabel()
	// A kernel without keys has none to leak.
	ring := l.b.Call("keyctl", program.Const(join), l.str(o.Name)).OnErrno(without, linux.ENOSYS)
	if o.Permissions != 0 {
		l.b.Call("keyctl", program.Const(setPermissions), ring.Result(), program.Const(o.Permissions))
	}
	l.b.Bind(without)
}
