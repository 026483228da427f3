// Package features says what this runtime can do, for callers that want to know
// before they ask for it: the structure of features.md and features-linux.md in
// the Runtime Spec 1.3.0.
//
// Names come from the tables that configurations are read with. What has no
// table is asked of the compiler: it gets a configuration with the field in
// question, for a machine that has everything, and either makes a plan of it
// or does not. So the structure can claim no more than the code does.
package features

import (
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/seccomp"
	"github.com/tare-oci/tare/runtime/spec"
)

// versionMin is the oldest version of config.json that is understood; the newest
// is that of the specification's types.
const versionMin = "1.0.0"

// checkpoint is the annotation by which callers learn that containers can be
// checkpointed, whether or not this machine has CRIU. The name is runc's.
const checkpoint = "org.opencontainers.runc.checkpoint.enabled"

// New returns the structure. Of this machine it only tells which flags of
// seccomp filters the kernel knows, as the specification has it.
func New() *features.Features {
	return &features.Features{
		// What of a configuration's annotations changes what we do.
		PotentiallyUnsafeConfigAnnotations: []string{cgroup.PropertyPrefix, lifecycle.CRIUConfig},
		Annotations:                        map[string]string{checkpoint: "true"},

		OCIVersionMin: versionMin,
		OCIVersionMax: specs.Version,
		Hooks:         hooks(),
		MountOptions:  linux.MountOptionNames(),
		Linux: &features.Linux{
			Namespaces:   namespaces(),
			Capabilities: capabilities(),
			Cgroup: &features.Cgroup{
				V1: manages(host.CgroupV1), V2: manages(host.CgroupV2),
				Systemd: new(slices.Contains(cgroup.Drivers(), cgroup.Systemd)), SystemdUser: new(slices.Contains(cgroup.Drivers(), cgroup.Systemd)),
				Rdma: new(cgroup.Sets("rdma")),
			},
			Seccomp:  filters(),
			Apparmor: &features.Apparmor{Enabled: understands(func(s *specs.Spec) { s.Process.ApparmorProfile = "profile" })},
			Selinux: &features.Selinux{Enabled: understands(func(s *specs.Spec) {
				s.Process.SelinuxLabel, s.Linux.MountLabel = "u:r:t:s0", "u:o:t:s0"
			})},
			IntelRdt: &features.IntelRdt{
				Enabled:    understands(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "id"} }),
				Schemata:   understands(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"MB:0=50"}} }),
				Monitoring: understands(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{EnableMonitoring: true} }),
			},
			MemoryPolicy: &features.MemoryPolicy{Modes: linux.MemoryPolicyNames(), Flags: linux.MemoryPolicyFlagNames()},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: understands(func(s *specs.Spec) {
				ids := []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
				s.Mounts = []specs.Mount{{Destination: "/data", Source: "data", Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids}}
			})}},
			NetDevices: &features.NetDevices{Enabled: understands(func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
				s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "eth1"}}
			})},
		},
	}
}

// understands asks the compiler.
func understands(change func(*specs.Spec)) *bool {
	s := &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/init"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}}}
	change(s)
	ok := spec.Validate(s) == nil
	if ok {
		_, err := plan.Compile(s, &plan.Facts{Host: everything(), ID: "features", Bundle: "/bundle", Resctrl: "/sys/fs/resctrl"})
		ok = err == nil
	}
	return &ok
}

// everything is a machine on which nothing is missing.
func everything() host.Facts {
	return host.Facts{Arch: runtime.GOARCH, Kernel: host.Version{Major: 99}, LastCap: linux.CapabilityLast, Caps: ^uint64(0),
		CgroupMode: host.CgroupV2, Unified: &host.Hierarchy{Mountpoint: "/sys/fs/cgroup", MountRoot: "/", OwnPath: "/"},
		AppArmor: true, SELinux: true}
}

// manages says whether there is a manager of control groups.
func manages(mode host.CgroupMode) *bool {
	f := everything()
	if f.CgroupMode = mode; mode == host.CgroupV1 {
		f.Unified, f.Hierarchies = nil, []host.Hierarchy{{Controllers: []string{"pids"}, Mountpoint: "/sys/fs/cgroup/pids", MountRoot: "/", OwnPath: "/"}}
	}
	_, err := cgroup.New(f, cgroup.Options{Path: "/features", ID: "features"})
	ok := err == nil
	return &ok
}

func namespaces() (names []string) {
	for _, ns := range linux.Namespaces() {
		names = append(names, string(ns.Type))
	}
	return names
}

func capabilities() (names []string) {
	for c := range linux.CapabilityLast + 1 {
		names = append(names, linux.CapabilityName(c))
	}
	return names
}

// hooks are the kinds of hooks that the compiler does not refuse.
func hooks() (names []string) {
	for _, kind := range []struct {
		name string
		of   func(*specs.Hooks) *[]specs.Hook
	}{
		{"prestart", func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }}, //nolint:staticcheck // deprecated, not gone
		{"createRuntime", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }},
		{"createContainer", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }},
		{"startContainer", func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }},
		{"poststart", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }},
		{"poststop", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop }},
	} {
		if *understands(func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{}
			*kind.of(s.Hooks) = []specs.Hook{{Path: "/hook"}}
		}) {
			names = append(names, kind.name)
		}
	}
	return names
}

func filters() *features.Seccomp {
	enabled := true
	f := &features.Seccomp{Enabled: &enabled, Archs: linux.ArchNames()}
	for _, a := range seccomp.Actions() {
		f.Actions = append(f.Actions, string(a))
	}
	for _, o := range seccomp.Operators() {
		f.Operators = append(f.Operators, string(o))
	}
	for name, value := range seccomp.Flags {
		f.KnownFlags = append(f.KnownFlags, string(name))
		// A flag that says how to ask an agent needs one.
		if value == 0 || host.SeccompFlags(value|linux.SECCOMP_FILTER_FLAG_NEW_LISTENER) {
			f.SupportedFlags = append(f.SupportedFlags, string(name))
		}
	}
	return f
}
