package cgroup

import "github.com/tare-oci/tare/runtime/rdt"

// Stats is what a container uses, in the shape in which runc's events prints it and in which engines read it: the names are version 1's.
// Times are in nanoseconds, sizes in bytes; no limit is 1<<64-1, except for processes, where it is 0.
type Stats struct {
	CPU     CPUStats               `json:"cpu"`
	CPUSet  CPUSetStats            `json:"cpuset"`
	Memory  MemoryStats            `json:"memory"`
	Pids    PidsStats              `json:"pids"`
	Blkio   BlkioStats             `json:"blkio"`
	Hugetlb map[string]HugetlbStat `json:"hugetlb"` // by page size
	// IntelRdt is empty here, and filled in by who knows the container's class.
	IntelRdt rdt.Stats `json:"intel_rdt"`
	// NetworkInterfaces is there because runc has it: there is nothing to tell.
	NetworkInterfaces []struct{} `json:"network_interfaces"`
}

// CPUStats is use of CPUs.
type CPUStats struct {
	Usage      CPUUsage   `json:"usage"`
	Throttling Throttling `json:"throttling"`
	PSI        *Pressure  `json:"psi,omitempty"`
}

// CPUUsage is CPU time; that of each CPU is known on version 1 only.
type CPUUsage struct {
	Total        uint64   `json:"total,omitempty"`
	PerCPU       []uint64 `json:"percpu,omitempty"`
	PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
	PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling is how often and for how long a quota was used up.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// CPUSetStats are version 1's cpuset files.
type CPUSetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryStats is use of memory. Swap counts memory and swap together.
type MemoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"`
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	PSI       *Pressure         `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsStats counts processes and threads.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkioStats is input and output of block devices. A kernel tells some of it only.
type BlkioStats struct {
	ServiceBytes []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *Pressure    `json:"psi,omitempty"`
}

// BlkioEntry is one kind of access to one device.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbStat is use of huge pages of one size.
type HugetlbStat struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// Pressure is how much time some or all processes lost waiting.
type Pressure struct {
	Some PressureEntry `json:"some"`
	Full PressureEntry `json:"full"`
}

// PressureEntry has percentages over so many seconds, and microseconds in all.
type PressureEntry struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}
