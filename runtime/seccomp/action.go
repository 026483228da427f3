package seccomp

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// maxErrno is the highest errno the kernel lets a filter return.
const maxErrno = 4095

// actions are the actions of profiles: what a filter returns for them, and the
// highest errno they take.
var actions = [...]struct {
	name  specs.LinuxSeccompAction
	value uint32
	limit uint // 0: none
}{
	{specs.ActAllow, linux.SECCOMP_RET_ALLOW, 0},
	{specs.ActErrno, linux.SECCOMP_RET_ERRNO, maxErrno},
	{specs.ActKill, linux.SECCOMP_RET_KILL_THREAD, 0},
	{specs.ActKillProcess, linux.SECCOMP_RET_KILL_PROCESS, 0},
	{specs.ActKillThread, linux.SECCOMP_RET_KILL_THREAD, 0},
	{specs.ActLog, linux.SECCOMP_RET_LOG, 0},
	{specs.ActNotify, linux.SECCOMP_RET_USER_NOTIF, 0},
	{specs.ActTrace, linux.SECCOMP_RET_TRACE, linux.SECCOMP_RET_DATA},
	{specs.ActTrap, linux.SECCOMP_RET_TRAP, 0},
}

// Actions lists the actions that Compile knows.
func Actions() []specs.LinuxSeccompAction {
	names := make([]specs.LinuxSeccompAction, len(actions))
	for i, a := range actions {
		names[i] = a.name
	}
	return names
}

// parseAction turns an action and its errno into what a filter returns.
func parseAction(action specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	for _, a := range actions {
		switch {
		case a.name != action:
			continue
		case a.limit == 0 && errnoRet != nil:
			return 0, fmt.Errorf("%s returns no errno, but one is given", action)
		case a.limit == 0:
			return a.value, nil
		case errnoRet == nil:
			return a.value | linux.EPERM, nil
		case *errnoRet > a.limit:
			return 0, fmt.Errorf("errno %d of %s is above %d", *errnoRet, action, a.limit)
		}
		return a.value | uint32(*errnoRet), nil
	}
	return 0, fmt.Errorf("unknown action %q", action)
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

// flags are the flags of profiles. TSYNC is accepted and left out: a
// container's first process has one thread, and the kernel refuses it together
// with a listener.
var flags = [...]struct {
	name  specs.LinuxSeccompFlag
	value uint64
}{
	{"SECCOMP_FILTER_FLAG_TSYNC", 0},
	{specs.LinuxSeccompFlagLog, linux.SECCOMP_FILTER_FLAG_LOG},
	{specs.LinuxSeccompFlagSpecAllow, linux.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	{specs.LinuxSeccompFlagWaitKillableRecv, linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
}

// Flags lists the flags that Compile knows, and what the kernel has to know for
// each, 0 where it need not know any.
func Flags(yield func(name specs.LinuxSeccompFlag, value uint64) bool) {
	for _, f := range flags {
		if !yield(f.name, f.value) {
			return
		}
	}
}

// ParseFlags returns the SECCOMP_FILTER_FLAG_* of linux.seccomp.flags. As in
// runc, a profile that says nothing of flags gets SPEC_ALLOW, without which a
// kernel before 5.16 slows down all code of the container on some machines.
func ParseFlags(names []specs.LinuxSeccompFlag) (uint64, error) {
	if names == nil {
		return linux.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var bits uint64
	for i, name := range names {
		known := false
		for _, f := range flags {
			if f.name == name {
				known, bits = true, bits|f.value
			}
		}
		if !known {
			return 0, fieldError(fmt.Sprintf("linux.seccomp.flags[%d]", i), "unknown flag %q", name)
		}
	}
	return bits, nil
}

var (
	// The runtime reports over a pipe how the filter's loading went. Were write
	// to wait for a supervisor that has not got the listener yet, nothing would
	// ever move again. runc refuses the same.
	errNotifyWrite   = errors.New("SCMP_ACT_NOTIFY cannot be used for the write syscall")
	errNotifyDefault = errors.New("SCMP_ACT_NOTIFY cannot be used as default action")
)
