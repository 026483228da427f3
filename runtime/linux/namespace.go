package linux

import specs "github.com/opencontainers/runtime-spec/specs-go"

// NamespaceInfo is one kind of namespace under its three names.
type NamespaceInfo struct {
	Type      specs.LinuxNamespaceType // in config.json: "network"
	CloneFlag uint64                   // for clone3, unshare and setns
	Proc      string                   // below /proc/PID/ns: "net"
}

// In the order in which a runtime joins them: user first, because it decides
// over the rights in all others; mount last, because afterwards host paths are
// gone.
var namespaces = [...]NamespaceInfo{
	{specs.UserNamespace, CLONE_NEWUSER, "user"},
	{specs.PIDNamespace, CLONE_NEWPID, "pid"},
	{specs.NetworkNamespace, CLONE_NEWNET, "net"},
	{specs.IPCNamespace, CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, CLONE_NEWUTS, "uts"},
	{specs.CgroupNamespace, CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, CLONE_NEWTIME, "time"},
	{specs.MountNamespace, CLONE_NEWNS, "mnt"},
}

// Namespaces lists all eight kinds, in the order in which they are joined.
func Namespaces() []NamespaceInfo { return append([]NamespaceInfo(nil), namespaces[:]...) }

// Namespace looks a kind up by its config.json type.
func Namespace(t specs.LinuxNamespaceType) (NamespaceInfo, bool) {
	for _, n := range namespaces {
		if n.Type == t {
			return n, true
		}
	}
	return NamespaceInfo{}, false
}

// NamespaceOfFlag looks a kind up by its clone flag.
func NamespaceOfFlag(flag uint64) (NamespaceInfo, bool) {
	for _, n := range namespaces {
		if n.CloneFlag == flag {
			return n, true
		}
	}
	return NamespaceInfo{}, false
}
