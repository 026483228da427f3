package host

import (
	"errors"
	"strconv"
)

// ErrKernelTooOld is wrapped by Probe's error when the kernel is below the floor (see Floor).
var ErrKernelTooOld = errors.New("kernel too old")

// Floor is the oldest kernel tare runs on. 5.12 brought mount_setattr(2) and 5.14 cgroup.kill and quota bursts; openat2(2),
// clone3(2) with CLONE_INTO_CGROUP, pidfds and close_range(2) are older.
func Floor() Version { return Version{Major: 5, Minor: 14} }

// Version is a kernel's version, as far as features depend on it.
type Version struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
}

// AtLeast reports whether v is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String prints the version as major.minor.
func (v Version) String() string { return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) }

// CgroupMode says which cgroup versions this machine offers.
type CgroupMode string

// The modes: no cgroups at all; version 1 hierarchies only; version 2 only; version 1 with the unified hierarchy mounted beside
// (systemd's "hybrid" layout).
const (
	CgroupNone   CgroupMode = "none"
	CgroupV1     CgroupMode = "v1"
	CgroupV2     CgroupMode = "v2"
	CgroupHybrid CgroupMode = "hybrid"
)

// Hierarchy is one mounted cgroup hierarchy.
type Hierarchy struct {
	// Controllers are the version 1 controllers bound to it ("cpu", "cpuacct"); none for a named or the unified hierarchy.
	Controllers []string `json:"controllers,omitempty"`
	// Name is that of a named version 1 hierarchy: "systemd" where the mount option is name=systemd.
	Name string `json:"name,omitempty"`
	// Mountpoint is where it is mounted.
	Mountpoint string `json:"mountpoint"`
	// MountRoot is the cgroup that appears at Mountpoint: "/" unless only a subtree is mounted.
	MountRoot string `json:"mountRoot"`
	// Options are the per-mount options ("rw,nosuid"), as mountinfo has them; empty for a cgroup2 mount at its usual place, which
	// is found without reading mountinfo.
	Options string `json:"options,omitempty"`
	// OwnPath is our own cgroup in it, as /proc/self/cgroup has it.
	OwnPath string `json:"ownPath"`
}

// Facts is what Compile and the cgroup managers need to know of this machine. Probe fills it; the fields below "on demand" stay zero until
// the method named there is called, because few containers need them.
type Facts struct {
	Arch   string  `json:"arch"` // GOARCH
	Kernel Version `json:"kernel"`
	UID    int     `json:"uid"` // effective
	GID    int     `json:"gid"` // effective
	// InUserNamespace is false only in the initial user namespace.
	InUserNamespace bool `json:"inUserNamespace"`
	// LastCap is the highest capability this kernel knows.
	LastCap int `json:"lastCap"`
	// Caps is our effective capability set, bit n for capability n.
	Caps       uint64 `json:"caps"`
	NoNewPrivs bool   `json:"noNewPrivs"`

	CgroupMode CgroupMode `json:"cgroupMode"`
	// Hierarchies are the version 1 hierarchies, in /proc/self/cgroup's order.
	Hierarchies []Hierarchy `json:"hierarchies,omitempty"`
	// Unified is the version 2 hierarchy, nil where it is not mounted.
	Unified *Hierarchy `json:"unified,omitempty"`

	// On demand: ProbeLSM.
	AppArmor bool `json:"appArmor,omitempty"`
	SELinux  bool `json:"seLinux,omitempty"`
	// On demand: ProbeMemfd. The value of vm.memfd_noexec (Linux 6.3): 2 means no memfd may be executed.
	MemfdNoexec int `json:"memfdNoexec,omitempty"`
}

// HasCap reports whether we hold capability number c effectively.
func (f *Facts) HasCap(c int) bool { return c >= 0 && c < 64 && f.Caps&(1<<uint(c)) != 0 }

// Hierarchy returns the version 1 hierarchy that carries controller, or nil.
func (f *Facts) Hierarchy(controller string) *Hierarchy {
	for i := range f.Hierarchies {
		for _, c := range f.Hierarchies[i].Controllers {
			if c == controller {
				return &f.Hierarchies[i]
			}
		}
	}
	return nil
}
