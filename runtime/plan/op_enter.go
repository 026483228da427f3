package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// enter joins namespaces of the container's first process, all at once: the
// kernel takes the user namespace first, whose capabilities the others need,
// and joins all or none (setns(2) with a pidfd, Linux 5.8).
type enter struct {
	Init  FD
	Flags uint64
}

func (o enter) String() string {
	return fmt.Sprintf("enter %v %s", o.Init, strings.Join(namespaceNames(o.Flags), " "))
}

func (o enter) lower(l *lowering) {
	l.b.Call("setns", l.fd(o.Init), program.Const(o.Flags))
	l.close(l.fd(o.Init))
	// Other capabilities make a process dumpable again where the machine's
	// fs.suid_dumpable says so; nobody in the container may trace this one.
	l.prctl(linux.PR_SET_DUMPABLE, 0)
}

func (o enter) explain(errno int) string {
	if errno == linux.ESRCH {
		return "enter the container: it has stopped"
	}
	return fmt.Sprintf("enter the container's namespaces (%s): setns: %s", strings.Join(namespaceNames(o.Flags), " "), linux.ErrnoText(errno))
}

// fork goes on in a new process. It is how a process comes into a pid namespace
// that it has joined, or one that must belong to its new user namespace: it is
// not in it itself, but its children are. The new process is a child of our
// parent, which can wait for it and is told its number. What clone returns is the
// number in our own pid namespace, which is our parent's: joining another does
// not change that.
type fork struct {
	Parent FD
	Flags  uint64 // of the namespaces that are new for it
}

func (o fork) String() string {
	text := fmt.Sprintf("fork, tell %v, begin as session leader", o.Parent)
	if o.Flags != 0 {
		text += " in new " + strings.Join(namespaceNames(o.Flags), " ")
	}
	return text
}

func (o fork) lower(l *lowering) {
	child, zero := l.b.NewLabel(), program.Const(0)
	pid := l.b.Call("clone", program.Const(o.Flags|linux.CLONE_PARENT|linux.SIGCHLD), zero, zero, zero, zero).OnZero(child).Result()
	l.b.Call("write", l.fd(o.Parent), l.b.Words(pid), program.Const(PIDSize))
	l.b.Call("exit_group", zero)
	l.b.Bind(child)
	l.b.Call("setsid")
}

// PIDSize is the length in bytes of the message in which a process tells its
// parent the number of the one that goes on in its place.
const PIDSize = 8

func (o fork) explain(errno int) string {
	if errno == linux.EAGAIN {
		return "fork: " + linux.ErrnoText(errno) + ": linux.resources.pids.limit has to let two processes be for a moment"
	}
	if o.Flags != 0 {
		return o.String() + ": clone: " + linux.ErrnoText(errno)
	}
	if errno == linux.ENOMEM {
		// alloc_pid, once the namespace's first process is gone.
		return "fork in the container: it has stopped, or there is no memory"
	}
	return "fork in the container: " + linux.ErrnoText(errno)
}

// becomeRoot makes the process root in the user namespace it has come into, where
// it has all capabilities but is nobody, and could own no file that it makes.
// Where a namespace is known to have no root, another of its users has to do; of
// one that is joined it is not known.
type becomeRoot struct{ UID, GID uint32 }

func (o becomeRoot) String() string {
	if o != (becomeRoot{}) {
		return fmt.Sprintf("become %d:%d, as nobody is root", o.UID, o.GID)
	}
	return "become root"
}

func (o becomeRoot) lower(l *lowering) {
	gid, uid := program.Const(o.GID), program.Const(o.UID)
	l.b.Call("setresgid", gid, gid, gid).Tolerate(linux.EINVAL)
	l.b.Call("setresuid", uid, uid, uid).Tolerate(linux.EINVAL)
	l.prctl(linux.PR_SET_DUMPABLE, 0) // as above
}

// oomScore sets how soon the kernel ends the process when memory is short. The
// file is that of the host's own procfs.
type oomScore struct{ Adj int }

func (o oomScore) String() string { return fmt.Sprintf("oom score %+d", o.Adj) }

func (o oomScore) lower(l *lowering) {
	h := openHow{linux.O_WRONLY | linux.O_CLOEXEC, 0, 0}
	file := l.b.Call("openat2", l.fd(cwd), l.str("/proc/self/oom_score_adj"), l.how(h), program.Const(linux.OpenHowSizeBytes)).Result()
	text := strconv.Itoa(o.Adj)
	l.b.Call("write", file, l.str(text), program.Const(len(text)))
	l.close(file)
}

// openDir opens a directory of the container that must be there. No magic link
// is followed: through /proc/self/fd a path could lead out (CVE-2024-21626).
type openDir struct {
	Root FD
	Path string
	Out  FD
}

func (o openDir) String() string { return fmt.Sprintf("open %q directory = %v", o.Path, o.Out) }

func (o openDir) lower(l *lowering) {
	l.openIn(l.fd(o.Root), rel(o.Path), linux.O_PATH|l.open.Directory, 0).Into(l.fd(o.Out))
}
