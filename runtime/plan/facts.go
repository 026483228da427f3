package plan

import "github.com/tare-oci/tare/runtime/host"

// Facts is what Compile has to know besides the configuration: of the machine,
// of the bundle's files, and of what the caller wants. The parent gathers it.
type Facts struct {
	// Host is what the machine can do.
	Host host.Facts
	// ID is the container's name.
	ID string
	// Bundle is the absolute path of the bundle; relative paths of the
	// configuration start there.
	Bundle string
	// Sources tells what lies at the source of each bind mount, by absolute path.
	Sources map[string]Source
	// Mountpoints gives the place that a destination leads to where the root
	// file system has a symbolic link there that leads to nothing, by
	// destination.
	Mountpoints map[string]string
	// TmpfsModes are the permissions of the directories that mounts of type tmpfs
	// hide, by the mount's index: a tmpfs has those unless its options say more.
	TmpfsModes map[int]uint32
	// CopySources are what mounts with the option tmpcopyup hide, by index.
	CopySources map[int]CopySource
	// Nodes are files of the root file system at paths of linux.devices that no
	// mount hides, by path.
	Nodes map[string]Node
	// HostNodes are the host's files at the paths of linux.devices, where device
	// nodes cannot be made.
	HostNodes map[string]Node
	// Kcore says that the kernel has a /proc/kcore.
	Kcore bool
	// NoPivot leaves the host's root beneath the container's.
	NoPivot bool
	// RootMount is the mount point that root.path lies in, where hooks are to find
	// the root there and linux.rootfsPropagation leaves it shared with the host.
	RootMount string
	// HostMounts are the host's mounts of proc and sysfs, where NoPivot is set.
	HostMounts []string
	// OwnNamespaces are those of the paths in linux.namespaces that lead to a
	// namespace we are in ourselves; gathered where linux.sysctl or
	// linux.netDevices asks.
	OwnNamespaces []string
	// Resctrl is where resctrl is mounted; found where linux.intelRdt asks.
	Resctrl string
	// CgroupFiles is the number of version 1 hierarchies the process joins.
	CgroupFiles int
	// CgroupsBeside says that the parent can make those groups while the process
	// does what needs none of them; it then joins them by their paths.
	CgroupsBeside bool
	// AwaitCgroup makes the process wait until the parent has moved it to its
	// control groups.
	AwaitCgroup bool
	// AtOnce has the process started with the whole of its program, without Opening.
	AtOnce bool
	// Cgroups are the directories of the container's control group, one for a
	// version 1 hierarchy, or the one of version 2.
	Cgroups []CgroupDir
	// Home is the home directory of the container's user, as its /etc/passwd
	// has it; used where the environment names none.
	Home string
	// Wait makes the process wait for start once the container is made.
	Wait bool
	// Foreground says that the caller relays the terminal to its own, which
	// makes the line ends: runc's terminals then make none.
	Foreground bool
	// PreserveFDs is how many of the caller's descriptors from 3 up the user's
	// program keeps.
	PreserveFDs int
	// NoNewKeyring leaves the session keyring as it is.
	NoNewKeyring bool
}

// A Source is what lies at the source of a bind mount.
type Source struct {
	Missing bool
	Dir     bool
	Proc    bool // on a proc file system
}

// A CgroupDir is a directory of the container's control group on the host.
type CgroupDir struct {
	// Name is that of the hierarchy's directory below /sys/fs/cgroup, empty for
	// version 2.
	Name string
	// Aliases are further names of it: the controllers of a shared hierarchy.
	Aliases []string
	// Path is the directory on the host.
	Path string
	// Joins says that the process joins it. It is in the others already.
	Joins bool
}

// absolute is a path of the configuration as seen from the bundle.
func (c *compiler) absolute(path string) string {
	if path != "" && path[0] != '/' {
		return c.facts.Bundle + "/" + path
	}
	return path
}
