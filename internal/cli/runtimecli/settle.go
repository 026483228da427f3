package runtimecli

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// settle fits the Go runtime to a program that runs for milliseconds.
func settle() {
	// One thing is done at a time, but for terminals (package foreground). Threads that look for more to do only take
	// the processor from the container's process.
	runtime.GOMAXPROCS(1)
	deepen(false)
	calmMonitor()
}

// deepen makes the stack as large as all verbs need, at once: it is copied, with
// all frames looked through, each time that it doubles. What makes room is the
// frame; the branch that would fill it is never taken.
//
//go:noinline
func deepen(fill bool) byte {
	if !fill {
		return 0
	}
	var room [32 << 10]byte
	return room[os.Getpid()%len(room)]
}

// monitorSlack is how late the Go runtime's monitor thread may wake up.
const monitorSlack = "4000000" // nanoseconds

// calmMonitor lengthens the naps of the Go runtime's monitor thread. It wakes
// up every 20 µs to look for work that is stuck, on the very processor that we
// or the container's process use: a fifth of all the time this command takes.
//
// It is the first thread that the runtime starts, so its id is the next after
// the process's own, unless another process has just taken that; a thread of
// this id that is ours is the monitor. Where anything here fails, nothing is
// lost but the gain.
func calmMonitor() {
	tid := strconv.Itoa(os.Getpid() + 1)
	if unix.Access("/proc/self/task/"+tid, unix.F_OK) != nil {
		return
	}
	fd, err := unix.Open("/proc/"+tid+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_, _ = unix.Write(fd, []byte(monitorSlack)) // refused without CAP_SYS_NICE
}
