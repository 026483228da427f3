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

// SyscallID is a system call's place in the table of all names, whatever the
// architecture: who needs one call's numbers on several looks its name up once.
type SyscallID int

// LookupSyscall finds a name in the table. arm's private calls have no ID.
func LookupSyscall(name string) (SyscallID, bool) {
	low, high := 0, syscallCount
	for low < high {
		mid := int(uint(low+high) >> 1)
		if SyscallID(mid).Name() < name {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return SyscallID(low), low < syscallCount && SyscallID(low).Name() == name
}

// LookupSyscallAfter is LookupSyscall for lists of names that are mostly sorted,
// as profiles are: it first tries the few names that follow the previous find,
// which halves the time to compile a seccomp profile.
func LookupSyscallAfter(previous SyscallID, name string) (SyscallID, bool) {
	const ahead = 8
	for id := max(previous, 0); id < min(previous+ahead, syscallCount); id++ {
		if id.Name() == name {
			return id, true
		}
	}
	return LookupSyscall(name)
}

// Name returns the call's name.
func (id SyscallID) Name() string { return syscallNames[syscallNameAt[id]:syscallNameAt[id+1]] }

// Number returns the call's number on an architecture, if it has it.
func (id SyscallID) Number(arch Arch) (int, bool) {
	if !arch.HasSyscalls() || id < 0 || id >= syscallCount {
		return 0, false
	}
	n := syscallNumbers[arch][id]
	return fromTable(arch, n), n != syscallAbsent
}

// SyscallNumber returns the number of a system call, as the kernel shows it to
// a seccomp filter (an x32 call has X32SyscallBit set).
func SyscallNumber(arch Arch, name string) (int, bool) {
	if id, ok := LookupSyscall(name); ok {
		if n, ok := id.Number(arch); ok {
			return n, true
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
			return SyscallID(i).Name(), true
		}
	}
	return "", false
}

func fromTable(arch Arch, n uint16) int { return int(n) + arch.SyscallBase() }

// SyscallBase is the number an architecture's calls are counted from: 0 for
// most, X32SyscallBit for x32, 4000 and 5000 for the flavours of mips.
func (a Arch) SyscallBase() int {
	switch {
	case !a.valid():
		return 0
	case a == ArchX32:
		return X32SyscallBit
	}
	return int(syscallBase[a])
}

// Demultiplexed returns, for a call that some architectures also reach through
// socketcall(2) or ipc(2), the name of that entry and the value its first
// argument takes. Who filters the call must filter this door too.
func Demultiplexed(arch Arch, name string) (entry string, selector uint64, ok bool) {
	switch arch {
	case ArchX86, ArchMIPS, ArchMIPSEL, ArchPPC, ArchPPC64, ArchPPC64LE, ArchS390, ArchS390X:
	default:
		return "", 0, false
	}
	if n := socketcallSelector(name); n != 0 {
		return "socketcall", n, true
	}
	if n := ipcSelector(name); n != 0 {
		return "ipc", n, true
	}
	return "", 0, false
}

// socketcallSelector returns the SYS_* of include/uapi/linux/net.h, or 0.
func socketcallSelector(name string) uint64 {
	switch name {
	case "socket":
		return 1
	case "bind":
		return 2
	case "connect":
		return 3
	case "listen":
		return 4
	case "accept":
		return 5
	case "getsockname":
		return 6
	case "getpeername":
		return 7
	case "socketpair":
		return 8
	case "send":
		return 9
	case "recv":
		return 10
	case "sendto":
		return 11
	case "recvfrom":
		return 12
	case "shutdown":
		return 13
	case "setsockopt":
		return 14
	case "getsockopt":
		return 15
	case "sendmsg":
		return 16
	case "recvmsg":
		return 17
	case "accept4":
		return 18
	case "recvmmsg":
		return 19
	case "sendmmsg":
		return 20
	}
	return 0
}

// ipcSelector returns the call number of include/uapi/linux/ipc.h, or 0.
func ipcSelector(name string) uint64 {
	switch name {
	case "semop":
		return 1
	case "semget":
		return 2
	case "semctl":
		return 3
	case "semtimedop":
		return 4
	case "msgsnd":
		return 11
	case "msgrcv":
		return 12
	case "msgget":
		return 13
	case "msgctl":
		return 14
	case "shmat":
		return 21
	case "shmdt":
		return 22
	case "shmget":
		return 23
	case "shmctl":
		return 24
	}
	return 0
}
