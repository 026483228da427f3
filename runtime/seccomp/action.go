package seccomp

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// maxErrno is the highest errno the kernel lets a filter return.
const maxErrno = 4095

// parseAction turns an action and its errno into what a filter returns.
func parseAction(action specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	var value uint32
	limit := uint(0) // the highest data the action takes
	switch action {
	case specs.ActKill, specs.ActKillThread:
		value = linux.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		value = linux.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		value = linux.SECCOMP_RET_TRAP
	case specs.ActErrno:
		value, limit = linux.SECCOMP_RET_ERRNO, maxErrno
	case specs.ActTrace:
		value, limit = linux.SECCOMP_RET_TRACE, linux.SECCOMP_RET_DATA
	case specs.ActAllow:
		value = linux.SECCOMP_RET_ALLOW
	case specs.ActLog:
		value = linux.SECCOMP_RET_LOG
	case specs.ActNotify:
		value = linux.SECCOMP_RET_USER_NOTIF
	default:
		return 0, fmt.Errorf("unknown action %q", action)
	}
	switch {
	case limit == 0 && errnoRet != nil:
		return 0, fmt.Errorf("%s returns no errno, but one is given", action)
	case limit == 0:
		return value, nil
	case errnoRet == nil:
		return value | linux.EPERM, nil
	case *errnoRet > limit:
		return 0, fmt.Errorf("errno %d of %s is above %d", *errnoRet, action, limit)
	}
	return value | uint32(*errnoRet), nil
}

// refuses reports whether a default action keeps calls from happening. TRACE
// is not one of those: a tracer can answer ENOSYS by itself.
func refuses(action uint32) bool {
	switch action & linux.SECCOMP_RET_ACTION_FULL {
	case linux.SECCOMP_RET_ALLOW, linux.SECCOMP_RET_LOG, linux.SECCOMP_RET_TRACE:
		return false
	}
	return true
}

// ParseFlags returns the SECCOMP_FILTER_FLAG_* of linux.seccomp.flags. TSYNC is
// accepted and left out: a container's first process has one thread, and the
// kernel refuses it together with a listener.
func ParseFlags(flags []specs.LinuxSeccompFlag) (uint64, error) {
	var bits uint64
	for i, flag := range flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC":
		case specs.LinuxSeccompFlagLog:
			bits |= linux.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= linux.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fmt.Errorf("linux.seccomp.flags[%d]: unknown flag %q", i, flag)
		}
	}
	return bits, nil
}

var (
	// The runtime reports over a pipe how the filter's loading went. Were write
	// to wait for a supervisor that has not got the listener yet, nothing would
	// ever move again. runc refuses the same.
	errNotifyWrite   = errors.New("SCMP_ACT_NOTIFY cannot be used for write")
	errNotifyDefault = errors.New("SCMP_ACT_NOTIFY cannot be the default action")
)
