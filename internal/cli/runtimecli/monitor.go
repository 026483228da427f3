package runtimecli

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

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
