package metrics

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// Process adds what Prometheus' own clients tell of a process, under the same
// names.
func (s *Set) Process() {
	start := float64(time.Now().UnixMilli()) / 1e3
	s.CounterFunc("process_cpu_seconds_total", "User and system processor time, in seconds.", cpuSeconds)
	s.Gauge("process_open_fds", "Open file descriptors.", openFiles)
	s.Gauge("process_resident_memory_bytes", "Resident memory, in bytes.", residentBytes)
	s.Gauge("process_start_time_seconds", "When the process started, in seconds since 1970.", func() float64 { return start })
	s.Gauge("go_goroutines", "Goroutines.", func() float64 { return float64(runtime.NumGoroutine()) })
	s.Gauge("go_memstats_heap_alloc_bytes", "Bytes in use in the heap.", heapBytes)
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func openFiles() float64 {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return float64(len(entries) - 1) // without the one that reads them
}

func residentBytes() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0
	}
	return float64(resident * int64(os.Getpagesize()))
}

func heapBytes() float64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return float64(sample[0].Value.Uint64())
}
