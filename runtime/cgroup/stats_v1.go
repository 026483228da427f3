package cgroup

// clockTick is the unit of cpuacct.stat, USER_HZ, which is 100 on every architecture of ours.
const clockTick = 1e9 / 100

func (m *v1) Stats() (*Stats, error) {
	s := &Stats{Hugetlb: map[string]HugetlbStat{}}
	files := func(controller string) *statFiles {
		for i := range m.groups {
			if m.groups[i].has(controller) {
				return &statFiles{dir: m.groups[i].dir}
			}
		}
		return new(statFiles)
	}
	for _, part := range []struct {
		controller string
		read       func(*Stats, *statFiles)
	}{
		{"cpuacct", cpuacctV1}, {"cpu", cpuV1}, {"cpuset", cpusetV1}, {"memory", memoryV1}, {"pids", pidsStats}, {"blkio", blkioV1}, {"hugetlb", hugetlbV1},
	} {
		f := files(part.controller)
		if part.read(s, f); f.err != nil {
			return nil, wrapped(f.err)
		}
	}
	if m.unified != nil && files("hugetlb").dir == "" {
		f := &statFiles{dir: m.unified.dir}
		hugetlbV2(s, f)
		return s, wrapped(f.err)
	}
	return s, nil
}

func cpuacctV1(s *Stats, f *statFiles) {
	u := &s.CPU.Usage
	u.Total = f.number("cpuacct.usage")
	ticks := f.pairs("cpuacct.stat")
	u.User, u.Kernel = ticks["user"]*clockTick, ticks["system"]*clockTick
	u.PerCPU = f.numbers("cpuacct.usage_percpu")
	u.PerCPUUser = f.numbers("cpuacct.usage_percpu_user")
	u.PerCPUKernel = f.numbers("cpuacct.usage_percpu_sys")
}

func cpuV1(s *Stats, f *statFiles) {
	stat := f.pairs("cpu.stat")
	s.CPU.Throttling = Throttling{stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]}
}

func cpusetV1(s *Stats, f *statFiles) {
	c := &s.CPUSet
	c.CPUs, c.Mems = f.list("cpuset.cpus"), f.list("cpuset.mems")
	for name, to := range map[string]*uint64{
		"cpu_exclusive": &c.CPUExclusive, "mem_hardwall": &c.MemHardwall, "mem_exclusive": &c.MemExclusive,
		"memory_migrate": &c.MemoryMigrate, "memory_spread_page": &c.MemorySpreadPage, "memory_spread_slab": &c.MemorySpreadSlab,
		"memory_pressure": &c.MemoryPressure, "sched_load_balance": &c.SchedLoadBalance,
	} {
		*to = f.number("cpuset." + name)
	}
	c.SchedRelaxDomainLevel = int64(f.number("cpuset.sched_relax_domain_level")) // -1 is usual
}

func memoryV1(s *Stats, f *statFiles) {
	s.Memory.Raw = f.pairs("memory.stat")
	s.Memory.Cache = s.Memory.Raw["cache"]
	for prefix, to := range map[string]*MemoryEntry{"memory.": &s.Memory.Usage, "memory.memsw.": &s.Memory.Swap,
		"memory.kmem.": &s.Memory.Kernel, "memory.kmem.tcp.": &s.Memory.KernelTCP} {
		*to = MemoryEntry{Limit: f.number(prefix + "limit_in_bytes"), Usage: f.number(prefix + "usage_in_bytes"),
			Max: f.number(prefix + "max_usage_in_bytes"), Failcnt: f.number(prefix + "failcnt")}
	}
}

// pidsStats is for both versions.
func pidsStats(s *Stats, f *statFiles) {
	s.Pids = PidsStats{Current: f.number("pids.current"), Limit: f.number("pids.max")}
	if s.Pids.Limit == 1<<64-1 {
		s.Pids.Limit = 0
	}
}

// blkioV1 reads from the first source that has all. BFQ tells most when it was built for debugging.
func blkioV1(s *Stats, f *statFiles) {
	b := &s.Blkio
	for _, prefix := range [...]string{"blkio.", "blkio.bfq."} {
		if _, ok := f.text(prefix + "sectors_recursive"); !ok {
			continue
		}
		for name, to := range map[string]*[]BlkioEntry{"sectors_recursive": &b.Sectors, "io_service_time_recursive": &b.ServiceTime,
			"io_wait_time_recursive": &b.WaitTime, "io_merged_recursive": &b.Merged, "io_queued_recursive": &b.Queued,
			"time_recursive": &b.Time} {
			*to, _ = f.blkio(prefix + name)
		}
	}
	for _, source := range [...][2]string{{"blkio.bfq.", "_recursive"}, {"blkio.", "_recursive"}, {"blkio.throttle.", "_recursive"}, {"blkio.throttle.", ""}} {
		serviced, ok := f.blkio(source[0] + "io_serviced" + source[1])
		if !ok || len(serviced) == 0 {
			continue
		}
		b.Serviced = serviced
		b.ServiceBytes, _ = f.blkio(source[0] + "io_service_bytes" + source[1])
		return
	}
}

func hugetlbV1(s *Stats, f *statFiles) {
	for _, size := range pageSizes() {
		prefix := "hugetlb." + size + ".rsvd."
		if _, ok := f.text(prefix + "usage_in_bytes"); !ok {
			prefix = "hugetlb." + size + "."
		}
		if _, ok := f.text(prefix + "usage_in_bytes"); ok {
			s.Hugetlb[size] = HugetlbStat{f.number(prefix + "usage_in_bytes"), f.number(prefix + "max_usage_in_bytes"), f.number(prefix + "failcnt")}
		}
	}
}
