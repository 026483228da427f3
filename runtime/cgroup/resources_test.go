package cgroup

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestPlans shows what is written for each field: "(" and ")" hold settings of one group, "file|alternative=value" what
// is written where file does not exist, and "?" that it may be missing.
func TestPlans(t *testing.T) {
	for _, c := range []struct{ in, v1, v2 string }{
		{`{"memory":{"limit":100}}`, "memory.limit_in_bytes=100", "memory.max=100"},
		{`{"memory":{"limit":-1}}`, "(memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1?)", "(memory.max=max memory.swap.max=max?)"},
		{`{"memory":{"limit":100,"swap":150}}`, "(memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=150)", "(memory.max=100 memory.swap.max=50)"},
		{`{"memory":{"limit":100,"swap":100}}`, "(memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=100)", "(memory.max=100 memory.swap.max=0?)"},
		{`{"memory":{"limit":100,"swap":-1}}`, "(memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=-1)", "(memory.max=100 memory.swap.max=max?)"},
		{`{"memory":{"limit":100,"swap":90}}`, "(memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=90)", "linux.resources.memory.swap: 90 is below memory.limit 100"},
		{`{"memory":{"swap":90}}`, "memory.memsw.limit_in_bytes=90", "linux.resources.memory.swap: limits memory and swap together, so it needs memory.limit"},
		{`{"memory":{"limit":0,"swap":0,"reservation":0}}`, "", ""},
		{`{"memory":{"reservation":7,"kernel":5,"disableOOMKiller":false}}`, "memory.soft_limit_in_bytes=7", "memory.low=7"},
		{`{"memory":{"reservation":-1}}`, "memory.soft_limit_in_bytes=-1", "memory.low=max"},
		{`{"memory":{"swappiness":0}}`, "memory.swappiness=0", "linux.resources.memory.swappiness: cgroup v2 has no such setting: not supported here"},
		{`{"memory":{"swappiness":101}}`, "linux.resources.memory.swappiness: 101 is not between 0 and 100", "linux.resources.memory.swappiness: 101 is not between 0 and 100"},
		{`{"memory":{"disableOOMKiller":true}}`, "memory.oom_control=1", "linux.resources.memory.disableOOMKiller: cgroup v2 has no such setting: not supported here"},
		{`{"memory":{"kernelTCP":9}}`, "memory.kmem.tcp.limit_in_bytes=9", "linux.resources.memory.kernelTCP: cgroup v2 has no such setting: not supported here"},
		{`{"memory":{"useHierarchy":true}}`, "", ""},
		{`{"cpu":{"shares":1024}}`, "cpu.shares=1024", "cpu.weight=100"},
		{`{"cpu":{"shares":0,"quota":0,"period":0}}`, "", ""},
		{`{"cpu":{"quota":50000,"period":100000,"burst":10}}`, "(cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.cfs_burst_us=10)", "(cpu.max=50000 100000 cpu.max.burst=10)"},
		{`{"cpu":{"quota":-1}}`, "cpu.cfs_quota_us=-1", "cpu.max=max"},
		{`{"cpu":{"period":20000}}`, "cpu.cfs_period_us=20000", "cpu.max=max 20000"},
		{`{"cpu":{"idle":1,"shares":512}}`, "cpu.idle=1", "cpu.idle=1"},
		{`{"cpu":{"idle":0,"shares":512}}`, "cpu.idle=0? cpu.shares=512", "cpu.idle=0? cpu.weight=59"},
		{`{"cpu":{"cpus":"0-1","mems":"0"}}`, "cpuset.cpus=0-1 cpuset.mems=0", "cpuset.cpus=0-1 cpuset.mems=0"},
		{`{"cpu":{"realtimeRuntime":5,"realtimePeriod":10}}`, "(cpu.rt_period_us=10 cpu.rt_runtime_us=5)", "linux.resources.cpu.realtimePeriod: cgroup v2 has no such setting: not supported here"},
		{`{"pids":{"limit":10}}`, "pids.max=10", "pids.max=10"},
		{`{"pids":{"limit":0}}`, "pids.max=1", "pids.max=1"},
		{`{"pids":{"limit":-1}}`, "pids.max=max", "pids.max=max"},
		{`{"pids":{}}`, "", ""},
		{`{"blockIO":{"weight":0}}`, "", ""},
		{`{"blockIO":{"weight":500}}`, "blkio.weight|blkio.bfq.weight=500", "io.bfq.weight=500|io.weight=4950"},
		{`{"blockIO":{"weight":5}}`, "linux.resources.blockIO.weight: 5 is not between 10 and 1000", "linux.resources.blockIO.weight: 5 is not between 10 and 1000"},
		{`{"blockIO":{"leafWeight":10}}`, "linux.resources.blockIO.leafWeight: cgroup v1 has no such setting: not supported here", "linux.resources.blockIO.leafWeight: cgroup v2 has no such setting: not supported here"},
		{`{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":10}]}}`, "blkio.weight_device|blkio.bfq.weight_device=8:16 10", "io.bfq.weight=8:16 10|io.weight=8:16 1"},
		{`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":3}]}}`,
			"blkio.throttle.read_bps_device=8:0 600 blkio.throttle.write_iops_device=8:1 3", "io.max=8:0 rbps=600 io.max=8:1 wiops=3"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`,
			"hugetlb.2MB.limit_in_bytes=4194304 hugetlb.2MB.rsvd.limit_in_bytes=4194304?", "hugetlb.2MB.max=4194304 hugetlb.2MB.rsvd.max=4194304?"},
		{`{"hugepageLimits":[{"pageSize":"../x","limit":1}]}`,
			`linux.resources.hugepageLimits[0].pageSize: "../x" is not a size such as 2MB`, `linux.resources.hugepageLimits[0].pageSize: "../x" is not a size such as 2MB`},
		{`{"network":{"classID":5,"priorities":[{"name":"lo","priority":2}]}}`, "net_cls.classid=5 net_prio.ifpriomap=lo 2", "linux.resources.network.classID: cgroup v2 has no such setting: not supported here"},
		{`{"rdma":{"b":{"hcaObjects":2},"a":{"hcaHandles":1,"hcaObjects":3}}}`, "rdma.max=a hca_handle=1 hca_object=3 rdma.max=b hca_object=2", "rdma.max=a hca_handle=1 hca_object=3 rdma.max=b hca_object=2"},
		{`{"unified":{"memory.high":"5","io.max":"8:0 rbps=1"}}`, "linux.resources.unified: needs cgroup v2: not supported here", "io.max=8:0 rbps=1 memory.high=5"},
		{`{"unified":{"../x.y":"5"}}`, "linux.resources.unified: needs cgroup v2: not supported here", `linux.resources.unified["../x.y"]: is not the name of a control file`},
	} {
		var r specs.LinuxResources
		if err := json.Unmarshal([]byte(c.in), &r); err != nil {
			t.Fatal(err)
		}
		if got := show(planFor(&r, onV1)); got != c.v1 {
			t.Errorf("v1 %s:\ngot  %s\nwant %s", c.in, got, c.v1)
		}
		if got := show(planFor(&r, onV2)); got != c.v2 {
			t.Errorf("v2 %s:\ngot  %s\nwant %s", c.in, got, c.v2)
		}
	}
}

func show(p *plan) string {
	if p.err != nil {
		return strings.TrimPrefix(p.err.Error(), "config.json: ")
	}
	var groups []string
	for _, g := range p.groups {
		var items []string
		for _, s := range g {
			item := s.file
			if s.alt != "" && s.altValue == "" {
				item += "|" + s.alt
			}
			if item += "=" + s.value; s.altValue != "" {
				item += "|" + s.alt + "=" + s.altValue
			}
			if s.needless {
				item += "?"
			}
			items = append(items, item)
		}
		switch len(items) {
		case 0:
		case 1:
			groups = append(groups, items[0])
		default:
			groups = append(groups, "("+strings.Join(items, " ")+")")
		}
	}
	return strings.Join(groups, " ")
}

func TestSharesToWeight(t *testing.T) {
	last := uint64(0)
	for shares := uint64(0); shares < 300000; shares++ {
		w := sharesToWeight(shares)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares: weight %d after %d", shares, w, last)
		}
		last = w
	}
	for shares, want := range map[uint64]uint64{2: 1, 1024: 100, 2000: 170, 22000: 1204, 262144: 10000} { // as published for runc 1.3.2
		if got := sharesToWeight(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
}

func TestPageSize(t *testing.T) {
	good := []string{"2MB", "1GB", "64KB", "16GB"}
	for _, s := range []string{"2MB", "1GB", "64KB", "16GB", "", "MB", "2M", "2mb", "2MiB", "2.5MB", "-2MB", "2BB", "2MKB", "/2MB", "2MB\n"} {
		if validPageSize(s) != slices.Contains(good, s) {
			t.Errorf("%q: %v", s, validPageSize(s))
		}
	}
}
