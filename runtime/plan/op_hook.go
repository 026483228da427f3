package plan

import (
	"fmt"
	"strconv"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// parentHooks tells the parent that the namespaces and mounts are there, and
// waits until it has run its hooks. A parent that is gone, or whose hook has
// failed, answers with the end of the stream.
type parentHooks struct {
	Sync  FD
	Paths []string // of the hooks, as they run
}

func (o parentHooks) String() string {
	return fmt.Sprintf("hooks of the runtime %q, wait for %v", o.Paths, o.Sync)
}

func (o parentHooks) lower(l *lowering) {
	l.ask(o.Sync, SaysHooks)
}

// runHook runs a hook in the container's namespaces and waits for it: a hook
// that fails, or takes too long, ends the container.
type runHook struct {
	Kind           string // of the hook: createContainer or startContainer
	Index          int
	Path           string
	Args, Env      []string
	TimeoutSeconds uint32 // 0 for none
	State          FD     // what it reads
	Out, Err       FD     // what it writes to
	Dir            FD     // its working directory
	InDir          bool   // whether there is one
	Umask          uint32
	// Before are the operations that make the hook's process what the user's
	// program will be.
	Before []Op
}

func (o runHook) String() string {
	timeout := ""
	if o.TimeoutSeconds != 0 {
		timeout = fmt.Sprintf(" timeout %ds", o.TimeoutSeconds)
	}
	return fmt.Sprintf("hook %q %q env %q%s < %v", o.Path, o.Args, o.Env, timeout, o.State)
}

// lower makes a child that becomes the hook. Where there is a deadline, its pidfd goes
// straight into a struct pollfd; it is closed on execve like all of the process's own.
func (o runHook) lower(l *lowering) {
	child, failed, done := l.b.NewLabel(), l.b.NewLabel(), l.b.NewLabel()
	zero := program.Const(0)
	flags, poll := program.Const(linux.SIGCHLD), zero
	if o.TimeoutSeconds != 0 {
		const pollIn = 1 << 32 // events in the second half of struct pollfd
		flags, poll = program.Const(linux.CLONE_PIDFD|linux.SIGCHLD), l.b.Words(program.Const(uint64(pollIn)))
	}
	pid := l.b.Call("clone", flags, zero, poll, zero, zero).OnZero(child).Result()
	if o.TimeoutSeconds != 0 {
		late := l.b.NewLabel()
		timeout := l.b.Words(program.Const(o.TimeoutSeconds), zero)
		l.b.Call("ppoll", poll, program.Const(1), timeout, zero, zero).OnZero(late)
		l.later(func() {
			l.b.Bind(late)
			l.b.Call("kill", pid, program.Const(linux.SIGKILL))
			l.b.Call("wait4", pid, zero, zero, zero)
			l.b.Report(l.b.Words(program.TimeoutWord(o.TimeoutSeconds)))
			l.b.Call("exit_group", program.Const(255))
		})
	}
	status := l.b.Words(program.StatusWord())
	l.b.Call("wait4", pid, status, zero, zero)
	// A comparison of a word in memory: 0 where the status is 0, else EAGAIN.
	const cmpRequeue = 4 | 128 // FUTEX_CMP_REQUEUE_PRIVATE
	l.b.Call("futex", status, program.Const(cmpRequeue), zero, zero, status, zero).OnZero(done).OnErrno(failed, linux.EAGAIN)
	l.b.Bind(done)
	l.later(func() {
		l.b.Bind(failed)
		l.b.Report(status)
		l.b.Call("exit_group", program.Const(255))
	})
	l.later(func() {
		l.b.Bind(child)
		o.lowerChild(l)
	})
}

func (o runHook) lowerChild(l *lowering) {
	zero := program.Const(0)
	if o.InDir {
		// Before its number is used: the caller may have left stdio closed.
		l.b.Call("fchdir", l.fd(o.Dir))
	}
	l.b.Call("lseek", l.fd(o.State), zero, zero) // the hook before has read it
	for number, fd := range []FD{o.State, o.Out, o.Err} {
		l.b.Call("dup3", l.fd(fd), program.Const(number), zero)
	}
	closeOnExec{3}.lower(l)
	umask{o.Umask}.lower(l)
	for _, op := range o.Before {
		op.lower(l)
	}
	l.b.Call("execve", l.str(o.Path), l.pointers(o.Args), l.pointers(o.Env))
}

func (o runHook) explainFailure(f program.Failure) string {
	switch {
	case f.Errno == 0:
		return o.failed() + ": " + causeText(f.Cause)
	case f.Call == "execve":
		return fmt.Sprintf("%s: exec %s: %s", o.failed(), strconv.Quote(o.Path), linux.ErrnoText(f.Errno))
	}
	return fmt.Sprintf("%s: %s: %s", o.failed(), f.Call, linux.ErrnoText(f.Errno))
}

// causeText words the end of a hook as runc does.
func causeText(c program.Cause) string {
	if c.TimeoutSeconds != 0 {
		return "hook " + c.String()
	}
	return c.String()
}
