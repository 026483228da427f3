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

// A Failure is what a program says of the call that ended it.
type Failure struct {
	Step int    // as given to Builder.Step
	Call string // the system call
	// Strings are those among its arguments.
	Strings []string
	// Errno is the call's error number.
	Errno int
}

// Decode reads a report of ReportSize bytes: the address of the failed call and
// its errno.
func Decode(report []byte) (address uint64, errno int, err error) {
	if len(report) != reportSize {
		return 0, 0, fmt.Errorf("program: report of %d bytes, want %d", len(report), reportSize)
	}
	address, e := binary.LittleEndian.Uint64(report), binary.LittleEndian.Uint64(report[8:])
	if e >= 4096 {
		return 0, 0, fmt.Errorf("program: report with errno %d", e)
	}
	return address, int(e), nil
}

// Failure resolves a report.
func (im *Image) Failure(report []byte) (Failure, error) {
	address, errno, err := Decode(report)
	if err != nil {
		return Failure{}, err
	}
	i := (address - callAddress(0)) / callSize
	if address < callAddress(0) || i >= uint64(len(im.calls)) {
		return Failure{}, fmt.Errorf("program: report names no call: address %#x, errno %d", address, errno)
	}
	c := im.calls[i]
	f := Failure{Step: int(c.step), Call: im.name(c), Errno: errno}
	for j := range int(c.nargs) {
		if a := c.arg(j); a.kind == text {
			f.Strings = append(f.Strings, im.stringAt(a))
		}
	}
	return f, nil
}

// Address is that of the first call of a step, 0 where it has none.
func (im *Image) Address(step int) uint64 {
	for i := range im.calls {
		if int(im.calls[i].step) == step {
			return callAddress(i)
		}
	}
	return 0
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
