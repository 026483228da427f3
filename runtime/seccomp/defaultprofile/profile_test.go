package defaultprofile

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/seccomp"
)

// The capabilities Docker gives a container.
var usual = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func known(name string) bool {
	for a := linux.ArchUnknown; a <= linux.ArchSHEB; a++ {
		if _, ok := linux.SyscallNumber(a, name); ok {
			return true
		}
	}
	return false
}

func TestNamesAreCalls(t *testing.T) {
	names := strings.Fields(always)
	for _, c := range byCapability {
		if _, ok := linux.Capability(c.capability); !ok {
			t.Errorf("no capability %s", c.capability)
		}
		names = append(names, strings.Fields(c.names)...)
	}
	for _, name := range names {
		if !known(name) {
			t.Errorf("no architecture has %s", name)
		}
	}
	unique := slices.Compact(slices.Sorted(slices.Values(strings.Fields(always))))
	if len(unique) != len(strings.Fields(always)) {
		t.Error("a name occurs twice")
	}
}

func TestDecisions(t *testing.T) {
	const (
		allow  = "ALLOW"
		eperm  = "ERRNO(EPERM)"
		enosys = "ERRNO(ENOSYS)"
	)
	for _, c := range []struct {
		caps []string
		call string
		args [6]uint64
		want string
	}{
		{usual, "read", [6]uint64{}, allow},
		{usual, "chroot", [6]uint64{}, allow},
		{nil, "chroot", [6]uint64{}, eperm},
		{usual, "mount", [6]uint64{}, eperm},
		{[]string{"CAP_SYS_ADMIN"}, "mount", [6]uint64{}, allow},
		{usual, "clone", [6]uint64{linux.CLONE_VM | linux.CLONE_THREAD}, allow},
		{usual, "clone", [6]uint64{linux.CLONE_NEWUSER}, eperm},
		{[]string{"CAP_SYS_ADMIN"}, "clone", [6]uint64{linux.CLONE_NEWUSER}, allow},
		{usual, "clone3", [6]uint64{}, enosys},
		{[]string{"CAP_SYS_ADMIN"}, "clone3", [6]uint64{}, allow},
		{usual, "socket", [6]uint64{linux.AF_UNIX}, allow},
		{usual, "socket", [6]uint64{10}, allow},
		{usual, "socket", [6]uint64{linux.AF_NETLINK}, allow},
		{usual, "socket", [6]uint64{linux.AF_ALG}, eperm},
		{usual, "socket", [6]uint64{linux.AF_VSOCK}, eperm},
		{usual, "socket", [6]uint64{46}, eperm},
		{usual, "personality", [6]uint64{8}, allow},
		{usual, "personality", [6]uint64{0x0400000}, eperm},
		{usual, "keyctl", [6]uint64{}, eperm},
		{usual, "io_uring_setup", [6]uint64{}, eperm},
		{usual, "bpf", [6]uint64{}, eperm},
		{[]string{"CAP_BPF"}, "bpf", [6]uint64{}, allow},
		{usual, "rseq_slice_yield", [6]uint64{}, enosys},
	} {
		for _, native := range []linux.Arch{linux.ArchX86_64, linux.ArchAARCH64} {
			program, err := seccomp.Compile(New(native, c.caps), native)
			if err != nil {
				t.Fatal(err)
			}
			nr, ok := linux.SyscallNumber(native, c.call)
			if !ok {
				t.Fatalf("%s has no %s", native, c.call)
			}
			action, _, err := seccomp.Interpret(program.Instructions, seccomp.Data{Nr: uint32(nr), Arch: native.Audit(), Args: c.args})
			if got := seccomp.ActionName(action); err != nil || got != c.want {
				t.Errorf("%s %s%x with %v: %s, %v; want %s", native, c.call, c.args, c.caps, got, err, c.want)
			}
		}
	}
}

// What Docker 20.10 allowed is allowed, except what has been found dangerous since.
func TestNothingLost(t *testing.T) {
	text, err := os.ReadFile("../testdata/docker.json")
	if err != nil {
		t.Fatal(err)
	}
	var docker specs.LinuxSeccomp
	if err := json.Unmarshal(text, &docker); err != nil {
		t.Fatal(err)
	}
	ours := New(linux.ArchX86_64, usual)
	if !slices.Equal(ours.Architectures, docker.Architectures) {
		t.Errorf("architectures %v, Docker %v", ours.Architectures, docker.Architectures)
	}
	var allowed []string
	for _, s := range ours.Syscalls {
		if s.Action == specs.ActAllow {
			allowed = append(allowed, s.Names...)
		}
	}
	for _, s := range docker.Syscalls {
		for _, name := range s.Names {
			if s.Action == specs.ActAllow && !slices.Contains(allowed, name) && !strings.HasPrefix(name, "io_uring_") {
				t.Errorf("%s is not allowed", name)
			}
		}
	}
}

func TestSize(t *testing.T) {
	program, err := seccomp.Compile(New(linux.ArchX86_64, usual), linux.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(program.Instructions))
	if len(program.Instructions) > 400 {
		t.Errorf("%d instructions", len(program.Instructions))
	}
}
