package linux

// Indexed by number: include/uapi/asm-generic/resource.h. amd64 and arm64 agree
// (mips, sparc and alpha do not).
var rlimitNames = [...]string{
	"RLIMIT_CPU",
	"RLIMIT_FSIZE",
	"RLIMIT_DATA",
	"RLIMIT_STACK",
	"RLIMIT_CORE",
	"RLIMIT_RSS",
	"RLIMIT_NPROC",
	"RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK",
	"RLIMIT_AS",
	"RLIMIT_LOCKS",
	"RLIMIT_SIGPENDING",
	"RLIMIT_MSGQUEUE",
	"RLIMIT_NICE",
	"RLIMIT_RTPRIO",
	"RLIMIT_RTTIME",
}

// Rlimit returns the number of a resource limit spelled as in config.json
// ("RLIMIT_NOFILE").
func Rlimit(name string) (number int, ok bool) {
	for i, n := range rlimitNames {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

// RlimitName returns the name of a resource limit, or "".
func RlimitName(number int) string {
	if number < 0 || number >= len(rlimitNames) {
		return ""
	}
	return rlimitNames[number]
}
