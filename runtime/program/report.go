package program

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

// ReportSize is the length in bytes of a failure report.
const ReportSize = reportSize

// A Cause is why a program ended: a call failed, or a process did that the
// program waited for. One of its fields is not zero.
type Cause struct {
	// Errno is the failed call's error number.
	Errno int
	// Status is the process's wait status.
	Status int
	// TimeoutSeconds is how long the process was waited for.
	TimeoutSeconds int
}

// Kinds of reports, in the upper half of their second word.
const (
	kindErrno = iota
	kindStatus
	kindTimeout
)

// StatusWord is a word whose lower half takes a wait status that is reported.
func StatusWord() Arg { return Const(uint64(kindStatus << 32)) }

// TimeoutWord reports that a process took longer than it may.
func TimeoutWord(seconds uint32) Arg { return Const(uint64(kindTimeout<<32) | uint64(seconds)) }

// String words the cause: "permission denied", "exit status 1".
func (c Cause) String() string {
	switch {
	case c.TimeoutSeconds != 0:
		return fmt.Sprintf("ran past specified timeout of %.1fs", float64(c.TimeoutSeconds))
	case c.Status&0x7f != 0:
		return "signal: " + linux.SignalName(c.Status&0x7f)
	case c.Status != 0:
		return fmt.Sprintf("exit status %d", c.Status>>8)
	}
	return linux.ErrnoText(c.Errno)
}

// A Failure is what a program says of what ended it.
type Failure struct {
	Step int    // as given to Builder.Step
	Call string // the system call
	// Strings are those among its arguments.
	Strings []string
	Cause
}

// Decode reads a report of ReportSize bytes: the address of the failed call and
// the cause.
func Decode(report []byte) (address uint64, c Cause, err error) {
	if len(report) != reportSize {
		return 0, c, fmt.Errorf("program: report of %d bytes, want %d", len(report), reportSize)
	}
	address, word := binary.LittleEndian.Uint64(report), binary.LittleEndian.Uint64(report[8:])
	value := int(uint32(word))
	switch kind := word >> 32; {
	case value == 0:
	case kind == kindErrno && value < 4096:
		return address, Cause{Errno: value}, nil
	case kind == kindStatus && value < 1<<16:
		return address, Cause{Status: value}, nil
	case kind == kindTimeout:
		return address, Cause{TimeoutSeconds: value}, nil
	}
	return 0, c, fmt.Errorf("program: report of no known kind: %#x", word)
}

// Failure resolves a report.
func (im *Image) Failure(report []byte) (Failure, error) {
	address, cause, err := Decode(report)
	if err != nil {
		return Failure{}, err
	}
	i := (address - callAddress(0)) / callSize
	if address < callAddress(0) || i >= uint64(len(im.calls)) {
		return Failure{}, fmt.Errorf("program: report names no call: address %#x, %v", address, cause)
	}
	c := im.calls[i]
	f := Failure{Step: int(c.step), Call: im.name(c), Cause: cause}
	for j := range int(c.nargs) {
		if a := c.arg(j); a.kind == text {
			f.Strings = append(f.Strings, im.stringAt(a))
		}
	}
	return f, nil
}

// Runs calls yield for each run of calls that belong to one step, in order of
// their addresses. A step has more than one where some of its calls lie off the
// straight line.
func (im *Image) Runs(yield func(address uint64, step int) bool) {
	for i := range im.calls {
		step := im.calls[i].step
		if (i == 0 || im.calls[i-1].step != step) && !yield(callAddress(i), int(step)) {
			return
		}
	}
}

// Calls calls yield for every call of the program in order, with the step it
// belongs to and its text: name, arguments, and where it goes on errors.
func (im *Image) Calls(yield func(step int, text string) bool) {
	for i := range im.calls {
		if !yield(int(im.calls[i].step), im.text(i)) {
			return
		}
	}
}

// Names are the names of the program's system calls in order; index i is the
// call at the ith place.
func (im *Image) Names() []string {
	names := make([]string, len(im.calls))
	for i, c := range im.calls {
		names[i] = im.name(c)
	}
	return names
}

func (im *Image) name(c call) string {
	name, _ := linux.SyscallName(im.arch, int(c.nr))
	return name
}

func (im *Image) text(i int) string {
	c := im.calls[i]
	args := make([]string, c.nargs)
	for j := range args {
		args[j] = im.argText(c.arg(j))
	}
	s := im.name(c) + "(" + strings.Join(args, ", ") + ")"
	if c.into >= 0 {
		s += fmt.Sprintf(" = $%d", c.into)
	}
	return s
}

func (im *Image) argText(a Arg) string {
	switch a.kind {
	case text:
		return strconv.Quote(im.stringAt(a))
	case block:
		return fmt.Sprintf("%#x", im.addr(a))
	case result:
		return fmt.Sprintf("$%d", a.v)
	}
	if v := int64(a.v); v >= -4096 && v < 4096 {
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprintf("%#x", a.v)
}

func (im *Image) stringAt(a Arg) string {
	s, _, _ := bytes.Cut(im.arena[a.v:], []byte{0})
	return string(s)
}
