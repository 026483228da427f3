package linux

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestNamesAndNumbersAgree(t *testing.T) {
	for n := range len(capabilityNames) {
		if got, ok := Capability(CapabilityName(n)); !ok || got != n {
			t.Errorf("capability %d: got %d, %v", n, got, ok)
		}
	}
	for n := range len(rlimitNames) {
		if got, ok := Rlimit(RlimitName(n)); !ok || got != n {
			t.Errorf("rlimit %d: got %d, %v", n, got, ok)
		}
	}
	for n := 1; n <= SignalRTMax; n++ {
		if got, err := Signal(SignalName(n)); err != nil || got != n {
			t.Errorf("signal %d (%s): got %d, %v", n, SignalName(n), got, err)
		}
	}
	for n := range errnos {
		if errnos[n][0] == "" {
			continue
		}
		if got, ok := Errno(ErrnoName(n)); !ok || got != n {
			t.Errorf("errno %d (%s): got %d, %v", n, ErrnoName(n), got, ok)
		}
	}
	for a := ArchUnknown + 1; a < archCount; a++ {
		if got, ok := ParseArch(a.Spec()); !ok || got != a {
			t.Errorf("arch %v: got %v, %v", a, got, ok)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	if _, ok := Capability("CAP_NOSUCH"); ok {
		t.Error("CAP_NOSUCH is known")
	}
	if _, ok := Capability("cap_chown"); ok {
		t.Error("capabilities are spelled exactly")
	}
	if CapabilityName(-1) != "" || CapabilityName(CapabilityLast+1) != "" || CapabilityLast != 40 {
		t.Errorf("capabilities end at %d", CapabilityLast)
	}
	if _, ok := Errno(""); ok {
		t.Error("the empty errno is known")
	}
	if _, ok := ParseArch(""); ok {
		t.Error("the empty architecture is known")
	}
	if ErrnoText(2) != "no such file or directory" || ErrnoText(4000) != "errno 4000" || ErrnoName(-3) != "-3" {
		t.Error(ErrnoText(2), ErrnoText(4000), ErrnoName(-3))
	}
}

func TestSignal(t *testing.T) {
	for s, want := range map[string]int{
		"9": 9, "KILL": 9, "SIGKILL": 9, "sigkill": 9, "Kill": 9, "0": 0, "64": 64,
		"RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+3": 37, "RTMAX": 64, "RTMAX-14": 50, "RTMIN+30": 64,
		"CLD": 17, "POLL": 29, "IOT": 6, "winch": 28,
	} {
		if got, err := Signal(s); err != nil || got != want {
			t.Errorf("Signal(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "SIG", "SIGSIGKILL", "65", "-1", "RTMIN-1", "RTMIN+31", "RTMIN+", "RTMIN++1", "RTMAX+1", "NOPE", "RTMIN+003"} {
		if got, err := Signal(s); err == nil {
			t.Errorf("Signal(%q) = %d, want an error", s, got)
		}
	}
}

func FuzzSignal(f *testing.F) {
	f.Add("SIGRTMIN+3")
	f.Add("9")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Signal(s)
		if err == nil && (n < 0 || n > SignalRTMax) {
			t.Fatalf("Signal(%q) = %d", s, n)
		}
	})
}

func TestNamespaces(t *testing.T) {
	want := []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	}
	if len(Namespaces()) != len(want) {
		t.Fatalf("%d namespaces", len(Namespaces()))
	}
	for _, typ := range want {
		n, ok := Namespace(typ)
		if !ok {
			t.Errorf("%s: unknown", typ)
			continue
		}
		if back, ok := NamespaceOfFlag(n.CloneFlag); !ok || back != n {
			t.Errorf("%s: flag %#x leads to %v", typ, n.CloneFlag, back)
		}
	}
}

// Spot checks against the kernel's own tables, one per way a number is made.
func TestSyscallNumbers(t *testing.T) {
	for _, c := range []struct {
		arch Arch
		name string
		want int
	}{
		{ArchX86_64, "read", 0},
		{ArchX86_64, "openat2", 437},
		{ArchX86_64, "mount_setattr", 442},
		{ArchX32, "read", 0x40000000},
		{ArchX32, "ioctl", 0x40000000 + 514},
		{ArchX86, "socketcall", 102},
		{ArchX86, "socket", 359},
		{ArchAARCH64, "read", 63},
		{ArchAARCH64, "newfstatat", 79},
		{ArchARM, "read", 3},
		{ArchARM, "cacheflush", 0xf0002},
		{ArchMIPS, "read", 4003},
		{ArchMIPSEL64, "read", 5000},
		{ArchS390X, "read", 3},
		{ArchRISCV64, "riscv_flush_icache", 259},
	} {
		if got, ok := SyscallNumber(c.arch, c.name); !ok || got != c.want {
			t.Errorf("%s %s = %d, %v; want %d", c.arch, c.name, got, ok, c.want)
		}
	}
	for _, c := range []struct {
		arch Arch
		name string
	}{{ArchX32, "uselib"}, {ArchAARCH64, "open"}, {ArchX86_64, "socketcall"}, {ArchX86_64, ""}, {ArchM68K, "read"}, {ArchUnknown, "read"}} {
		if got, ok := SyscallNumber(c.arch, c.name); ok {
			t.Errorf("%s has %q: %d", c.arch, c.name, got)
		}
	}
}

func TestSyscallNamesAgree(t *testing.T) {
	names := make([]string, syscallCount)
	for id := range SyscallID(syscallCount) {
		names[id] = id.Name()
		if got, ok := LookupSyscall(id.Name()); !ok || got != id {
			t.Errorf("%s: found at %d, %v; want %d", id.Name(), got, ok, id)
		}
		for _, previous := range []SyscallID{-9, id - 8, id - 1, id, id + 1, syscallCount} {
			if got, ok := LookupSyscallAfter(previous, id.Name()); !ok || got != id {
				t.Errorf("%s after %d: found at %d, %v; want %d", id.Name(), previous, got, ok, id)
			}
		}
		for a := ArchUnknown + 1; a < archCount; a++ {
			n, ok := SyscallNumber(a, id.Name())
			if !ok {
				continue
			}
			back, ok := SyscallName(a, n)
			if again, _ := SyscallNumber(a, back); !ok || again != n {
				t.Errorf("%s %s = %d, which is %q", a, id.Name(), n, back)
			}
		}
	}
	if !slices.IsSorted(names) {
		t.Error("names are not sorted")
	}
}

func TestDemultiplexed(t *testing.T) {
	if entry, n, ok := Demultiplexed(ArchX86, "connect"); !ok || entry != "socketcall" || n != 3 {
		t.Error(entry, n, ok)
	}
	if entry, n, ok := Demultiplexed(ArchS390X, "shmat"); !ok || entry != "ipc" || n != 21 {
		t.Error(entry, n, ok)
	}
	if _, _, ok := Demultiplexed(ArchX86_64, "connect"); ok {
		t.Error("x86_64 has no socketcall")
	}
}

func TestArchRuns(t *testing.T) {
	for _, c := range []struct {
		kernel, program Arch
		want            bool
	}{
		{ArchX86_64, ArchX86_64, true}, {ArchX86_64, ArchX86, true}, {ArchX86_64, ArchX32, true},
		{ArchX86, ArchX86_64, false}, {ArchAARCH64, ArchARM, true}, {ArchAARCH64, ArchX86, false},
		{ArchUnknown, ArchUnknown, false},
	} {
		if got := c.kernel.Runs(c.program); got != c.want {
			t.Errorf("%s runs %s: %v", c.kernel, c.program, got)
		}
	}
	for arch, want := range map[Arch]uint32{
		ArchX86: 0x40000003, ArchX86_64: 0xc000003e, ArchX32: 0xc000003e, ArchARM: 0x40000028,
		ArchAARCH64: 0xc00000b7, ArchS390X: 0x80000016, ArchPPC64LE: 0xc0000015, ArchMIPS: 0x8,
		ArchRISCV64: 0xc00000f3, ArchLOONGARCH64: 0xc0000102, ArchMIPSEL64N32: 0xe0000008,
	} {
		if arch.Audit() != want {
			t.Errorf("%s: audit %#x, want %#x", arch, arch.Audit(), want)
		}
	}
}
