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

// planV2 translates resources (without devices) to version 2's control files. Engines describe them in version 1's terms.
func planV2(r *specs.LinuxResources) *plan {
	p := new(plan)
	if r == nil {
		return p
	}
	if r.Memory != nil {
		p.memoryV2(r.Memory)
	}
	if r.CPU != nil {
		p.cpuV2(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		p.one("pids.limit", "pids", "pids.max", orMax(*r.Pids.Limit))
	}
	if r.BlockIO != nil {
		p.blockIOV2(r.BlockIO)
	}
	for i, h := range r.HugepageLimits {
		if !validPageSize(h.Pagesize) {
			p.invalid(fmt.Sprintf("hugepageLimits[%d].pageSize", i), strconv.Quote(h.Pagesize)+" is not a size such as 2MB")
			break
		}
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		p.one(field, "hugetlb", "hugetlb."+h.Pagesize+".max", utoa(h.Limit))
		p.one(field, "hugetlb", "hugetlb."+h.Pagesize+".rsvd.max", utoa(h.Limit)).needless = true
	}
	if n := r.Network; n != nil {
		if set(n.ClassID) {
			p.refuse("network.classID", "cgroup v2 has no net_cls")
		}
		if len(n.Priorities) > 0 {
			p.refuse("network.priorities", "cgroup v2 has no net_prio")
		}
	}
	p.rdma(r.Rdma)
	p.unified(r.Unified)
	return p
}

func (p *plan) memoryV2(m *specs.LinuxMemory) {
	p.checkMemory(m)
	limit, total := number(m.Limit), number(m.Swap)
	if limit != 0 {
		p.one("memory.limit", "memory", "memory.max", orMax(limit))
	}
	if value, ok := p.swapV2(limit, total); ok {
		// Without swap there is no such file, and no swap to limit.
		p.one("memory.swap", "memory", "memory.swap.max", value).needless = value == "max" || value == "0"
	}
	if set(m.Reservation) {
		p.one("memory.reservation", "memory", "memory.low", orMax(*m.Reservation))
	}
	if set(m.KernelTCP) && *m.KernelTCP > 0 {
		p.refuse("memory.kernelTCP", "cgroup v2 has no such limit")
	}
	if m.Swappiness != nil {
		p.refuse("memory.swappiness", "cgroup v2 has no such setting")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		p.refuse("memory.disableOOMKiller", "cgroup v2 has no such setting")
	}
}

// swapV2 converts version 1's limit of memory and swap together to version 2's of swap alone; ok is false where there is
// nothing to set.
func (p *plan) swapV2(limit, total int64) (value string, ok bool) {
	switch {
	case total == 0 && limit < 0: // as on version 1, unlimited memory means swap too
		return "max", true
	case total == 0:
		return "", false
	case total < 0:
		return "max", true
	case limit <= 0:
		p.invalid("memory.swap", "limits memory and swap together, so it needs memory.limit")
		return "", false
	case total < limit:
		p.invalid("memory.swap", fmt.Sprintf("%d is below memory.limit %d", total, limit))
		return "", false
	}
	return itoa(total - limit), true
}

func (p *plan) cpuV2(c *specs.LinuxCPU) {
	idle := c.Idle != nil && *c.Idle != 0
	if c.Idle != nil {
		p.one("cpu.idle", "cpu", "cpu.idle", itoa(*c.Idle)).needless = !idle
	}
	if set(c.Shares) && !idle { // an idle group has no weight
		p.one("cpu.shares", "cpu", "cpu.weight", utoa(sharesToWeight(*c.Shares)))
	}
	p.group()
	if set(c.Quota) || set(c.Period) {
		field, value := "cpu.quota", orMax(number(c.Quota))
		if !set(c.Quota) {
			field, value = "cpu.period", "max"
		}
		if set(c.Period) {
			value += " " + utoa(*c.Period)
		}
		p.add(field, "cpu", "cpu.max", value)
	}
	if c.Burst != nil {
		p.add("cpu.burst", "cpu", "cpu.max.burst", utoa(*c.Burst)).needless = *c.Burst == 0
	}
	if set(c.RealtimePeriod) {
		p.refuse("cpu.realtimePeriod", "cgroup v2 has no realtime limits")
	}
	if set(c.RealtimeRuntime) {
		p.refuse("cpu.realtimeRuntime", "cgroup v2 has no realtime limits")
	}
	p.cpuset(c)
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

func (p *plan) blockIOV2(b *specs.LinuxBlockIO) {
	if set(b.Weight) {
		p.weightV2("blockIO.weight", "", *b.Weight)
	}
	if set(b.LeafWeight) {
		p.refuse("blockIO.leafWeight", "cgroup v2 has no such setting")
	}
	for i, w := range b.WeightDevice {
		field := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		if set(w.LeafWeight) {
			p.refuse(field+".leafWeight", "cgroup v2 has no such setting")
		}
		if w.Weight != nil {
			p.weightV2(field+".weight", device(w.LinuxBlockIODevice)+" ", *w.Weight)
		}
	}
	for _, t := range throttles(b) {
		for i, d := range t.devices {
			p.one(fmt.Sprintf("blockIO.%s[%d]", t.field, i), "io", "io.max", device(d.LinuxBlockIODevice)+" "+t.v2Key+"="+utoa(d.Rate))
		}
	}
}

// weightV2 sets a weight of 10..1000 through BFQ, which takes it as it is, or where that is not there through iocost's
// io.weight, which has 1..10000.
func (p *plan) weightV2(field, prefix string, weight uint16) {
	if weight < 10 || weight > 1000 {
		p.invalid(field, utoa(weight)+" is not between 10 and 1000")
		return
	}
	s := p.one(field, "io", "io.bfq.weight", prefix+utoa(weight))
	s.alt = "io.weight"
	s.altValue = prefix + utoa(1+(uint64(weight)-10)*9999/990)
}

// unified adds the control files that the configuration names itself.
func (p *plan) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		field := fmt.Sprintf("unified[%q]", file)
		controller, _, ok := strings.Cut(file, ".")
		if !ok || controller == "" || strings.ContainsAny(file, "/\x00") || len(file) > 255 {
			p.invalid(field, "is not the name of a control file")
			return
		}
		p.one(field, controller, file, files[file])
	}
}
