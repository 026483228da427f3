package plan

import (
	"fmt"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// ready tells the parent that the container is made, and waits for its answer.
type ready struct{ Sync FD }

func (o ready) String() string { return fmt.Sprintf("ready, wait for %v", o.Sync) }

func (o ready) lower(l *lowering) { l.ask(o.Sync, SaysReady) }

// waitStart waits until start connects to the container's socket and writes a
// byte. A start that dies before it does has not started anything. From here
// on failures are reported to start.
type waitStart struct{ Gate FD }

func (o waitStart) String() string { return fmt.Sprintf("wait for start on %v", o.Gate) }

func (o waitStart) lower(l *lowering) {
	again, gone := l.b.NewLabel(), l.b.NewLabel()
	conn := l.b.Var()
	l.b.Bind(again)
	zero := program.Const(0)
	l.b.Call("accept4", l.fd(o.Gate), zero, zero, program.Const(linux.SOCK_CLOEXEC)).Into(conn)
	l.b.Call("read", conn, l.b.Bytes(make([]byte, 8)), program.Const(1)).OnZero(gone).OnErrno(gone, 104)
	l.b.ReportTo(conn)
	l.report = conn
	l.close(l.fd(o.Gate))
	l.later(func() {
		l.b.Bind(gone)
		l.b.Call("close", conn).OnZero(again)
	})
}

// findExecutable checks that one of the candidates for the user's program can
// be executed, so that create can say what is missing.
type findExecutable struct {
	Name       string // process.args[0]
	Candidates []string
}

func (o findExecutable) String() string { return fmt.Sprintf("find %q in %q", o.Name, o.Candidates) }

func (o findExecutable) lower(l *lowering) {
	found := l.b.NewLabel()
	for i, c := range o.Candidates {
		const execute = 1 // X_OK
		call := l.b.Call("faccessat2", l.fd(cwd), l.str(c), program.Const(execute), program.Const(linux.AT_EACCESS)).OnZero(found)
		if i < len(o.Candidates)-1 {
			call.Tolerate(linux.ENOENT, linux.ENOTDIR, linux.EACCES, linux.ELOOP, 36)
		}
	}
	l.b.Bind(found)
}

// explain words a failure as every engine expects it.
func (o findExecutable) explain(errno int) string {
	if len(o.Candidates) > 1 || o.Candidates[0] != o.Name {
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", o.Name)
	}
	return fmt.Sprintf("exec: %q: %s", o.Name, linux.ErrnoText(errno))
}

// closeOnExec marks all descriptors from First up to be closed by execve.
type closeOnExec struct{ First int }

func (o closeOnExec) String() string {
	return fmt.Sprintf("close descriptors from %d on execve", o.First)
}

func (o closeOnExec) lower(l *lowering) {
	l.b.Call("close_range", program.Const(o.First), program.Const(^uint32(0)), program.Const(linux.CLOSE_RANGE_CLOEXEC))
}

// end is what a container without a process comes to when it is let go on.
type end struct{}

func (o end) String() string    { return "end" }
func (o end) lower(l *lowering) { l.jump(program.Exit) }

// execve runs the user's program: the first candidate that can be executed.
type execve struct {
	Candidates []string
	Args, Env  []string
}

func (o execve) String() string { return fmt.Sprintf("execve %q %q", o.Candidates, o.Args) }

func (o execve) lower(l *lowering) {
	argv, envp := l.pointers(o.Args), l.pointers(o.Env)
	for i, c := range o.Candidates {
		call := l.b.Call("execve", l.str(c), argv, envp)
		if i < len(o.Candidates)-1 {
			call.Tolerate(linux.ENOENT, linux.ENOTDIR, linux.EACCES, linux.ELOOP, 36)
		}
	}
}

func (o execve) explain(errno int) string {
	return fmt.Sprintf("exec: %q: %s", o.Args[0], linux.ErrnoText(errno))
}
