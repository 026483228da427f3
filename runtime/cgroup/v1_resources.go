package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// planV1 translates resources (without devices) to version 1's control files.
func planV1(r *specs.LinuxResources) *plan {
	p := new(plan)
	if r == nil {
		return p
	}
	if r.Memory != nil {
		p.memoryV1(r.Memory)
	}
	if r.CPU != nil {
		p.cpuV1(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		p.one("pids.limit", "pids", "pids.max", orMax(*r.Pids.Limit))
	}
	if r.BlockIO != nil {
		p.blockIOV1(r.BlockIO)
	}
	for i, h := range r.HugepageLimits {
		if !validPageSize(h.Pagesize) {
			p.invalid(fmt.Sprintf("hugepageLimits[%d].pageSize", i), strconv.Quote(h.Pagesize)+" is not a size such as 2MB")
			break
		}
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		p.one(field, "hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", utoa(h.Limit))
		p.one(field, "hugetlb", "hugetlb."+h.Pagesize+".rsvd.limit_in_bytes", utoa(h.Limit)).needless = true
	}
	if n := r.Network; n != nil {
		if set(n.ClassID) {
			p.one("network.classID", "net_cls", "net_cls.classid", utoa(*n.ClassID))
		}
		for i, prio := range n.Priorities {
			p.one(fmt.Sprintf("network.priorities[%d]", i), "net_prio", "net_prio.ifpriomap", prio.Name+" "+utoa(prio.Priority))
		}
	}
	p.rdma(r.Rdma)
	if len(r.Unified) > 0 {
		p.refuse("unified", "needs cgroup v2")
	}
	return p
}

// checkMemory holds what both versions ask of memory limits.
func (p *plan) checkMemory(m *specs.LinuxMemory) {
	for _, l := range []struct {
		field string
		value *int64
	}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}, {"kernelTCP", m.KernelTCP}} {
		if l.value != nil && *l.value < -1 {
			p.invalid("memory."+l.field, itoa(*l.value)+" is neither a size nor -1 for unlimited")
		}
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		p.refuse("memory.useHierarchy", "since Linux 5.11 accounting is always hierarchical")
	}
	// memory.kernel is ignored: the kernel took the limit out in 5.16, and the specification allows it.
}

func (p *plan) memoryV1(m *specs.LinuxMemory) {
	p.checkMemory(m)
	p.group()
	if set(m.Limit) {
		p.add("memory.limit", "memory", "memory.limit_in_bytes", itoa(*m.Limit))
	}
	switch {
	case set(m.Swap):
		p.add("memory.swap", "memory", "memory.memsw.limit_in_bytes", itoa(*m.Swap))
	case set(m.Limit) && *m.Limit < 0:
		// Unlimited memory under an old limit of memory and swap would be refused.
		p.add("memory.limit", "memory", "memory.memsw.limit_in_bytes", "-1").needless = true
	}
	if set(m.Reservation) {
		p.one("memory.reservation", "memory", "memory.soft_limit_in_bytes", itoa(*m.Reservation))
	}
	if set(m.KernelTCP) {
		p.one("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", itoa(*m.KernelTCP))
	}
	if m.Swappiness != nil {
		if *m.Swappiness > 100 {
			p.invalid("memory.swappiness", utoa(*m.Swappiness)+" is not between 0 and 100")
		}
		p.one("memory.swappiness", "memory", "memory.swappiness", utoa(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		p.one("memory.disableOOMKiller", "memory", "memory.oom_control", "1")
	}
}

func (p *plan) cpuV1(c *specs.LinuxCPU) {
	idle := c.Idle != nil && *c.Idle != 0
	if c.Idle != nil {
		p.one("cpu.idle", "cpu", "cpu.idle", itoa(*c.Idle)).needless = !idle
	}
	if set(c.Shares) && !idle { // an idle group has no weight
		p.one("cpu.shares", "cpu", "cpu.shares", utoa(*c.Shares))
	}
	p.group()
	if set(c.Period) {
		p.add("cpu.period", "cpu", "cpu.cfs_period_us", utoa(*c.Period))
	}
	if set(c.Quota) {
		p.add("cpu.quota", "cpu", "cpu.cfs_quota_us", itoa(*c.Quota))
	}
	if c.Burst != nil {
		p.add("cpu.burst", "cpu", "cpu.cfs_burst_us", utoa(*c.Burst)).needless = *c.Burst == 0
	}
	p.group()
	if set(c.RealtimePeriod) {
		p.add("cpu.realtimePeriod", "cpu", "cpu.rt_period_us", utoa(*c.RealtimePeriod))
	}
	if set(c.RealtimeRuntime) {
		p.add("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", itoa(*c.RealtimeRuntime))
	}
	p.cpuset(c)
}

func (p *plan) cpuset(c *specs.LinuxCPU) {
	if c.Cpus != "" {
		p.one("cpu.cpus", "cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		p.one("cpu.mems", "cpuset", "cpuset.mems", c.Mems)
	}
}

func (p *plan) blockIOV1(b *specs.LinuxBlockIO) {
	if set(b.Weight) {
		p.one("blockIO.weight", "blkio", "blkio.weight", utoa(*b.Weight)).alt = "blkio.bfq.weight"
	}
	if set(b.LeafWeight) {
		p.refuse("blockIO.leafWeight", "Linux 5.0 removed it with the CFQ scheduler")
	}
	for i, w := range b.WeightDevice {
		field := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		if set(w.LeafWeight) {
			p.refuse(field+".leafWeight", "Linux 5.0 removed it with the CFQ scheduler")
		}
		if w.Weight != nil {
			p.one(field+".weight", "blkio", "blkio.weight_device", device(w.LinuxBlockIODevice)+" "+utoa(*w.Weight)).alt = "blkio.bfq.weight_device"
		}
	}
	for _, t := range throttles(b) {
		for i, d := range t.devices {
			p.one(fmt.Sprintf("blockIO.%s[%d]", t.field, i), "blkio", t.v1File, device(d.LinuxBlockIODevice)+" "+utoa(d.Rate))
		}
	}
}

// throttle is one of the four lists of rates, with its names in either version.
type throttle struct {
	field, v1File, v2Key string
	devices              []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func device(d specs.LinuxBlockIODevice) string { return itoa(d.Major) + ":" + itoa(d.Minor) }

// rdma is the same file in both versions.
func (p *plan) rdma(limits map[string]specs.LinuxRdma) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		value, l := name, limits[name]
		if l.HcaHandles != nil {
			value += " hca_handle=" + utoa(*l.HcaHandles)
		}
		if l.HcaObjects != nil {
			value += " hca_object=" + utoa(*l.HcaObjects)
		}
		p.one(fmt.Sprintf("rdma[%q]", name), "rdma", "rdma.max", value)
	}
}

// validPageSize holds the specification's form, <size><unit-prefix>B; the text becomes part of a file name.
func validPageSize(s string) bool {
	digits := strings.TrimRight(s, "KMGTPB")
	unit := s[len(digits):]
	if len(digits) == 0 || len(digits) > 10 || len(unit) != 2 || unit[1] != 'B' || unit[0] == 'B' {
		return false
	}
	return strings.Trim(digits, "0123456789") == ""
}
