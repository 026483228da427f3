package linux

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Arch is a system call ABI, as libseccomp and runtime-spec count them: x32 is
// one of its own, although the kernel reports it as x86_64.
type Arch uint8

// ArchUnknown is the zero Arch; the others are runtime-spec's.
const (
	ArchUnknown Arch = iota
	ArchX86
	ArchX86_64
	ArchX32
	ArchARM
	ArchAARCH64
	ArchMIPS
	ArchMIPS64
	ArchMIPS64N32
	ArchMIPSEL
	ArchMIPSEL64
	ArchMIPSEL64N32
	ArchPPC
	ArchPPC64
	ArchPPC64LE
	ArchS390
	ArchS390X
	ArchPARISC
	ArchPARISC64
	ArchRISCV64
	ArchLOONGARCH64
	ArchM68K
	ArchSH
	ArchSHEB
	archCount
)

// X32SyscallBit marks an x32 call in a system call number on x86_64.
const X32SyscallBit = 0x40000000

// AUDIT_ARCH values are the ELF machine with two bits for word size and byte
// order: include/uapi/linux/audit.h.
const (
	audit64   = 0x80000000
	auditLE   = 0x40000000
	auditN32  = 0x20000000 // a convention of mips64
	emMIPS    = 8
	emPARISC  = 15
	emPPC     = 20
	emPPC64   = 21
	emS390    = 22
	emARM     = 40
	emSH      = 42
	em386     = 3
	em68K     = 4
	emX86_64  = 62
	emAARCH64 = 183
	emRISCV   = 243
	emLOONG   = 258
)

var archs = [archCount]struct {
	name   specs.Arch
	audit  uint32
	family Arch // the 64-bit kernel that runs it, itself for those
	wide   bool // 64-bit system call arguments
}{
	ArchX86:         {specs.ArchX86, em386 | auditLE, ArchX86_64, false},
	ArchX86_64:      {specs.ArchX86_64, emX86_64 | audit64 | auditLE, ArchX86_64, true},
	ArchX32:         {specs.ArchX32, emX86_64 | audit64 | auditLE, ArchX86_64, false},
	ArchARM:         {specs.ArchARM, emARM | auditLE, ArchAARCH64, false},
	ArchAARCH64:     {specs.ArchAARCH64, emAARCH64 | audit64 | auditLE, ArchAARCH64, true},
	ArchMIPS:        {specs.ArchMIPS, emMIPS, ArchMIPS64, false},
	ArchMIPS64:      {specs.ArchMIPS64, emMIPS | audit64, ArchMIPS64, true},
	ArchMIPS64N32:   {specs.ArchMIPS64N32, emMIPS | audit64 | auditN32, ArchMIPS64, false},
	ArchMIPSEL:      {specs.ArchMIPSEL, emMIPS | auditLE, ArchMIPSEL64, false},
	ArchMIPSEL64:    {specs.ArchMIPSEL64, emMIPS | audit64 | auditLE, ArchMIPSEL64, true},
	ArchMIPSEL64N32: {specs.ArchMIPSEL64N32, emMIPS | audit64 | auditLE | auditN32, ArchMIPSEL64, false},
	ArchPPC:         {specs.ArchPPC, emPPC, ArchPPC64, false},
	ArchPPC64:       {specs.ArchPPC64, emPPC64 | audit64, ArchPPC64, true},
	ArchPPC64LE:     {specs.ArchPPC64LE, emPPC64 | audit64 | auditLE, ArchPPC64LE, true},
	ArchS390:        {specs.ArchS390, emS390, ArchS390X, false},
	ArchS390X:       {specs.ArchS390X, emS390 | audit64, ArchS390X, true},
	ArchPARISC:      {specs.ArchPARISC, emPARISC, ArchPARISC64, false},
	ArchPARISC64:    {specs.ArchPARISC64, emPARISC | audit64, ArchPARISC64, true},
	ArchRISCV64:     {specs.ArchRISCV64, emRISCV | audit64 | auditLE, ArchRISCV64, true},
	ArchLOONGARCH64: {specs.ArchLOONGARCH64, emLOONG | audit64 | auditLE, ArchLOONGARCH64, true},
	ArchM68K:        {specs.ArchM68K, em68K, ArchM68K, false},
	ArchSH:          {specs.ArchSH, emSH | auditLE, ArchSH, false},
	ArchSHEB:        {specs.ArchSHEB, emSH, ArchSHEB, false},
}

// ParseArch reads a runtime-spec architecture ("SCMP_ARCH_X86_64").
func ParseArch(name specs.Arch) (Arch, bool) {
	for i := range archs {
		if archs[i].name == name && name != "" {
			return Arch(i), true
		}
	}
	return ArchUnknown, false
}

// ArchNames lists runtime-spec's architectures.
func ArchNames() []string {
	names := make([]string, 0, archCount)
	for i := range archs {
		if archs[i].name != "" {
			names = append(names, string(archs[i].name))
		}
	}
	return names
}

// NativeArch is the architecture of a GOARCH.
func NativeArch(goarch string) (Arch, bool) {
	switch goarch {
	case "amd64":
		return ArchX86_64, true
	case "arm64":
		return ArchAARCH64, true
	case "386":
		return ArchX86, true
	case "arm":
		return ArchARM, true
	case "mips":
		return ArchMIPS, true
	case "mips64":
		return ArchMIPS64, true
	case "mipsle":
		return ArchMIPSEL, true
	case "mips64le":
		return ArchMIPSEL64, true
	case "ppc64":
		return ArchPPC64, true
	case "ppc64le":
		return ArchPPC64LE, true
	case "s390x":
		return ArchS390X, true
	case "riscv64":
		return ArchRISCV64, true
	case "loong64":
		return ArchLOONGARCH64, true
	}
	return ArchUnknown, false
}

func (a Arch) valid() bool { return a > ArchUnknown && a < archCount }

// Spec is the architecture's name in config.json.
func (a Arch) Spec() specs.Arch {
	if !a.valid() {
		return ""
	}
	return archs[a].name
}

func (a Arch) String() string {
	if !a.valid() {
		return "SCMP_ARCH_UNKNOWN"
	}
	return string(archs[a].name)
}

// Audit is the AUDIT_ARCH_* value a seccomp filter sees in seccomp_data.arch.
// x32 has that of x86_64.
func (a Arch) Audit() uint32 {
	if !a.valid() {
		return 0
	}
	return archs[a].audit
}

// Wide reports whether system call arguments are 64 bits wide.
func (a Arch) Wide() bool { return a.valid() && archs[a].wide }

// BigEndian reports the byte order, which places the halves of an argument in
// seccomp_data.
func (a Arch) BigEndian() bool { return a.valid() && archs[a].audit&auditLE == 0 }

// Runs reports whether a kernel of architecture a can run programs of
// architecture b: itself, or one of its compatibility modes. Where it cannot,
// a seccomp filter never sees b.
func (a Arch) Runs(b Arch) bool {
	return a.valid() && b.valid() && (a == b || a == archs[b].family)
}
