package linux

//go:generate go run ./internal/gensys

const (
	syscallAbsent = 0xffff

	// arm's private calls (cacheflush and its like) are outside the table:
	// arch/arm/include/uapi/asm/unistd.h counts them from here.
	armPrivateBase = 0x0f0000
)

// arm's private calls, as libseccomp and so every profile spells them.
var armPrivate = [...]string{1: "breakpoint", 2: "cacheflush", 3: "usr26", 4: "usr32", 5: "set_tls", 6: "get_tls"}

// HasSyscalls reports whether there is a table for the architecture.
func (a Arch) HasSyscalls() bool { return a.valid() && syscallNumbers[a] != nil }

// SyscallNumber returns the number of a system call, as the kernel shows it to
// a seccomp filter (an x32 call has X32SyscallBit set).
func SyscallNumber(arch Arch, name string) (int, bool) {
	if !arch.HasSyscalls() {
		return 0, false
	}
	if i, ok := syscallIndex(name); ok {
		if n := syscallNumbers[arch][i]; n != syscallAbsent {
			return fromTable(arch, n), true
		}
	}
	if arch == ArchARM {
		for i, n := range armPrivate {
			if n == name && i > 0 {
				return armPrivateBase + i, true
			}
		}
	}
	return 0, false
}

// SyscallName is the inverse of SyscallNumber.
func SyscallName(arch Arch, number int) (string, bool) {
	if !arch.HasSyscalls() {
		return "", false
	}
	if i := number - armPrivateBase; arch == ArchARM && i > 0 && i < len(armPrivate) {
		return armPrivate[i], true
	}
	for i, n := range syscallNumbers[arch] {
		if n != syscallAbsent && fromTable(arch, n) == number {
			return syscallNames[syscallNameAt[i]:syscallNameAt[i+1]], true
		}
	}
	return "", false
}

func fromTable(arch Arch, n uint16) int {
	number := int(n) + int(syscallBase[arch])
	if arch == ArchX32 {
		number |= X32SyscallBit
	}
	return number
}

func syscallIndex(name string) (int, bool) {
	low, high := 0, syscallCount
	for low < high {
		mid := int(uint(low+high) >> 1)
		if syscallNames[syscallNameAt[mid]:syscallNameAt[mid+1]] < name {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < syscallCount && syscallNames[syscallNameAt[low]:syscallNameAt[low+1]] == name
}

// Demultiplexed returns, for a call that some architectures also reach through
// socketcall(2) or ipc(2), the name of that entry and the value its first
// argument takes. Who filters the call must filter this door too.
func Demultiplexed(arch Arch, name string) (entry string, selector uint32, ok bool) {
	switch arch {
	case ArchX86, ArchPPC, ArchPPC64, ArchPPC64LE, ArchS390, ArchS390X:
	default:
		return "", 0, false
	}
	for i, n := range socketcalls {
		if n == name && i > 0 {
			return "socketcall", uint32(i), true
		}
	}
	for _, c := range ipcCalls {
		if c.name == name {
			return "ipc", c.selector, true
		}
	}
	return "", 0, false
}

// Indexed by socketcall's first argument: include/uapi/linux/net.h.
var socketcalls = [...]string{
	1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname",
	7: "getpeername", 8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom",
	13: "shutdown", 14: "setsockopt", 15: "getsockopt", 16: "sendmsg", 17: "recvmsg",
	18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
}

// include/uapi/linux/ipc.h.
var ipcCalls = [...]struct {
	name     string
	selector uint32
}{
	{"semop", 1}, {"semget", 2}, {"semctl", 3}, {"semtimedop", 4},
	{"msgsnd", 11}, {"msgrcv", 12}, {"msgget", 13}, {"msgctl", 14},
	{"shmat", 21}, {"shmdt", 22}, {"shmget", 23}, {"shmctl", 24},
}
