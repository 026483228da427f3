package cgroup

import "strings"

// controls says which control file takes a field of linux.resources in either version; "" where a version has no such setting. "new|old" are
// names on different kernels, "%" stands for a page size. A file's name begins with that of its controller.
var controls = [...]struct{ field, v1, v2 string }{
	{"memory.limit", "memory.limit_in_bytes", "memory.max"},
	{"memory.swap", "memory.memsw.limit_in_bytes", "memory.swap.max"},
	{"memory.reservation", "memory.soft_limit_in_bytes", "memory.low"},
	{"memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", ""},
	{"memory.swappiness", "memory.swappiness", ""},
	{"memory.disableOOMKiller", "memory.oom_control", ""},
	{"cpu.idle", "cpu.idle", "cpu.idle"},
	{"cpu.shares", "cpu.shares", "cpu.weight"},
	{"cpu.quota", "cpu.cfs_quota_us", "cpu.max"},
	{"cpu.period", "cpu.cfs_period_us", "cpu.max"},
	{"cpu.burst", "cpu.cfs_burst_us", "cpu.max.burst"},
	{"cpu.realtimePeriod", "cpu.rt_period_us", ""},
	{"cpu.realtimeRuntime", "cpu.rt_runtime_us", ""},
	{"cpu.cpus", "cpuset.cpus", "cpuset.cpus"},
	{"cpu.mems", "cpuset.mems", "cpuset.mems"},
	{"pids.limit", "pids.max", "pids.max"},
	{"blockIO.weight", "blkio.weight|blkio.bfq.weight", "io.bfq.weight|io.weight"},
	{"blockIO.leafWeight", "", ""}, // Linux 5.0 removed it with the CFQ scheduler
	{"blockIO.weightDevice.weight", "blkio.weight_device|blkio.bfq.weight_device", "io.bfq.weight|io.weight"},
	{"blockIO.weightDevice.leafWeight", "", ""},
	{"blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "io.max"},
	{"blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "io.max"},
	{"blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "io.max"},
	{"blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "io.max"},
	{"hugepageLimits", "hugetlb.%.limit_in_bytes", "hugetlb.%.max"},
	{"hugepageLimits.reserved", "hugetlb.%.rsvd.limit_in_bytes", "hugetlb.%.rsvd.max"},
	{"network.classID", "net_cls.classid", ""},
	{"network.priorities", "net_prio.ifpriomap", ""},
	{"rdma", "rdma.max", "rdma.max"},
	{"unified", "", "cgroup."}, // any file, which the configuration names
}

// controlFiles returns a field's files.
func controlFiles(field string) (v1, v2 string) {
	for i := range controls {
		if controls[i].field == field {
			return controls[i].v1, controls[i].v2
		}
	}
	return "", ""
}

// Sets reports whether a field of linux.resources takes effect in either version.
func Sets(field string) bool {
	v1, v2 := controlFiles(field)
	return v1 != "" || v2 != ""
}

// controllerOf returns the controller that a control file belongs to.
func controllerOf(file string) string {
	name, _, _ := strings.Cut(file, ".")
	return name
}
