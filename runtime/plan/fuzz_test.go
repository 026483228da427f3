package plan_test

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// FuzzFields compiles the example with single fields of any content: what is
// accepted must give a plan for each architecture that verifies, of whose program
// every call belongs to a step, and that can be printed.
func FuzzFields(f *testing.F) {
	f.Add("/etc/resolv.conf", "/src", "bind", "rbind,ro,rslave", "/work", "sh", "PATH=/bin:", "net.ipv4.ip_forward", uint32(0), int64(1), uint16(0))
	f.Add("t//../../x", "", "tmpfs", "size=1m,mode=755,noatime,strictatime", "/", "/bin/../sh", "PATH=::x", "a/b/../c", uint32(1000), int64(-1), uint16(0x3ff))
	f.Add("/d", "/s", "bind", "0-3,7", "/", "a", "HOME=", "profile", uint32(3), int64(5), uint16(0xf82))
	f.Add("/d", "/s", "bind", "", "/", "a", "label", "profile", uint32(3), int64(5), uint16(0xd80))
	f.Add("/", "rel/ative", "none", "remount,bind,rro,rw", "relative", "", "HOME=", "kernel.x\x00", ^uint32(0), int64(1)<<40, uint16(0x155))
	f.Fuzz(func(t *testing.T, dest, source, typ, options, cwd, arg, env, key string, id uint32, number int64, flags uint16) {
		s := spec.Example(false)
		on := func(bit int) bool { return flags&(1<<bit) != 0 }
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Source: source, Type: typ, Options: strings.Split(options, ",")})
		s.Process.Terminal, s.Process.Cwd, s.Process.Args, s.Process.Env = on(0), cwd, []string{arg}, append(s.Process.Env, env)
		s.Process.User = specs.User{UID: id, GID: id, AdditionalGids: []uint32{id}}
		s.Root.Readonly, s.Process.NoNewPrivileges = on(1), on(2)
		s.Linux.Sysctl = map[string]string{key: env}
		mode := os.FileMode(id)
		s.Linux.Devices = []specs.LinuxDevice{{Path: dest, Type: typ, Major: number, Minor: int64(id), FileMode: &mode, UID: &id}}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = append(s.Linux.MaskedPaths, dest), append(s.Linux.ReadonlyPaths, source)
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: uint64(number), Hard: uint64(number)})
		if on(3) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: id, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}
		if on(4) {
			s.Linux.Namespaces[1].Path = source
		}
		s.Linux.RootfsPropagation = map[bool]string{true: options}[on(5)]
		if on(8) {
			s.Process.ApparmorProfile, s.Process.SelinuxLabel = key, env
		}
		if on(9) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: uint64(number), Nice: int32(id)}
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: int(id)}
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: key, Final: options}
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: options}
		}
		if on(10) {
			s.Process = nil
		}
		if spec.Validate(s) != nil && on(6) {
			return // else Compile has to stand even what it is never given
		}
		for _, arch := range []string{"amd64", "arm64"} {
			facts := facts(s)
			facts.Host.Arch, facts.Wait, facts.PreserveFDs = arch, on(7), int(flags>>12)
			if on(11) {
				facts.Host.Caps, facts.Host.UID = 0, 1000
			}
			p, err := plan.Compile(s, facts)
			check(t, p, err)
			if s.Process != nil {
				facts.Wait = false // exec never does
				p, err = plan.CompileExec(s, facts)
				check(t, p, err)
			}
		}
	})
}

// check wants an error, or a plan that verifies and can be printed.
func check(t *testing.T, p *plan.Plan, err error) {
	t.Helper()
	if err != nil {
		return
	}
	im, err := p.Program()
	if err != nil && strings.Contains(err.Error(), "too large") {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	for step := range im.Calls {
		if step < -1 || step >= len(p.Steps) {
			t.Fatalf("a call of step %d of %d", step, len(p.Steps))
		}
	}
	var out strings.Builder
	if err := p.Print(&out, true); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n < len(p.Steps) {
		t.Fatalf("%d steps in %d lines", len(p.Steps), n)
	}
}
