package plan

import (
	"encoding/binary"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// A lowering turns a plan's operations into the calls of one program.
type lowering struct {
	b    *program.Builder
	open linux.OpenFlagSet
	fds  []program.Arg
	// report is the descriptor that whoever waits for the process listens on.
	report program.Arg
	hows   map[openHow]program.Arg
	step   int
	cold   []func() // code off the straight line, placed after the last step
}

// openHow is struct open_how of openat2(2).
type openHow struct{ flags, mode, resolve uint64 }

// syncFD is the position of the parent's socket among the descriptors: behind
// stdio and whatever is preserved for the user's program.
func (p *Plan) syncFD() int {
	for i, f := range p.Files {
		if f.Kind == SyncPipe {
			return i
		}
	}
	return -1
}

func newLowering(p *Plan) *lowering {
	l := &lowering{
		b:    program.NewBuilder(p.GOARCH, p.syncFD()),
		fds:  make([]program.Arg, p.slots),
		hows: make(map[openHow]program.Arg, 8),
	}
	l.report = program.Const(p.syncFD())
	arch, _ := linux.NativeArch(p.GOARCH)
	l.open = linux.OpenFlags(arch)
	for i := range l.fds {
		l.fds[i] = l.b.Var()
	}
	return l
}

// finish places the code off the straight line. The last step does not return,
// so nothing falls into it.
func (l *lowering) finish() {
	for i := 0; i < len(l.cold); i++ {
		l.cold[i]()
	}
}

// later defers code to the end of the program, under the step it belongs to.
func (l *lowering) later(code func()) {
	step := l.step
	l.cold = append(l.cold, func() {
		l.b.Step(step)
		code()
	})
}

// begin says which step the calls that follow belong to.
func (l *lowering) begin(step int) {
	l.step = step
	l.b.Step(step)
}

// temporary makes a descriptor that only one operation uses.
func (l *lowering) temporary(name string) FD {
	l.fds = append(l.fds, l.b.Var())
	return FD{name, len(l.fds) - 1, true}
}

func (l *lowering) fd(f FD) program.Arg {
	if f.variable {
		return l.fds[f.number]
	}
	return program.Const(f.number)
}

// cwd is the directory argument for paths that need none.
var cwd = FD{name: "cwd", number: linux.AT_FDCWD}

func (l *lowering) str(s string) program.Arg { return l.b.String(s) }

func (l *lowering) how(h openHow) program.Arg {
	a, ok := l.hows[h]
	if !ok {
		a = l.b.Words(program.Const(h.flags), program.Const(h.mode), program.Const(h.resolve))
		l.hows[h] = a
	}
	return a
}

// openIn opens a path below the directory dir, which it never leaves: absolute
// names and symbolic links are taken relative to it (openat2, Linux 5.6).
func (l *lowering) openIn(dir program.Arg, path string, flags, mode uint64) program.Call {
	h := openHow{flags | linux.O_CLOEXEC, mode, linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS}
	return l.b.Call("openat2", dir, l.str(path), l.how(h), program.Const(linux.OpenHowSizeBytes))
}

// jump goes to a label unconditionally: a call without effect that returns 0.
func (l *lowering) jump(to program.Label) { l.b.Call("sched_yield").OnZero(to) }

func (l *lowering) close(f program.Arg) { l.b.Call("close", f) }

func (l *lowering) pointers(ss []string) program.Arg {
	ws := make([]program.Arg, 0, len(ss)+1)
	for _, s := range ss {
		ws = append(ws, l.str(s))
	}
	return l.b.Words(append(ws, program.Const(0))...)
}

// rel is a path inside the root file system as openat2 wants it.
func rel(path string) string {
	path = strings.TrimLeft(path, "/")
	if path == "" {
		return "."
	}
	return path
}

func le32(vs ...uint32) []byte {
	var p []byte
	for _, v := range vs {
		p = binary.LittleEndian.AppendUint32(p, v)
	}
	return p
}
