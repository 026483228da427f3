package features

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/linux"
)

// What is claimed compiles, name by name.
func TestClaims(t *testing.T) {
	f := New()
	each := func(what string, names []string, change func(s *specs.Spec, name string)) {
		if !slices.IsSorted(slices.Compact(slices.Sorted(slices.Values(names)))) || slices.Contains(names, "") {
			t.Errorf("%s: %q", what, names)
		}
		for _, name := range names {
			if !*understands(func(s *specs.Spec) { change(s, name) }) {
				t.Errorf("%s: %s is claimed and does not compile", what, name)
			}
		}
	}
	each("version", []string{f.OCIVersionMin, f.OCIVersionMax}, func(s *specs.Spec, name string) { s.Version = name })
	each("hooks", f.Hooks, func(s *specs.Spec, name string) {
		text := `{"` + name + `": [{"path": "/hook"}]}`
		if err := json.Unmarshal([]byte(text), &s.Hooks); err != nil {
			t.Error(err)
		}
	})
	each("mountOptions", f.MountOptions, func(s *specs.Spec, name string) {
		m := specs.Mount{Destination: "/data", Type: "tmpfs", Options: []string{name}}
		switch {
		case strings.HasSuffix(name, "bind"):
			m.Type, m.Source = "bind", "/data"
		case strings.HasSuffix(name, "idmap"):
			m.Type, m.Source, m.Options = "bind", "/data", []string{"bind", name}
			m.UIDMappings = []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
			m.GIDMappings = m.UIDMappings
		}
		s.Mounts = []specs.Mount{m}
	})
	each("namespaces", f.Linux.Namespaces, func(s *specs.Spec, name string) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}
		if t := specs.LinuxNamespaceType(name); t != specs.MountNamespace && t != specs.PIDNamespace {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
		}
		if name == "user" {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}
	})
	each("capabilities", f.Linux.Capabilities, func(s *specs.Spec, name string) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{name}}
	})
	each("memoryPolicy.modes", f.Linux.MemoryPolicy.Modes, func(s *specs.Spec, name string) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(name), Nodes: nodes(name)}
	})
	each("memoryPolicy.flags", f.Linux.MemoryPolicy.Flags, func(s *specs.Spec, name string) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MemoryPolicyFlagType(name)}}
	})
	each("seccomp.actions", f.Linux.Seccomp.Actions, func(s *specs.Spec, name string) {
		s.Linux.Seccomp = filter(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.LinuxSeccompAction(name)})
	})
	each("seccomp.operators", f.Linux.Seccomp.Operators, func(s *specs.Spec, name string) {
		s.Linux.Seccomp = filter(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActTrap,
			Args: []specs.LinuxSeccompArg{{Op: specs.LinuxSeccompOperator(name)}}})
	})
	each("seccomp.archs", f.Linux.Seccomp.Archs, func(s *specs.Spec, name string) {
		s.Linux.Seccomp = filter()
		s.Linux.Seccomp.Architectures = []specs.Arch{specs.Arch(name)}
	})
	each("seccomp.knownFlags", f.Linux.Seccomp.KnownFlags, func(s *specs.Spec, name string) {
		s.Linux.Seccomp = filter()
		s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(name)}
	})
}

func nodes(mode string) string {
	if mode == "MPOL_DEFAULT" || mode == "MPOL_LOCAL" {
		return ""
	}
	return "0"
}

func filter(calls ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/agent.sock", Syscalls: calls}
}

// What is not claimed is refused, and not passed over.
func TestNoOtherNames(t *testing.T) {
	const unknown = "made-up"
	for what, change := range map[string]func(*specs.Spec){
		"version":   func(s *specs.Spec) { s.Version = "2.0.0" },
		"namespace": func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: unknown}} },
		"mode":      func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: unknown} },
		"action": func(s *specs.Spec) {
			s.Linux.Seccomp = filter(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: unknown})
		},
		"default": func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: unknown} },
		"arch":    func(s *specs.Spec) { s.Linux.Seccomp = filter(); s.Linux.Seccomp.Architectures = []specs.Arch{unknown} },
		"flag": func(s *specs.Spec) {
			s.Linux.Seccomp = filter()
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{unknown}
		},
		"personalty": func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: unknown} },
	} {
		if *understands(change) {
			t.Errorf("%s %q compiles", what, unknown)
		}
	}
}

// The specification's example names nothing that we leave out.
func TestComplete(t *testing.T) {
	f := New()
	for what, pair := range map[string][2][]string{
		"actions": {f.Linux.Seccomp.Actions, {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
			"SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"}},
		"hooks":      {f.Hooks, {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}},
		"namespaces": {f.Linux.Namespaces, {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}},
		"known":      {f.Linux.Seccomp.KnownFlags, f.Linux.Seccomp.SupportedFlags},
		"options":    {f.MountOptions, {"bind", "idmap", "rbind", "ridmap", "ro", "rro", "tmpcopyup", "rnosymfollow", "runbindable"}},
	} {
		for _, name := range pair[1] {
			if !slices.Contains(pair[0], name) {
				t.Errorf("%s: %s is missing", what, name)
			}
		}
	}
	for what, claim := range map[string]*bool{"v1": f.Linux.Cgroup.V1, "v2": f.Linux.Cgroup.V2, "rdma": f.Linux.Cgroup.Rdma,
		"systemd": f.Linux.Cgroup.Systemd, "user": f.Linux.Cgroup.SystemdUser, "rdt": f.Linux.IntelRdt.Enabled,
		"schemata": f.Linux.IntelRdt.Schemata, "monitoring": f.Linux.IntelRdt.Monitoring, "netDevices": f.Linux.NetDevices.Enabled,
		"seccomp": f.Linux.Seccomp.Enabled, "apparmor": f.Linux.Apparmor.Enabled, "selinux": f.Linux.Selinux.Enabled,
		"idmap": f.Linux.MountExtensions.IDMap.Enabled} {
		if !*claim {
			t.Errorf("%s is not claimed", what)
		}
	}
}

// No driver of control groups is claimed that there is not.
func TestDrivers(t *testing.T) {
	for _, d := range cgroup.Drivers() {
		if _, err := cgroup.New(everything(), cgroup.Options{ID: "features", Driver: d}); err != nil && strings.Contains(err.Error(), "manager") {
			t.Error(err)
		}
	}
	if _, err := cgroup.New(everything(), cgroup.Options{ID: "features", Driver: "made-up"}); err == nil {
		t.Error("an unknown driver is accepted")
	}
}

// A kernel that knows a flag is told from one that does not.
func TestSupportedFlags(t *testing.T) {
	if host.SeccompFlags(1<<31) || !host.SeccompFlags(linux.SECCOMP_FILTER_FLAG_LOG) {
		t.Error("the kernel's answers are not understood")
	}
}
