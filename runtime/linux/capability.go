package linux

// CapabilityLast is the highest capability this table knows. The kernel's own
// highest may be lower (before 5.9) and is a host fact, not a constant.
const CapabilityLast = len(capabilityNames) - 1

// Capabilities the plan compiler treats specially.
const (
	CAP_SETGID    = 6
	CAP_SETUID    = 7
	CAP_SETPCAP   = 8
	CAP_NET_ADMIN = 12
	CAP_SYS_ADMIN = 21
	CAP_MKNOD     = 27
)

// Indexed by number: include/uapi/linux/capability.h.
var capabilityNames = [...]string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",            // 5.8
	"CAP_BPF",                // 5.8
	"CAP_CHECKPOINT_RESTORE", // 5.9
}

// Capability returns the number of a capability spelled as in config.json
// ("CAP_NET_RAW"). The spelling is exact: runtime-spec names them as
// capabilities(7) does.
func Capability(name string) (number int, ok bool) {
	for i, n := range capabilityNames {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

// CapabilityName returns the name of a capability, or "" for a number this
// table does not know.
func CapabilityName(number int) string {
	if number < 0 || number >= len(capabilityNames) {
		return ""
	}
	return capabilityNames[number]
}
