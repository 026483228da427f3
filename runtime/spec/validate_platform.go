package spec

import (
	"maps"
	"slices"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

func (c *checker) linux(l *specs.Linux) {
	c.namespaces(l.Namespaces)
	c.userNamespace(l)
	c.timeOffsets(l)
	c.devices(l.Devices)
	c.netDevices(l)
	c.sysctls(l)
	c.cgroupsPath(l.CgroupsPath)
	c.resources(l.Resources)
	c.seccomp(l.Seccomp)
	for i, p := range l.MaskedPaths {
		c.absolute(at("linux.maskedPaths", i, ""), p)
	}
	for i, p := range l.ReadonlyPaths {
		c.absolute(at("linux.readonlyPaths", i, ""), p)
	}
	if l.RootfsPropagation != "" {
		oneOf(c, in("linux.rootfsPropagation"), strings.TrimPrefix(l.RootfsPropagation, "r"), "shared", "slave", "private", "unbindable")
	}
	c.text(in("linux.mountLabel"), l.MountLabel)
	if p := l.Personality; p != nil {
		known(c, in("linux.personality.domain"), string(p.Domain), linux.Personality)
		if len(p.Flags) > 0 {
			c.fail(in("linux.personality.flags"), "no flag is defined")
		}
	}
	c.intelRdt(l.IntelRdt)
	c.memoryPolicy(l.MemoryPolicy)
}

func hasNamespace(l *specs.Linux, t specs.LinuxNamespaceType) bool {
	for _, ns := range l.Namespaces {
		if ns.Type == t {
			return true
		}
	}
	return false
}

func (c *checker) namespaces(list []specs.LinuxNamespace) {
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range list {
		oneOf(c, at("linux.namespaces", i, ".type"), ns.Type, specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace)
		if seen[ns.Type] {
			c.fail(at("linux.namespaces", i, ".type"), "%s is there twice", ns.Type)
		}
		seen[ns.Type] = true
		if ns.Path != "" {
			c.absolute(at("linux.namespaces", i, ".path"), ns.Path)
		}
	}
}

// userNamespace asks that mappings and user namespace go together. A joined one has its own, but engines send theirs along.
func (c *checker) userNamespace(l *specs.Linux) {
	created := false
	for _, ns := range l.Namespaces {
		created = created || ns.Type == specs.UserNamespace && ns.Path == ""
	}
	for _, m := range []struct {
		path string
		list []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		if len(m.list) > 0 && !hasNamespace(l, specs.UserNamespace) {
			c.fail(in(m.path), "needs a user namespace in linux.namespaces")
		}
		if len(m.list) == 0 && created {
			c.fail(in(m.path), "missing: a new user namespace needs mappings")
		}
		c.mappings(in(m.path), m.list)
	}
}

// maxMappings is the kernel's limit on the lines of a uid_map (Linux 4.15).
const maxMappings = 340

// mappings asks for what the kernel asks of a uid_map: no empty range, none beyond the last id, no two that overlap on either side.
func (c *checker) mappings(where loc, list []specs.LinuxIDMapping) {
	if len(list) > maxMappings {
		c.fail(where, "more than %d entries", maxMappings)
		return
	}
	for i, m := range list {
		if m.Size == 0 {
			c.fail(at(where.String(), i, ".size"), "zero")
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			c.fail(at(where.String(), i, ""), "reaches beyond the last id, 4294967294")
		}
	}
	sides := []struct {
		name  string
		start func(specs.LinuxIDMapping) uint32
	}{
		{"container", func(m specs.LinuxIDMapping) uint32 { return m.ContainerID }},
		{"host", func(m specs.LinuxIDMapping) uint32 { return m.HostID }},
	}
	for _, side := range sides {
		sorted := append([]specs.LinuxIDMapping(nil), list...)
		sort.Slice(sorted, func(i, j int) bool { return side.start(sorted[i]) < side.start(sorted[j]) })
		for i := 1; i < len(sorted); i++ {
			if uint64(side.start(sorted[i-1]))+uint64(sorted[i-1].Size) > uint64(side.start(sorted[i])) {
				c.fail(where, "%s id %d is mapped twice", side.name, side.start(sorted[i]))
			}
		}
	}
}

func (c *checker) timeOffsets(l *specs.Linux) {
	for _, clock := range slices.Sorted(maps.Keys(l.TimeOffsets)) {
		o, where := l.TimeOffsets[clock], key("linux.timeOffsets", clock)
		oneOf(c, where, clock, "boottime", "monotonic")
		if o.Nanosecs >= 1e9 {
			c.fail(where.sub(".nanosecs"), "%d is a second or more", o.Nanosecs)
		}
	}
	if len(l.TimeOffsets) > 0 && !hasNamespace(l, specs.TimeNamespace) {
		c.fail(in("linux.timeOffsets"), "needs a time namespace in linux.namespaces")
	}
}

func (c *checker) devices(list []specs.LinuxDevice) {
	for i, d := range list {
		where := at("linux.devices", i, "")
		c.absolute(where.sub(".path"), d.Path)
		oneOf(c, where.sub(".type"), d.Type, "c", "b", "u", "p")
		if d.UID != nil && *d.UID == noID {
			c.fail(where.sub(".uid"), "%d is no id", *d.UID)
		}
		if d.GID != nil && *d.GID == noID {
			c.fail(where.sub(".gid"), "%d is no id", *d.GID)
		}
		if d.Type == "p" {
			continue
		}
		if d.Major < 0 || d.Major > 1<<32-1 {
			c.fail(where.sub(".major"), "%d is not a device number", d.Major)
		}
		if d.Minor < 0 || d.Minor > 1<<32-1 {
			c.fail(where.sub(".minor"), "%d is not a device number", d.Minor)
		}
	}
}

func (c *checker) netDevices(l *specs.Linux) {
	if len(l.NetDevices) > 0 && !hasNamespace(l, specs.NetworkNamespace) {
		c.fail(in("linux.netDevices"), "needs a network namespace in linux.namespaces")
	}
	for _, name := range slices.Sorted(maps.Keys(l.NetDevices)) {
		d, where := l.NetDevices[name], key("linux.netDevices", name)
		if !validInterface(name) {
			c.fail(where, "not the name of a network interface")
		}
		if d.Name != "" && !validInterface(d.Name) {
			c.fail(where.sub(".name"), "%q is not the name of a network interface", d.Name)
		}
	}
}

// validInterface is the kernel's dev_valid_name.
func validInterface(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// sysctls lets through only what belongs to one of the container's own namespaces: anything else would change the host.
func (c *checker) sysctls(l *specs.Linux) {
	for _, name := range slices.Sorted(maps.Keys(l.Sysctl)) {
		where := key("linux.sysctl", name)
		c.text(where, l.Sysctl[name])
		elems := linux.SysctlPath(name)
		ns, ok := linux.SysctlNamespace(elems)
		switch {
		case elems == nil:
			c.fail(where, "not the name of a kernel parameter")
		case !ok:
			c.fail(where, "belongs to no namespace, so it is the host's")
		case slices.Equal(elems, []string{"kernel", "hostname"}):
			c.fail(where, "is what hostname is for")
		case !hasNamespace(l, ns):
			c.fail(where, "needs a %s namespace in linux.namespaces", ns)
		}
	}
}

// cgroupsPath leaves to package cgroup what is a question of the host.
func (c *checker) cgroupsPath(p string) {
	c.text(in("linux.cgroupsPath"), p)
	for _, elem := range strings.Split(p, "/") {
		if elem == ".." {
			c.fail(in("linux.cgroupsPath"), `has ".."`)
			return
		}
	}
}

// resources checks structure; what values the kernel takes it says itself.
func (c *checker) resources(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	for i, d := range r.Devices {
		where := at("linux.resources.devices", i, "")
		if d.Type != "" {
			oneOf(c, where.sub(".type"), d.Type, "a", "b", "c", "u")
		}
		if strings.Trim(d.Access, "rwm") != "" {
			c.fail(where.sub(".access"), "%q is not made of r, w and m", d.Access)
		}
	}
	if cpu := r.CPU; cpu != nil {
		c.numberList(in("linux.resources.cpu.cpus"), cpu.Cpus, linux.MaxCPUs)
		c.numberList(in("linux.resources.cpu.mems"), cpu.Mems, linux.MaxNodes)
		if cpu.Quota != nil && *cpu.Quota > 0 && cpu.Burst != nil && *cpu.Burst > uint64(*cpu.Quota) {
			c.fail(in("linux.resources.cpu.burst"), "%d is larger than quota %d", *cpu.Burst, *cpu.Quota)
		}
	}
	if b := r.BlockIO; b != nil {
		for i, w := range b.WeightDevice {
			if w.Weight == nil && w.LeafWeight == nil {
				c.fail(at("linux.resources.blockIO.weightDevice", i, ""), "has neither weight nor leafWeight")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Rdma)) {
		if l := r.Rdma[name]; l.HcaHandles == nil && l.HcaObjects == nil {
			c.fail(key("linux.resources.rdma", name), "has neither hcaHandles nor hcaObjects")
		}
	}
}

// numberList asks for a list such as "0-3,7"; an empty one is none.
func (c *checker) numberList(where loc, list string, limit int) (set linux.NumberSet, ok bool) {
	set, err := linux.ParseNumbers(list, limit)
	if err != nil {
		c.fail(where, "%v", err)
	}
	return set, err == nil
}

// seccomp leaves names of system calls, architectures and operators to the compiler of the filter.
func (c *checker) seccomp(s *specs.LinuxSeccomp) {
	if s == nil || s.DefaultAction == "" && len(s.Syscalls) == 0 { // for runc that is no profile at all
		return
	}
	c.seccompAction(in("linux.seccomp.defaultAction"), in("linux.seccomp.defaultErrnoRet"), s.DefaultAction, s.DefaultErrnoRet)
	if s.ListenerMetadata != "" && s.ListenerPath == "" {
		c.fail(in("linux.seccomp.listenerMetadata"), "needs listenerPath")
	}
	for i, call := range s.Syscalls {
		where := at("linux.seccomp.syscalls", i, "")
		if len(call.Names) == 0 {
			c.fail(where.sub(".names"), "empty")
		}
		c.seccompAction(where.sub(".action"), where.sub(".errnoRet"), call.Action, call.ErrnoRet)
	}
}

func (c *checker) seccompAction(action, errnoRet loc, a specs.LinuxSeccompAction, errno *uint) {
	oneOf(c, action, a, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow,
		specs.ActLog, specs.ActNotify)
	if errno != nil && a != specs.ActErrno && a != specs.ActTrace {
		c.fail(errnoRet, "%s returns no error number", a)
	}
}

func (c *checker) intelRdt(r *specs.LinuxIntelRdt) {
	if r == nil {
		return
	}
	if id := r.ClosID; id != "/" && (strings.ContainsAny(id, "/\n\x00") || id == "." || id == "..") {
		c.fail(in("linux.intelRdt.closID"), "%q is not a name", id)
	}
	if strings.Contains(r.L3CacheSchema, "\n") {
		c.fail(in("linux.intelRdt.l3CacheSchema"), "has a newline")
	}
	if s := r.MemBwSchema; s != "" && (!strings.HasPrefix(s, "MB:") || strings.Contains(s, "\n")) {
		c.fail(in("linux.intelRdt.memBwSchema"), "is not one line that begins with MB:")
	}
	for i, line := range r.Schemata {
		if strings.Contains(line, "\n") {
			c.fail(at("linux.intelRdt.schemata", i, ""), "has a newline")
		}
	}
}

// memoryPolicy asks for what set_mempolicy(2) does: nodes where the mode needs some, and none where it has none.
func (c *checker) memoryPolicy(p *specs.LinuxMemoryPolicy) {
	if p == nil {
		return
	}
	known(c, in("linux.memoryPolicy.mode"), string(p.Mode), linux.MemoryPolicy)
	for i, f := range p.Flags {
		known(c, at("linux.memoryPolicy.flags", i, ""), string(f), linux.MemoryPolicyFlag)
	}
	nodes, ok := c.numberList(in("linux.memoryPolicy.nodes"), p.Nodes, linux.MaxNodes)
	if !ok {
		return
	}
	switch p.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if nodes != nil {
			c.fail(in("linux.memoryPolicy.nodes"), "%s has none", p.Mode)
		}
	case specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferredMany:
		if nodes == nil {
			c.fail(in("linux.memoryPolicy.nodes"), "empty: %s needs at least one", p.Mode)
		}
	case specs.MpolPreferred: // without any it means the local node
	}
}
