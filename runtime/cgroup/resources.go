package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// planFor translates resources, without devices, to control files. Engines describe them in version 1's terms.
func planFor(r *specs.LinuxResources, unified func(v1, v2 string) bool) *plan {
	p := &plan{unified: unified}
	if r == nil {
		return p
	}
	if r.Memory != nil {
		p.memory(r.Memory)
	}
	if r.CPU != nil {
		p.cpu(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		limit := *r.Pids.Limit
		if limit == 0 {
			limit = 1 // as runc: with none at all the container's process could not even be made
		}
		p.one("pids.limit", "pids.limit", same(orMax(limit)))
	}
	if r.BlockIO != nil {
		p.blockIO(r.BlockIO)
	}
	p.hugepages(r.HugepageLimits)
	if n := r.Network; n != nil {
		if set(n.ClassID) {
			p.one("network.classID", "network.classID", same(utoa(*n.ClassID)))
		}
		for i, prio := range n.Priorities {
			p.one(fmt.Sprintf("network.priorities[%d]", i), "network.priorities", same(prio.Name+" "+utoa(prio.Priority)))
		}
	}
	p.rdma(r.Rdma)
	p.unifiedFiles(r.Unified)
	return p
}

// Warnings tells what of the resources is left out.
func Warnings(r *specs.LinuxResources) []string {
	if r == nil || r.Memory == nil || !set(r.Memory.Kernel) { //nolint:staticcheck // deprecated, and that is what the warning is about
		return nil
	}
	// The specification lets runtimes ignore it, and the kernel took the limit out in 5.16.
	return []string{"linux.resources.memory.kernel: ignored: Linux has no such limit any more"}
}

func (p *plan) memory(m *specs.LinuxMemory) {
	p.checkMemory(m)
	limit, total := number(m.Limit), number(m.Swap)
	p.group()
	if limit != 0 {
		p.add("memory.limit", "memory.limit", value{itoa(limit), orMax(limit)})
	}
	switch {
	case total != 0:
		if v2, ok := p.swapV2(limit, total); ok {
			s := p.add("memory.swap", "memory.swap", value{itoa(total), v2})
			// On version 2 a machine without swap has no such file, and no swap to limit.
			s.needless = s.file == "memory.swap.max" && (v2 == "max" || v2 == "0")
		}
	case limit < 0:
		// Unlimited memory means swap too; under an old limit of both, version 1 would refuse it.
		p.add("memory.limit", "memory.swap", value{"-1", "max"}).needless = true
	}
	if set(m.Reservation) {
		p.one("memory.reservation", "memory.reservation", value{itoa(*m.Reservation), orMax(*m.Reservation)})
	}
	if set(m.KernelTCP) {
		p.one("memory.kernelTCP", "memory.kernelTCP", same(itoa(*m.KernelTCP)))
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 { // -1 is an old engine's "leave it"
		if *m.Swappiness > 100 {
			p.invalid("memory.swappiness", utoa(*m.Swappiness)+" is not between 0 and 100")
		}
		p.one("memory.swappiness", "memory.swappiness", same(utoa(*m.Swappiness)))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		p.one("memory.disableOOMKiller", "memory.disableOOMKiller", same("1"))
	}
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
}

// swapV2 converts version 1's limit of memory and swap together to version 2's of swap alone.
func (p *plan) swapV2(limit, total int64) (v2 string, ok bool) {
	switch {
	case total < 0:
		return "max", true
	case !p.unified(controlFiles("memory.swap")):
		return "", true // not written; the kernel compares the two itself
	case limit <= 0:
		p.invalid("memory.swap", "limits memory and swap together, so it needs memory.limit")
		return "", false
	case total < limit:
		p.invalid("memory.swap", fmt.Sprintf("%d is below memory.limit %d", total, limit))
		return "", false
	}
	return itoa(total - limit), true
}

func (p *plan) cpu(c *specs.LinuxCPU) {
	idle := c.Idle != nil && *c.Idle != 0
	if c.Idle != nil {
		p.one("cpu.idle", "cpu.idle", same(itoa(*c.Idle))).needless = !idle
	}
	if set(c.Shares) && !idle { // an idle group has no weight
		p.one("cpu.shares", "cpu.shares", value{utoa(*c.Shares), utoa(sharesToWeight(*c.Shares))})
	}
	p.group()
	p.bandwidth(c)
	if c.Burst != nil {
		p.add("cpu.burst", "cpu.burst", same(utoa(*c.Burst))).needless = *c.Burst == 0
	}
	p.group()
	if set(c.RealtimePeriod) {
		p.add("cpu.realtimePeriod", "cpu.realtimePeriod", same(utoa(*c.RealtimePeriod)))
	}
	if set(c.RealtimeRuntime) {
		p.add("cpu.realtimeRuntime", "cpu.realtimeRuntime", same(itoa(*c.RealtimeRuntime)))
	}
	if c.Cpus != "" {
		p.one("cpu.cpus", "cpu.cpus", same(c.Cpus))
	}
	if c.Mems != "" {
		p.one("cpu.mems", "cpu.mems", same(c.Mems))
	}
}

// bandwidth sets quota and period. Version 2 has both in one file, the quota first.
func (p *plan) bandwidth(c *specs.LinuxCPU) {
	both := "max"
	if set(c.Quota) {
		both = orMax(*c.Quota)
	}
	if set(c.Period) {
		period := utoa(*c.Period)
		both += " " + period
		if !p.unified(controlFiles("cpu.period")) || !set(c.Quota) {
			p.add("cpu.period", "cpu.period", value{period, both})
		}
	}
	if set(c.Quota) {
		p.add("cpu.quota", "cpu.quota", value{itoa(*c.Quota), both})
	}
}

// sharesToWeight maps shares of 2..262144 to weights of 1..10000 so that the defaults, 1024 and 100, meet. The exponent is the quadratic
// in log2(shares) through these three points, as runc 1.3.2, crun 1.23 and later have it. (The linear map before gave 1024 the
// weight 39, and so less CPU time than processes outside containers.)
func sharesToWeight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (p *plan) blockIO(b *specs.LinuxBlockIO) {
	if set(b.Weight) {
		p.weight("blockIO.weight", "blockIO.weight", "", *b.Weight)
	}
	if set(b.LeafWeight) {
		p.one("blockIO.leafWeight", "blockIO.leafWeight", same(utoa(*b.LeafWeight)))
	}
	for i, w := range b.WeightDevice {
		field, prefix := fmt.Sprintf("blockIO.weightDevice[%d]", i), device(w.LinuxBlockIODevice)+" "
		if set(w.LeafWeight) {
			p.one(field+".leafWeight", "blockIO.weightDevice.leafWeight", same(prefix+utoa(*w.LeafWeight)))
		}
		if set(w.Weight) {
			p.weight(field+".weight", "blockIO.weightDevice.weight", prefix, *w.Weight)
		}
	}
	for _, t := range []struct {
		field, key string // the latter in version 2's io.max
		devices    []specs.LinuxThrottleDevice
	}{
		{"blockIO.throttleReadBpsDevice", "rbps", b.ThrottleReadBpsDevice},
		{"blockIO.throttleWriteBpsDevice", "wbps", b.ThrottleWriteBpsDevice},
		{"blockIO.throttleReadIOPSDevice", "riops", b.ThrottleReadIOPSDevice},
		{"blockIO.throttleWriteIOPSDevice", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for i, d := range t.devices {
			rate := utoa(d.Rate)
			v2 := rate
			if d.Rate == 0 {
				v2 = "max" // version 1's word for no limit
			}
			p.one(fmt.Sprintf("%s[%d]", t.field, i), t.field,
				value{device(d.LinuxBlockIODevice) + " " + rate, device(d.LinuxBlockIODevice) + " " + t.key + "=" + v2})
		}
	}
}

func device(d specs.LinuxBlockIODevice) string { return itoa(d.Major) + ":" + itoa(d.Minor) }

// weight sets a weight of 10..1000 through BFQ, which takes it as it is, or on version 2 where that is not there through iocost's
// io.weight, which has 1..10000.
func (p *plan) weight(field, row, prefix string, weight uint16) {
	if weight < 10 || weight > 1000 {
		p.invalid(field, utoa(weight)+" is not between 10 and 1000")
		return
	}
	s := p.one(field, row, same(prefix+utoa(weight)))
	if s.alt == "io.weight" {
		s.altValue = prefix + utoa(1+(uint64(weight)-10)*9999/990)
	}
}

func (p *plan) hugepages(limits []specs.LinuxHugepageLimit) {
	for i, h := range limits {
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		if !validPageSize(h.Pagesize) {
			p.invalid(field+".pageSize", strconv.Quote(h.Pagesize)+" is not a size such as 2MB")
			return
		}
		used, reserved := p.one(field, "hugepageLimits", same(utoa(h.Limit))), p.one(field, "hugepageLimits.reserved", same(utoa(h.Limit)))
		used.file = strings.Replace(used.file, "%", h.Pagesize, 1)
		reserved.file = strings.Replace(reserved.file, "%", h.Pagesize, 1)
		reserved.needless = true // newer than the other (Linux 5.7)
	}
}

func (p *plan) rdma(limits map[string]specs.LinuxRdma) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		text, l := name, limits[name]
		if l.HcaHandles != nil {
			text += " hca_handle=" + utoa(*l.HcaHandles)
		}
		if l.HcaObjects != nil {
			text += " hca_object=" + utoa(*l.HcaObjects)
		}
		p.one(fmt.Sprintf("rdma[%q]", name), "rdma", same(text))
	}
}

// unifiedFiles adds the control files of version 2 that the configuration names itself.
func (p *plan) unifiedFiles(files map[string]string) {
	if len(files) > 0 && !p.unified(controlFiles("unified")) {
		p.refuse("unified", "needs cgroup v2")
		return
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		field := fmt.Sprintf("unified[%q]", file)
		controller, _, ok := strings.Cut(file, ".")
		if !ok || controller == "" || strings.ContainsAny(file, "/\x00") || len(file) > 255 {
			p.invalid(field, "is not the name of a control file")
			return
		}
		p.one(field, "unified", same(files[file])).file = file
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
