package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// load reads a profile as an engine wrote it.
func load(t testing.TB, name string) *specs.LinuxSeccomp {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := decodeProfile(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decodeProfile(text []byte) (*specs.LinuxSeccomp, error) {
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

func mustCompile(t testing.TB, p *specs.LinuxSeccomp, native linux.Arch) Program {
	t.Helper()
	program, err := Compile(p, native)
	if err != nil {
		t.Fatal(err)
	}
	checkForm(t, program.Instructions)
	return program
}

// checkForm holds what the kernel's verifier asks of a filter, and that every
// instruction can be reached.
func checkForm(t testing.TB, program []Instruction) {
	t.Helper()
	reached := make([]bool, len(program)+1)
	reached[0] = true
	for i, in := range program {
		if !reached[i] {
			t.Errorf("instruction %d cannot be reached", i)
		}
		switch in.Code {
		case opReturn:
			continue
		case opLoad, opAnd:
			reached[i+1] = true
			continue
		}
		jumps := []int{i + 1 + int(in.Jt), i + 1 + int(in.Jf)}
		if in.Code == opJump {
			jumps = []int{i + 1 + int(in.K)}
		}
		for _, to := range jumps {
			if to >= len(program) {
				t.Fatalf("instruction %d jumps to %d of %d", i, to, len(program))
			}
			reached[to] = true
		}
	}
	if reached[len(program)] {
		t.Error("the last instruction falls out of the program")
	}
}

func agree(t testing.TB, p *specs.LinuxSeccomp, native linux.Arch, program Program, d Data) {
	t.Helper()
	got, _, err := Interpret(program.Instructions, d)
	if err != nil {
		t.Fatal(err)
	}
	if want := reference(p, native, d); got != want {
		text, _ := json.MarshalIndent(p, "", " ")
		t.Fatalf("%s, call %+v: %s, want %s\n%s\n%s", native, d, ActionName(got), ActionName(want), text, program)
	}
}

func TestRecordedProfiles(t *testing.T) {
	for _, name := range []string{"docker", "podman", "podman-rootless"} {
		for _, native := range []linux.Arch{linux.ArchX86_64, linux.ArchAARCH64} {
			p := load(t, name)
			program := mustCompile(t, p, native)
			for _, arch := range []linux.Arch{linux.ArchX86_64, linux.ArchX86, linux.ArchX32, linux.ArchAARCH64, linux.ArchARM} {
				for nr := range uint32(700) {
					for _, arg := range []uint64{0, 0x20000, 1<<32 | 1} {
						d := Data{Arch: arch.Audit(), Nr: nr, Args: [6]uint64{arg, arg, arg, arg, arg, arg}}
						if arch == linux.ArchX32 {
							d.Nr |= linux.X32SyscallBit
						}
						agree(t, p, native, program, d)
					}
				}
			}
		}
	}
}

var natives = []linux.Arch{linux.ArchX86_64, linux.ArchAARCH64, linux.ArchX86, linux.ArchS390X, linux.ArchMIPSEL64, linux.ArchPPC64}

func checkGenerated(t testing.TB, g generator, calls int) {
	native := pick(g, natives)
	p := g.profile(native)
	program, err := Compile(p, native)
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if name == "write" && s.Action == specs.ActNotify {
				return
			}
		}
	}
	if err != nil {
		t.Fatalf("%v\n%+v", err, p)
	}
	checkForm(t, program.Instructions)
	for range calls {
		agree(t, p, native, program, g.data(p, native))
	}
}

func TestRandomProfiles(t *testing.T) {
	g := fromRand(rand.New(rand.NewPCG(1, 2)))
	for range 300 {
		checkGenerated(t, g, 60)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte("a profile is chosen by these bytes, and so are the calls"))
	f.Fuzz(func(t *testing.T, choices []byte) {
		checkGenerated(t, fromBytes(choices), 8)
	})
}

// FuzzInterpret: no program makes the interpreter panic or run on.
func FuzzInterpret(f *testing.F) {
	f.Add([]byte{opLoad, 0, 0, 4, opReturn, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var program []Instruction
		for ; len(b) >= 4; b = b[4:] {
			program = append(program, Instruction{Code: uint16(b[0]), Jt: b[1], Jf: b[2], K: uint32(b[3])})
		}
		_, executed, _ := Interpret(program, Data{})
		if executed > len(program) {
			t.Fatalf("%d instructions executed of %d", executed, len(program))
		}
		_ = Program{Instructions: program}.String()
	})
}

// Every call with its own errno, so that returns get out of reach of one
// another and of the comparisons.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	for nr := range 400 {
		name, ok := linux.SyscallName(linux.ArchX86_64, nr)
		if !ok {
			continue
		}
		errno := uint(1 + nr)
		s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno}
		if nr%10 == 0 {
			for i := range uint(5) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: i, Op: specs.OpGreaterEqual, Value: uint64(i)<<32 + 7})
			}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	program := mustCompile(t, p, linux.ArchX86_64)
	t.Logf("%d instructions", len(program.Instructions))
	g := fromRand(rand.New(rand.NewPCG(3, 4)))
	for range 5000 {
		agree(t, p, linux.ArchX86_64, program, g.data(p, linux.ArchX86_64))
	}
}

func TestTooLong(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range uint64(5000) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"ioctl"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo, Value: i}}})
	}
	if _, err := Compile(p, linux.ArchX86_64); err == nil || !strings.Contains(err.Error(), "too many rules") {
		t.Error(err)
	}
	p.Syscalls = p.Syscalls[:4094]
	if _, err := Compile(p, linux.ArchX86_64); err == nil || !strings.Contains(err.Error(), "the kernel takes 4096") {
		t.Error(err)
	}
	p.Syscalls = p.Syscalls[:4000]
	mustCompile(t, p, linux.ArchX86_64)
}

func TestErrors(t *testing.T) {
	entry := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}, s}}
	}
	one, many := uint(1), uint(4096)
	for want, p := range map[string]*specs.LinuxSeccomp{
		"linux.seccomp: no profile":                                                                nil,
		`linux.seccomp.defaultAction: unknown action "SCMP_ACT_NO"`:                                {DefaultAction: "SCMP_ACT_NO"},
		"linux.seccomp.defaultAction: SCMP_ACT_KILL returns no errno, but one is given":            {DefaultAction: specs.ActKill, DefaultErrnoRet: &one},
		"linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action":            {DefaultAction: specs.ActNotify},
		"linux.seccomp.defaultAction: errno 4096 of SCMP_ACT_ERRNO is above 4095":                  {DefaultAction: specs.ActErrno, DefaultErrnoRet: &many},
		`linux.seccomp.architectures[1]: unknown architecture "VAX"`:                               {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, "VAX"}},
		"linux.seccomp.listenerPath: not set, and SCMP_ACT_NOTIFY needs it":                        entry(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify}),
		`linux.seccomp.flags[0]: unknown flag "SECCOMP_FILTER_FLAG_NO"`:                            {DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NO"}},
		"linux.seccomp.syscalls[1].names: none":                                                    entry(specs.LinuxSyscall{Action: specs.ActAllow}),
		"linux.seccomp.syscalls[1].names[0]: empty":                                                entry(specs.LinuxSyscall{Names: []string{""}, Action: specs.ActAllow}),
		"linux.seccomp.syscalls[1].names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall": entry(specs.LinuxSyscall{Names: []string{"read", "write"}, Action: specs.ActNotify}),
		`linux.seccomp.syscalls[1].action: unknown action ""`:                                      entry(specs.LinuxSyscall{Names: []string{"read"}}),
		"linux.seccomp.syscalls[1].action: SCMP_ACT_ALLOW returns no errno, but one is given":      entry(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, ErrnoRet: &one}),
		"linux.seccomp.syscalls[1].args[0].index: 6: a system call has 6 arguments":                entry(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		`linux.seccomp.syscalls[1].args[1].op: unknown operator "=="`:                              entry(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}, {Op: "=="}}}),
	} {
		if _, err := Compile(p, linux.ArchX86_64); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := Compile(load(t, "docker"), linux.ArchM68K); err == nil {
		t.Error("compiled without a table")
	}
}

func TestFlags(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{
		"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv,
	}}
	program := mustCompile(t, p, linux.ArchX86_64)
	if program.Flags != linux.SECCOMP_FILTER_FLAG_LOG|linux.SECCOMP_FILTER_FLAG_SPEC_ALLOW || program.Notifies() {
		t.Errorf("flags %#x", program.Flags)
	}
	p.Syscalls, p.ListenerPath = []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}, "/run/agent.sock"
	program = mustCompile(t, p, linux.ArchX86_64)
	if program.Flags&linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV == 0 || !program.Notifies() {
		t.Errorf("flags %#x", program.Flags)
	}
	for want, flags := range map[uint64][]specs.LinuxSeccompFlag{linux.SECCOMP_FILTER_FLAG_SPEC_ALLOW: nil, 0: {}} {
		if got, err := ParseFlags(flags); got != want || err != nil {
			t.Errorf("%v: %#x, %v", flags, got, err)
		}
	}
}

// Every name that features may list is one that Compile takes, and what the
// specification lists is among them.
func TestKnownNames(t *testing.T) {
	for _, action := range Actions() {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/agent.sock",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: action}}}
		mustCompile(t, p, linux.ArchX86_64)
	}
	for _, op := range Operators() {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: op}}}}}
		mustCompile(t, p, linux.ArchX86_64)
	}
	for flag, value := range Flags {
		if got, err := ParseFlags([]specs.LinuxSeccompFlag{flag}); got != value || err != nil {
			t.Errorf("%s: %#x, %v", flag, got, err)
		}
	}
	if len(Actions()) != 9 || len(Operators()) != 7 {
		t.Errorf("%v, %v", Actions(), Operators())
	}
}

func TestString(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read", "write"}, Action: specs.ActAllow},
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: 0x7e020000, Op: specs.OpMaskedEqual}}},
	}}
	const want = `   0  load   arch
   1  if ==  0xc000003e ? 2 : 11
   2  load   nr
   3  if >=  0x40000000 ? 7 : 4
   4  if >=  0x38 ? 6 : 5
   5  if >=  0x2 ? 15 : 14
   6  if >=  0x39 ? 9 : 12
   7  if >=  0xc0000000 ? 10 : 8
   8  if >=  0x80000000 ? 9 : 11
   9  return ERRNO(ENOSYS)
  10  if >=  0xffffffff ? 15 : 11
  11  return KILL_THREAD
  12  load   args[0]+0
  13  if &   0x7e020000 ? 15 : 14
  14  return ALLOW
  15  return ERRNO(EPERM)
`
	got := mustCompile(t, p, linux.ArchX86_64).String()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAppendBinary(t *testing.T) {
	p := Program{Instructions: []Instruction{{Code: opEqual, Jt: 1, Jf: 2, K: 0xc000003e}}}
	if got := fmt.Sprintf("%x", p.AppendBinary([]byte{0xff})); got != "ff15000102"+"3e0000c0" {
		t.Error(got)
	}
}

func BenchmarkCompileDocker(b *testing.B) {
	p := load(b, "docker")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(p, linux.ArchX86_64); err != nil {
			b.Fatal(err)
		}
	}
}
