package lifecycle

import (
	"fmt"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
)

// onInitialCPUs calls start while this thread runs on the CPUs where
// process.execCPUAffinity wants a process to begin: the new process inherits
// them, and leaves them for its control group's or for the final ones.
func onInitialCPUs(a *specs.CPUAffinity, start func() error) error {
	if a == nil || a.Initial == "" {
		return start()
	}
	fail := func(err error) error {
		return &plan.FieldError{Field: "process.execCPUAffinity.initial", Err: err}
	}
	numbers, err := linux.ParseNumbers(a.Initial, linux.MaxCPUs)
	if err != nil {
		return fail(err)
	}
	before, initial := unix.NewCPUSet(linux.MaxCPUs), unix.NewCPUSet(linux.MaxCPUs)
	for cpu := range numbers.All() {
		initial.Set(cpu)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedGetaffinityDynamic(0, before); err != nil {
		return fail(fmt.Errorf("sched_getaffinity: %w", err))
	}
	if err := unix.SchedSetaffinityDynamic(0, initial); err != nil {
		return fail(fmt.Errorf("sched_setaffinity: %w", err))
	}
	// What this thread was allowed before, it still is.
	defer func() { _ = unix.SchedSetaffinityDynamic(0, before) }()
	return start()
}

// raise raises a hard limit of a process that is too low for it.
func raise(pid int, r plan.Rlimit) error {
	var now unix.Rlimit
	err := unix.Prlimit(pid, r.Resource, nil, &now)
	if err == nil && now.Max < r.Hard {
		now.Max = r.Hard
		err = unix.Prlimit(pid, r.Resource, &now, nil)
	}
	if err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	return nil
}
