package seccomp

import (
	"errors"
	"fmt"
)

// Data is what a filter decides on: struct seccomp_data.
type Data struct {
	Nr                 uint32
	Arch               uint32 // AUDIT_ARCH_*
	InstructionPointer uint64
	Args               [6]uint64
}

// auditLittleEndian is __AUDIT_ARCH_LE.
const auditLittleEndian = 0x40000000

// word returns the 32 bits at an offset, which for the 64-bit fields depends on
// the architecture's byte order.
func (d *Data) word(offset uint32) (uint32, error) {
	switch {
	case offset%4 != 0 || offset >= dataSize:
		return 0, fmt.Errorf("load at offset %d", offset)
	case offset == offsetNr:
		return d.Nr, nil
	case offset == offsetArch:
		return d.Arch, nil
	}
	v := d.InstructionPointer
	if offset >= offsetArgs {
		v = d.Args[(offset-offsetArgs)/8]
	}
	if high := offset%8 == 4; high == (d.Arch&auditLittleEndian != 0) {
		return uint32(v >> 32), nil
	}
	return uint32(v), nil
}

// Interpret runs a filter as the kernel would and returns its verdict and how
// many instructions that took. It serves tests and explanations; it knows the
// instructions that Compile emits and refuses all others.
func Interpret(program []Instruction, data Data) (action uint32, executed int, err error) {
	var a uint32
	for pc := 0; pc < len(program); executed++ {
		in := program[pc]
		pc++
		taken := false
		switch in.Code {
		case opLoad:
			if a, err = data.word(in.K); err != nil {
				return 0, executed, fmt.Errorf("instruction %d: %w", pc-1, err)
			}
			continue
		case opAnd:
			a &= in.K
			continue
		case opJump:
			if in.K >= MaxInstructions {
				return 0, executed, fmt.Errorf("instruction %d: jump over %d", pc-1, in.K)
			}
			pc += int(in.K)
			continue
		case opReturn:
			return in.K, executed + 1, nil
		case opEqual:
			taken = a == in.K
		case opGT:
			taken = a > in.K
		case opGE:
			taken = a >= in.K
		case opSet:
			taken = a&in.K != 0
		default:
			return 0, executed, fmt.Errorf("instruction %d: unknown code %#x", pc-1, in.Code)
		}
		if taken {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return 0, executed, errors.New("program ends without a return")
}
