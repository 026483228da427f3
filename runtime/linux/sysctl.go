package linux

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// SysctlPath splits the name of a kernel parameter into the elements of its
// path below /proc/sys: "net.ipv4.ip_forward" and "net/ipv4/ip_forward" are the
// same, and the separator that is not used first stands for the other, as in
// sysctl(8) ("net/ipv4/conf/eth0.1/forwarding",
// "net.ipv4.conf.eth0/1.forwarding"). It returns nil where that would be no path
// below /proc/sys.
func SysctlPath(name string) []string {
	sep, other := ".", "/"
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		sep, other = other, sep
	}
	elems := strings.Split(name, sep)
	for i, e := range elems {
		if sep == "." {
			e = strings.ReplaceAll(e, other, sep)
		}
		if e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00") {
			return nil
		}
		elems[i] = e
	}
	if len(elems) < 2 {
		return nil
	}
	return elems
}

// SysctlNamespace returns the type of namespace that a kernel parameter belongs
// to. ok is false where it is the whole machine's, so that no container may set
// it.
func SysctlNamespace(path []string) (ns specs.LinuxNamespaceType, ok bool) {
	if len(path) < 2 {
		return "", false
	}
	switch path[0] {
	case "net":
		return specs.NetworkNamespace, true
	case "user":
		// Limits of what a user namespace's users may have (namespaces(7)).
		return specs.UserNamespace, true
	case "fs":
		return specs.IPCNamespace, path[1] == "mqueue"
	case "kernel":
		if len(path) == 2 {
			return kernelSysctl(path[1])
		}
	}
	return "", false
}

func kernelSysctl(name string) (specs.LinuxNamespaceType, bool) {
	switch name {
	case "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced":
		return specs.IPCNamespace, true
	case "domainname", "hostname":
		return specs.UTSNamespace, true
	}
	return "", false
}
