package host

import (
	"errors"

	"golang.org/x/sys/unix"
)

// SeccompFlags reports whether this kernel knows all of some SECCOMP_FILTER_FLAG_*.
// It asks with a filter that is nowhere: the kernel looks at the flags first.
func SeccompFlags(flags uint64) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
	return errors.Is(errno, unix.EFAULT)
}
