package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tare-oci/tare/runtime/linux"
)

// An Arg is one of the six arguments of a call, or one word of a structure.
type Arg struct {
	kind argKind
	v    uint64 // a constant, an offset into the arena, the number of a variable, or a label
}

type argKind uint8

const (
	constant argKind = iota
	text             // address of a NUL-terminated string in the arena
	block            // address of any other bytes in the arena
	result           // what an earlier call returned, kept in a variable
	place            // address of the call a label is bound to
)

// Const is the argument v as it stands; negative numbers are sign-extended.
func Const[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64](v T) Arg {
	return Arg{constant, uint64(v)}
}

// A Label is a place in the program that calls can go on at.
type Label int32

const (
	nowhere Label = iota
	// Exit ends the process without a report. It is bound in every program.
	Exit
	firstLabel
)

// maxErrno bounds the errnos that can be tolerated; Linux's last is 133.
const maxErrno = 160

type errnoSet [maxErrno / 32]uint32

// A call is kept small: a program has hundreds, and is built for every
// container.
type call struct {
	nr      uint16
	nargs   uint8
	kinds   [6]argKind
	mask    uint8 // index of the set of tolerated errnos
	step    int32
	into    int32 // number of the variable that takes the result, -1 for none
	onErrno Label // nowhere: the next call
	onZero  Label // nowhere: the next call
	args    [6]uint64
}

func (c *call) arg(i int) Arg { return Arg{c.kinds[i], c.args[i]} }

type word struct {
	block  int // where the words begin that it is one of
	offset int // into the arena
	arg    Arg
}

// A Builder collects calls and the data they point to. The first error sticks
// and is returned by Image.
type Builder struct {
	arch      linux.Arch
	goarch    string
	calls     []call
	masks     []errnoSet // the different ones, the empty one first
	arena     []byte
	words     []word // words of the arena whose value is an address or a result
	strings   map[string]int
	labels    []int // index of the call a label is bound to, -1 while unbound
	step      int
	reportFD  Arg
	vars      int
	reports   []int // variables whose value becomes the descriptor reported to
	load      int   // index of the call that reads the rest of the program, -1 for none
	reporters []int // calls that send reports
	err       error
}

// NewBuilder starts a program for a GOARCH, amd64 or arm64. Failures are
// reported on the descriptor reportFD until ReportTo names another.
func NewBuilder(goarch string, reportFD int) *Builder {
	b := &Builder{
		goarch:   goarch,
		calls:    make([]call, 0, 512),
		masks:    make([]errnoSet, 1, 16),
		arena:    make([]byte, 0, 16<<10),
		strings:  make(map[string]int, 64),
		labels:   make([]int, firstLabel, 64),
		load:     -1,
		reportFD: Const(reportFD),
	}
	for i := range b.labels {
		b.labels[i] = -1
	}
	arch, ok := linux.NativeArch(goarch)
	if _, known := machines[goarch]; !ok || !known {
		b.fail(fmt.Errorf("program: no interpreter for %s", goarch))
	}
	b.arch = arch
	return b
}

// GOARCH is the architecture the program is for.
func (b *Builder) GOARCH() string { return b.goarch }

func (b *Builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// Step says which step of a plan the calls that follow belong to. Failure
// reports are resolved to it.
func (b *Builder) Step(n int) { b.step = n }

// String places s, NUL-terminated, in the arena; equal strings share a place.
func (b *Builder) String(s string) Arg {
	at, ok := b.strings[s]
	if !ok {
		at = len(b.arena)
		b.arena = append(append(b.arena, s...), 0)
		b.strings[s] = at
	}
	return Arg{text, uint64(at)}
}

// Bytes places a copy of p in the arena, aligned to 8 bytes.
func (b *Builder) Bytes(p []byte) Arg {
	b.align()
	at := len(b.arena)
	b.arena = append(b.arena, p...)
	return Arg{block, uint64(at)}
}

// Words places 64-bit words in the arena: pointers, results or constants, as
// argv, envp, msghdr and most of the kernel's structures are made of.
func (b *Builder) Words(ws ...Arg) Arg {
	b.align()
	at := len(b.arena)
	for _, w := range ws {
		if w.kind == constant {
			b.arena = binary.LittleEndian.AppendUint64(b.arena, w.v)
			continue
		}
		b.words = append(b.words, word{at, len(b.arena), w})
		b.arena = append(b.arena, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return Arg{block, uint64(at)}
}

func (b *Builder) align() {
	for len(b.arena)%8 != 0 {
		b.arena = append(b.arena, 0)
	}
}

// A Call is one call of the program under construction.
type Call struct {
	b     *Builder
	index int
}

// Call appends the system call with that name.
func (b *Builder) Call(name string, args ...Arg) Call {
	nr, ok := linux.SyscallNumber(b.arch, name)
	if !ok {
		b.fail(fmt.Errorf("program: %s has no system call %q", b.goarch, name))
	}
	c := call{nr: uint16(nr), step: int32(b.step), into: -1, nargs: uint8(len(args))}
	if len(args) > len(c.args) {
		b.fail(fmt.Errorf("program: %s: %d arguments", name, len(args)))
		args = nil
	}
	for i, a := range args {
		c.kinds[i], c.args[i] = a.kind, a.v
	}
	b.calls = append(b.calls, c)
	return Call{b, len(b.calls) - 1}
}

// Var makes a variable. Whatever stores into it changes the arguments and words
// that use it.
func (b *Builder) Var() Arg {
	b.vars++
	return Arg{result, uint64(b.vars - 1)}
}

// Into stores what the call returns in a variable.
func (c Call) Into(variable Arg) Call {
	c.b.calls[c.index].into = int32(variable.v)
	return c
}

// Result is what the call will have returned, for use by later calls and words.
func (c Call) Result() Arg {
	in := &c.b.calls[c.index]
	if in.into < 0 {
		in.into = int32(c.b.Var().v)
	}
	return Arg{result, uint64(in.into)}
}

// Tolerate goes on with the next call where this one fails with one of errnos.
func (c Call) Tolerate(errnos ...int) Call { return c.OnErrno(nowhere, errnos...) }

// OnErrno goes on at l where the call fails with one of errnos. A call has one
// such label; any other errno ends the program with a report.
func (c Call) OnErrno(l Label, errnos ...int) Call {
	in := &c.b.calls[c.index]
	in.onErrno = l
	set := c.b.masks[in.mask]
	for _, e := range errnos {
		set[e/32] |= 1 << (e % 32)
	}
	in.mask = c.b.maskOf(set)
	return c
}

// maskOf returns the index of a set of errnos; there are only a few different.
func (b *Builder) maskOf(set errnoSet) uint8 {
	at := slices.Index(b.masks, set)
	if at < 0 {
		at = len(b.masks)
		b.masks = append(b.masks, set)
	}
	if at > math.MaxUint8 {
		b.fail(errors.New("program: more than 256 different sets of tolerated errnos"))
	}
	return uint8(at)
}

// OnZero goes on at l where the call returns 0.
func (c Call) OnZero(l Label) Call {
	c.b.calls[c.index].onZero = l
	return c
}

// NewLabel makes a label to be bound later.
func (b *Builder) NewLabel() Label {
	b.labels = append(b.labels, -1)
	return Label(len(b.labels) - 1)
}

// Bind places l before the next call.
func (b *Builder) Bind(l Label) { b.labels[l] = len(b.calls) }

// ReportTo makes the descriptor that a variable takes the one failures are
// reported on, from the moment it takes it.
func (b *Builder) ReportTo(variable Arg) { b.reports = append(b.reports, int(variable.v)) }

// Report appends a call that sends a report of its own making, and returns. The
// value at the address word takes the place of an errno: a wait status, behind
// StatusWord, or the word that TimeoutWord makes.
func (b *Builder) Report(word Arg) Call {
	here := b.NewLabel()
	b.Bind(here)
	size := Const(reportSize / 2)
	parts := b.Words(b.Words(Arg{place, uint64(here)}), size, word, size)
	send := b.Call("writev", b.reportFD, parts, Const(2))
	b.reporters = append(b.reporters, send.index)
	return send
}

// Scratch is the address of eight bytes that calls may write what nobody reads to.
func (b *Builder) Scratch() Arg { return Const(uint64(scratchAddress)) }

// Load appends the calls that put the program, as Image.LoadInto has written it to
// a file, in the place of what runs, and go on behind them. So a process can
// begin with a program that consists of the first calls of another which is not made
// yet: up to Load, the same calls have to be built for both. Results do not outlast it.
func (b *Builder) Load(file Arg) {
	b.load = len(b.calls)
	b.Call("pread64", file, Const(uint64(dataAddress)), Const(maxData), Const(0)).OnZero(Exit)
	b.Call("close", file)
}

// finish appends what every program ends with: the report of a failure and
// the end of the process.
func (b *Builder) finish() (failed Label, err error) {
	failed = b.NewLabel()
	b.Step(-1)
	b.Bind(failed)
	send := b.Call("write", b.reportFD, Const(uint64(dataAddress)), Const(reportSize))
	b.reporters = append(b.reporters, send.index)
	var any errnoSet
	for i := range any {
		any[i] = ^uint32(0) // nobody is left to tell
	}
	b.calls[send.index].mask = b.maskOf(any)
	b.Bind(Exit)
	b.Call("exit_group", Const(exitFailed))
	for l, at := range b.labels[1:] {
		if at < 0 {
			b.fail(fmt.Errorf("program: label %d is not bound", l+1))
		}
	}
	if len(b.calls) > maxCalls || len(b.arena) > maxArena {
		b.fail(errors.New("program: too large: more than 65536 calls or 16 MiB of data"))
	}
	return failed, b.err
}

const (
	exitFailed = 255
	maxCalls   = 1 << 16
	maxArena   = 16 << 20
	maxData    = 32 << 20 // of all that an image has behind its first page
)
