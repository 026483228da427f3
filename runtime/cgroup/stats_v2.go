package cgroup

import "math"

func (m *v2) Stats() (*Stats, error) {
	s, f := &Stats{Hugetlb: map[string]HugetlbStat{}}, &statFiles{dir: m.dir}
	cpuV2(s, f)
	memoryV2(s, f)
	pidsStats(s, f)
	if _, ok := f.text("pids.current"); !ok { // without the controller
		if pids, err := m.Pids(); err == nil {
			s.Pids.Current = uint64(len(pids))
		}
	}
	blkioV2(s, f)
	hugetlbV2(s, f)
	return s, wrapped(f.err)
}

func cpuV2(s *Stats, f *statFiles) {
	stat := f.pairs("cpu.stat")
	const us = 1000
	s.CPU.Usage = CPUUsage{Total: stat["usage_usec"] * us, Kernel: stat["system_usec"] * us, User: stat["user_usec"] * us}
	s.CPU.Throttling = Throttling{stat["nr_periods"], stat["nr_throttled"], stat["throttled_usec"] * us}
	s.CPU.PSI = f.pressure("cpu.pressure")
}

func memoryV2(s *Stats, f *statFiles) {
	m := &s.Memory
	m.Raw = f.pairs("memory.stat")
	m.Cache = m.Raw["file"]
	m.PSI = f.pressure("memory.pressure")
	entry := func(prefix string) MemoryEntry {
		return MemoryEntry{Limit: f.number(prefix + "max"), Usage: f.number(prefix + "current"), Max: f.number(prefix + "peak")}
	}
	m.Usage, m.Swap = entry("memory."), entry("memory.swap.")
	m.Usage.Failcnt = f.pairs("memory.events")["max"]
	// Version 1's is of memory and swap together. The most there was of both is not the sum of the most of each.
	m.Swap.Max = 0
	m.Swap.Usage += m.Usage.Usage
	if m.Swap.Limit != math.MaxUint64 && m.Usage.Limit != math.MaxUint64 {
		m.Swap.Limit += m.Usage.Limit
	} else {
		m.Swap.Limit = math.MaxUint64
	}
}

func blkioV2(s *Stats, f *statFiles) {
	if text, ok := f.text("io.stat"); ok {
		var err error
		s.Blkio.ServiceBytes, s.Blkio.Serviced, err = parseIOStat(text)
		f.parsed("io.stat", err)
	}
	s.Blkio.PSI = f.pressure("io.pressure")
}

func hugetlbV2(s *Stats, f *statFiles) {
	for _, size := range pageSizes() {
		prefix := "hugetlb." + size + "."
		current := prefix + "rsvd.current"
		if _, ok := f.text(current); !ok {
			current = prefix + "current"
		}
		if _, ok := f.text(current); ok {
			s.Hugetlb[size] = HugetlbStat{Usage: f.number(current), Failcnt: f.pairs(prefix + "events")["max"]}
		}
	}
}
