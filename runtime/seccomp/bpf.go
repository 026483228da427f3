package seccomp

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

// Instruction is one instruction of classic BPF: struct sock_filter.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8 // how many instructions to skip if a comparison holds, or not
	K      uint32
}

// InstructionSizeBytes is the size of struct sock_filter.
const InstructionSizeBytes = 8

// MaxInstructions is the kernel's BPF_MAXINSNS.
const MaxInstructions = 4096

// The instructions a filter here is made of: include/uapi/linux/bpf_common.h.
const (
	opLoad   = 0x20 // BPF_LD|BPF_W|BPF_ABS: load a word of struct seccomp_data
	opAnd    = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJump   = 0x05 // BPF_JMP|BPF_JA
	opEqual  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opGT     = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	opGE     = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opSet    = 0x45 // BPF_JMP|BPF_JSET|BPF_K
	opReturn = 0x06 // BPF_RET|BPF_K
)

// Offsets in struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
	dataSize   = 64
)

// Program is a compiled filter and the flags to load it with.
type Program struct {
	Instructions []Instruction
	Flags        uint64 // SECCOMP_FILTER_FLAG_*
}

// Notifies reports whether the filter hands calls to a supervisor: loading it
// then returns a listener, which has to reach linux.seccomp.listenerPath.
func (p Program) Notifies() bool { return p.Flags&linux.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

// AppendBinary appends the instructions as the kernel reads them on a
// little-endian machine, which all that tare runs on are.
func (p Program) AppendBinary(b []byte) []byte {
	for _, in := range p.Instructions {
		b = binary.LittleEndian.AppendUint16(b, in.Code)
		b = append(b, in.Jt, in.Jf)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	return b
}

// String lists the program, one instruction a line with its jumps resolved.
func (p Program) String() string {
	var b strings.Builder
	for i, in := range p.Instructions {
		fmt.Fprintf(&b, "%4d  %s\n", i, in.at(i))
	}
	return b.String()
}

// at prints an instruction at its place in a program.
func (in Instruction) at(i int) string {
	compare := func(name string) string {
		return fmt.Sprintf("%-6s %#x ? %d : %d", name, in.K, i+1+int(in.Jt), i+1+int(in.Jf))
	}
	switch in.Code {
	case opLoad:
		return "load   " + fieldName(in.K)
	case opAnd:
		return fmt.Sprintf("and    %#x", in.K)
	case opJump:
		return fmt.Sprintf("jump   %d", i+1+int(in.K))
	case opEqual:
		return compare("if ==")
	case opGT:
		return compare("if >")
	case opGE:
		return compare("if >=")
	case opSet:
		return compare("if &")
	case opReturn:
		return "return " + ActionName(in.K)
	}
	return fmt.Sprintf("%#04x %d %d %#x", in.Code, in.Jt, in.Jf, in.K)
}

func fieldName(offset uint32) string {
	switch {
	case offset == offsetNr:
		return "nr"
	case offset == offsetArch:
		return "arch"
	case offset >= offsetArgs && offset < dataSize && offset%4 == 0:
		return fmt.Sprintf("args[%d]+%d", (offset-offsetArgs)/8, offset%8)
	}
	return fmt.Sprintf("[%d]", offset)
}

// ActionName prints a value a filter returns: "ERRNO(EPERM)".
func ActionName(value uint32) string {
	data := int(value & linux.SECCOMP_RET_DATA)
	switch value & linux.SECCOMP_RET_ACTION_FULL {
	case linux.SECCOMP_RET_KILL_PROCESS:
		return "KILL_PROCESS"
	case linux.SECCOMP_RET_KILL_THREAD:
		return "KILL_THREAD"
	case linux.SECCOMP_RET_TRAP:
		return "TRAP"
	case linux.SECCOMP_RET_ERRNO:
		return "ERRNO(" + linux.ErrnoName(data) + ")"
	case linux.SECCOMP_RET_USER_NOTIF:
		return "NOTIFY"
	case linux.SECCOMP_RET_TRACE:
		return fmt.Sprintf("TRACE(%d)", data)
	case linux.SECCOMP_RET_LOG:
		return "LOG"
	case linux.SECCOMP_RET_ALLOW:
		return "ALLOW"
	}
	return fmt.Sprintf("%#x", value)
}
