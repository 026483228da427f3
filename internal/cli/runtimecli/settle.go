package runtimecli

import (
	"os"
	"runtime"

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
// It is the first thread that the runtime starts, and the kernel lists threads
// in the order they were started. Where anything here fails, nothing is lost but
// the gain.
func calmMonitor() {
	threads, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(threads)
	var buf [1024]byte
	n, err := unix.ReadDirent(threads, buf[:])
	if err != nil {
		return
	}
	_, _, ids := unix.ParseDirent(buf[:n], 2, nil) // ours, and the first other
	if len(ids) < 2 {
		return
	}
	fd, err := unix.Open("/proc/"+ids[1]+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_, _ = unix.Write(fd, []byte(monitorSlack)) // refused without CAP_SYS_NICE
}
