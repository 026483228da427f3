package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// The program for cgroup v2's device access (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15) walks the rules backwards, so that the last
// word is the first heard. r5 holds what access is still to be decided: a matching rule that allows takes its share away, and when none is
// left, the answer is yes; one that denies any of it answers no.
//
//	r2 = type, r3 = major, r4 = minor, r5 = access
//	for each rule, last first:
//	    if the rule is not about r2, r3, r4: goto next
//	    allow:  r5 &= ~rule.access; if r5 != 0 goto next; return 1
//	    deny:   if !(r5 & rule.access) goto next; return 0
//	next:
//	return what the rule for everything says

// insn is struct bpf_insn.
type insn struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

const (
	r0 uint8 = iota
	r1
	r2
	r3
	r4
	r5
)

const (
	opLoad32  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMov     = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAnd32   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRsh32   = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opMov32X  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opJne32   = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opJset    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opJump    = unix.BPF_JMP | unix.BPF_JA
	opExit    = unix.BPF_JMP | unix.BPF_EXIT
	devBlock  = 1 // BPF_DEVCG_DEV_BLOCK
	devChar   = 2 // BPF_DEVCG_DEV_CHAR
	ctxAccess = 0 // offsets in struct bpf_cgroup_dev_ctx
	ctxMajor  = 4
	ctxMinor  = 8
	// maxDeviceRules bounds the program: a rule takes up to seven instructions, of which the kernel verifies a million.
	maxDeviceRules = 10_000
)

// deviceProgram assembles the rules; the first of them is the one for everything.
func deviceProgram(rules []deviceRule) ([]insn, error) {
	if len(rules) > maxDeviceRules {
		return nil, fieldError("devices", fmt.Errorf("more than %d rules", maxDeviceRules))
	}
	prog := []insn{
		{op: opLoad32, dst: r2, src: r1, off: ctxAccess},
		{op: opMov32X, dst: r5, src: r2},
		{op: opAnd32, dst: r2, imm: 0xffff}, // access_type is (access << 16) | type
		{op: opRsh32, dst: r5, imm: 16},
		{op: opLoad32, dst: r3, src: r1, off: ctxMajor},
		{op: opLoad32, dst: r4, src: r1, off: ctxMinor},
	}
	for i := len(rules) - 1; i > 0; i-- {
		prog = append(prog, ruleCode(rules[i])...)
	}
	return append(prog, verdict(rules[0].allow)...), nil
}

func verdict(allow bool) []insn {
	answer := int32(0)
	if allow {
		answer = 1
	}
	return []insn{{op: opMov, dst: r0, imm: answer}, {op: opExit}}
}

// ruleCode assembles one rule. Its jumps lead to the instruction after it.
func ruleCode(r deviceRule) []insn {
	code := make([]insn, 0, 7)
	if r.typ != 'a' {
		kind := int32(devChar)
		if r.typ == 'b' {
			kind = devBlock
		}
		code = append(code, insn{op: opJne32, dst: r2, imm: kind})
	}
	if r.major != any64 {
		code = append(code, insn{op: opJne32, dst: r3, imm: int32(uint32(r.major))})
	}
	if r.minor != any64 {
		code = append(code, insn{op: opJne32, dst: r4, imm: int32(uint32(r.minor))})
	}
	if r.allow {
		code = append(code, insn{op: opAnd32, dst: r5, imm: int32(accessAll &^ r.access)}, insn{op: opJne32, dst: r5})
	} else {
		code = append(code, insn{op: opJset, dst: r5, off: 1, imm: int32(r.access)}, insn{op: opJump})
	}
	code = append(code, verdict(r.allow)...)
	for i := range code {
		if code[i].op == opJne32 || code[i].op == opJump {
			code[i].off = int16(len(code) - i - 1)
		}
	}
	return code
}

// encode returns the instructions in the kernel's form, in this machine's byte order (both of ours are little-endian).
func encode(prog []insn) []byte {
	out := make([]byte, 0, 8*len(prog))
	for _, in := range prog {
		out = append(out, in.op, in.dst|in.src<<4)
		out = binary.LittleEndian.AppendUint16(out, uint16(in.off))
		out = binary.LittleEndian.AppendUint32(out, uint32(in.imm))
	}
	return out
}

// attachDevicesV2 loads the rules' program and attaches it to the cgroup dir. It goes when the cgroup does. Programs that are there
// already, such as systemd's, go on having their say (BPF_F_ALLOW_MULTI): access needs the consent of all.
func attachDevicesV2(dir string, rules []deviceRule) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	code := encode(prog)
	fd, err := bpfLoadDevice(code)
	if err != nil {
		return fieldError("devices", fmt.Errorf("load a program of %d instructions: %w", len(prog), err))
	}
	defer unix.Close(fd)
	dirFD, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fieldError("devices", err)
	}
	defer unix.Close(dirFD)
	if err := bpfAttachDevice(dirFD, fd); err != nil {
		return fieldError("devices", fmt.Errorf("attach a program to %s: %w", dir, err))
	}
	runtime.KeepAlive(code)
	return nil
}

// detachDevicesV2 takes away what our programs for devices an earlier container has left in a cgroup. Others' have their reasons.
func detachDevicesV2(dir string) error {
	dirFD, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fieldError("devices", err)
	}
	defer unix.Close(dirFD)
	ids, err := bpfDevicePrograms(dirFD)
	for _, id := range ids {
		err = errors.Join(err, detachOurs(dirFD, id))
	}
	if err != nil {
		return fieldError("devices", fmt.Errorf("programs of %s: %w", dir, err))
	}
	return nil
}

func detachOurs(dirFD int, id uint32) error {
	fd, err := bpfOpen(id)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	name, err := bpfName(fd)
	if err == nil && name == programName {
		err = bpfDetachDevice(dirFD, fd)
	}
	return err
}
