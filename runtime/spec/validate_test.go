package spec

import (
	"errors"
	"strings"
	"testing"
)

func TestRealConfigsAreValid(t *testing.T) {
	for name, data := range testdata(t, "*.json") {
		s, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := Validate(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, data := range testdata(t, "process/*.json") {
		p, err := DecodeProcess(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := ValidateProcess(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, rootless := range []bool{false, true} {
		if err := Validate(Example(rootless)); err != nil {
			t.Errorf("Example(%v): %v", rootless, err)
		}
	}
}

// TestValidate adds one thing to a minimal config; want is the problem, "" for none.
func TestValidate(t *testing.T) {
	proc := func(more string) string { return `"process":{"cwd":"/","args":["a"],` + more + `}` }
	linux := func(more string) string { return `"linux":{` + more + `}` }
	withNS := func(ns, more string) string {
		return `"linux":{"namespaces":[{"type":"` + ns + `"}],` + more + `}`
	}
	for _, c := range []struct{ in, want string }{
		{``, ``},
		{`"ociVersion":""`, `ociVersion: missing`},
		{`"ociVersion":"1.0"`, `ociVersion: "1.0" is not a semantic version`},
		{`"ociVersion":"1.0.2-dev"`, ``},
		{`"ociVersion":"1.99.0-rc.1+build"`, ``},
		{`"ociVersion":"01.0.0"`, `ociVersion: "01.0.0" is not a semantic version`},
		{`"ociVersion":"1.0.0-"`, `ociVersion: "1.0.0-" is not a semantic version`},
		{`"ociVersion":"2.0.0"`, `ociVersion: version 2.0.0 is not supported: want 1.x`},
		{`"root":null`, `root: missing`},
		{`"root":{"path":""}`, `root.path: empty`},
		{`"process":{"args":["a"],"cwd":"tmp"}`, `process.cwd: "tmp" is not an absolute path`},
		{`"process":{"cwd":"/"}`, `process.args: empty`},
		{proc(`"env":["A=1","B"]`), `process.env[1]: "B" is not of the form NAME=value`},
		{proc(`"env":["A="]`), ``},
		{proc(`"args":["a","b\u0000"]`), `process.args[1]: has a NUL character`},
		{proc(`"user":{"umask":512}`), `process.user.umask: 512 (01000) is more than 511 (0777)`},
		{proc(`"oomScoreAdj":1001`), `process.oomScoreAdj: 1001 is not between -1000 and 1000`},
		{proc(`"terminal":true,"consoleSize":{"height":70000,"width":1}`), `process.consoleSize: larger than 65535`},
		{proc(`"consoleSize":{"height":70000,"width":1}`), ``},
		{proc(`"user":{"uid":4294967295}`), `process.user.uid: 4294967295 is no id`},
		{proc(`"user":{"gid":4294967295}`), `process.user.gid: 4294967295 is no id`},
		{proc(`"user":{"additionalGids":[0,4294967295]}`), `process.user.additionalGids[1]: 4294967295 is no id`},
		{proc(`"user":{"additionalGids":[` + strings.Repeat("1,", 65536) + `1]}`), `process.user.additionalGids: more than 65536`},
		{proc(`"rlimits":[{"type":"RLIMIT_X"}]`), `process.rlimits[0].type: unknown value "RLIMIT_X"`},
		{proc(`"rlimits":[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}]`), `process.rlimits[1].type: RLIMIT_CPU is there twice`},
		{proc(`"rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}]`), `process.rlimits[0].soft: 2 is above the hard limit 1`},
		{proc(`"capabilities":{"bounding":["CAP_NOBODY_KNOWS"]}`), ``},
		{proc(`"scheduler":{"policy":"SCHED_X"}`), `process.scheduler.policy: unknown value "SCHED_X"`},
		{proc(`"scheduler":{"policy":"SCHED_OTHER","flags":["X"]}`), `process.scheduler.flags[0]: unknown value "X"`},
		{proc(`"scheduler":{"policy":"SCHED_OTHER","priority":1}`), `process.scheduler.priority: only SCHED_FIFO and SCHED_RR have one`},
		{proc(`"scheduler":{"policy":"SCHED_OTHER","runtime":1}`), `process.scheduler: only SCHED_DEADLINE has a runtime, deadline or period`},
		{proc(`"scheduler":{"policy":"SCHED_RR","priority":100}`), `process.scheduler.priority: 100 is not between 0 and 99`},
		{proc(`"commandLine":"cmd.exe"`), `process.commandLine: is for Windows, and this runtime makes Linux containers`},
		{proc(`"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}`), `process.ioPriority.priority: 8 is not between 0 and 7`},
		{proc(`"execCPUAffinity":{"initial":"0-"}`), `process.execCPUAffinity.initial: "0-" is not a list such as 0-3,7`},
		{`"mounts":[{"destination":"relative"}]`, ``},
		{`"mounts":[{},{"destination":"/a"}]`, `mounts[0].destination: missing`},
		{`"mounts":[{"destination":"/a","options":["b","c\u0000"]}]`, `mounts[0].options[1]: has a NUL character`},
		{`"mounts":[{"destination":"/a","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}]`, `mounts[0]: uidMappings and gidMappings go together`},
		{`"hooks":{"poststop":[{"path":"a"}]}`, `hooks.poststop[0].path: "a" is not an absolute path`},
		{`"hooks":{"prestart":[{"path":"/a","timeout":0}]}`, `hooks.prestart[0].timeout: 0 is not greater than zero`},
		{`"annotations":{"":"x"}`, `annotations: a key is empty`},
		{`"hostname":"a"`, `hostname: needs a uts namespace in linux.namespaces`},
		{`"hostname":"a",` + withNS("uts", `"sysctl":{}`), ``},
		{`"hostname":"` + strings.Repeat("a", 65) + `",` + withNS("uts", `"sysctl":{}`), `hostname: longer than 64 characters`},
		{`"domainname":"a"`, `domainname: needs a uts namespace in linux.namespaces`},
		{linux(`"namespaces":[{"type":"x"}]`), `linux.namespaces[0].type: unknown value "x"`},
		{linux(`"namespaces":[{"type":"pid"},{"type":"pid"}]`), `linux.namespaces[1].type: pid is there twice`},
		{linux(`"namespaces":[{"type":"pid","path":"a"}]`), `linux.namespaces[0].path: "a" is not an absolute path`},
		{linux(`"uidMappings":[{"containerID":0,"hostID":0,"size":1}]`), `linux.uidMappings: needs a user namespace in linux.namespaces`},
		{withNS("user", `"gidMappings":[{"containerID":0,"hostID":0,"size":1}]`), `linux.uidMappings: missing: a new user namespace needs mappings`},
		{`"mounts":[{"destination":"/a","uidMappings":[{"containerID":0,"hostID":0,"size":0}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}]`, `mounts[0].uidMappings[0].size: zero`},
		{`"mounts":[{"destination":"/a","uidMappings":[{"containerID":0,"hostID":0,"size":5},{"containerID":9,"hostID":4,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}]`, `mounts[0].uidMappings: host id 4 is mapped twice`},
		{`"mounts":[{"destination":"/a","uidMappings":[{"containerID":4294967295,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}]`, `mounts[0].uidMappings[0]: reaches beyond the last id, 4294967294`},
		{linux(`"timeOffsets":{"monotonic":{}}`), `linux.timeOffsets: needs a time namespace in linux.namespaces`},
		{withNS("time", `"timeOffsets":{"realtime":{}}`), `linux.timeOffsets["realtime"]: unknown value "realtime"`},
		{withNS("time", `"timeOffsets":{"boottime":{"nanosecs":1000000000}}`), `linux.timeOffsets["boottime"].nanosecs: 1000000000 is a second or more`},
		{linux(`"devices":[{"path":"/a","type":"x"}]`), `linux.devices[0].type: unknown value "x"`},
		{linux(`"devices":[{"path":"/a","type":"p","uid":4294967295}]`), `linux.devices[0].uid: 4294967295 is no id`},
		{linux(`"devices":[{"path":"a","type":"p"}]`), `linux.devices[0].path: "a" is not an absolute path`},
		{linux(`"devices":[{"path":"/a","type":"c","major":-1}]`), `linux.devices[0].major: -1 is not a device number`},
		{linux(`"netDevices":{"eth0":{}}`), `linux.netDevices: needs a network namespace in linux.namespaces`},
		{withNS("network", `"netDevices":{"eth0":{"name":"a/b"}}`), `linux.netDevices["eth0"].name: "a/b" is not the name of a network interface`},
		{linux(`"sysctl":{"kernel.core_pattern":"x"}`), `linux.sysctl["kernel.core_pattern"]: belongs to no namespace, so it is the host's`},
		{linux(`"sysctl":{"net.ipv4.ip_forward":"1"}`), `linux.sysctl["net.ipv4.ip_forward"]: needs a network namespace in linux.namespaces`},
		{withNS("network", `"sysctl":{"net.ipv4.ip_forward":"1"}`), ``},
		{withNS("network", `"sysctl":{"net/../kernel/core_pattern":"1"}`), `linux.sysctl["net/../kernel/core_pattern"]: not the name of a kernel parameter`},
		{withNS("network", `"sysctl":{"net.//.kernel.core_pattern":"1"}`), `linux.sysctl["net.//.kernel.core_pattern"]: not the name of a kernel parameter`},
		{withNS("ipc", `"sysctl":{"kernel.shmmax":"1","fs.mqueue.msg_max":"5"}`), ``},
		{withNS("ipc", `"sysctl":{"fs.file-max":"5"}`), `linux.sysctl["fs.file-max"]: belongs to no namespace, so it is the host's`},
		{withNS("uts", `"sysctl":{"kernel.domainname":"d"}`), ``},
		{withNS("uts", `"sysctl":{"kernel.hostname":"d"}`), `linux.sysctl["kernel.hostname"]: is what hostname is for`},
		{linux(`"cgroupsPath":"/a/../../b"`), `linux.cgroupsPath: has ".."`},
		{linux(`"cgroupsPath":"/a..b/c"`), ``},
		{linux(`"resources":{"devices":[{"allow":true,"type":"p"}]}`), `linux.resources.devices[0].type: unknown value "p"`},
		{linux(`"resources":{"devices":[{"allow":true,"access":"rx"}]}`), `linux.resources.devices[0].access: "rx" is not made of r, w and m`},
		{linux(`"resources":{"cpu":{"cpus":"0,a"}}`), `linux.resources.cpu.cpus: "0,a" is not a list such as 0-3,7`},
		{linux(`"resources":{"cpu":{"quota":5,"burst":6}}`), `linux.resources.cpu.burst: 6 is larger than quota 5`},
		{linux(`"resources":{"blockIO":{"weightDevice":[{"major":1,"minor":1}]}}`), `linux.resources.blockIO.weightDevice[0]: has neither weight nor leafWeight`},
		{linux(`"resources":{"rdma":{"a":{}}}`), `linux.resources.rdma["a"]: has neither hcaHandles nor hcaObjects`},
		{linux(`"seccomp":{"defaultAction":"X"}`), `linux.seccomp.defaultAction: unknown value "X"`},
		{linux(`"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`), `linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW returns no error number`},
		{linux(`"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"a"}`), `linux.seccomp.listenerMetadata: needs listenerPath`},
		{linux(`"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`), `linux.seccomp.syscalls[0].names: empty`},
		{linux(`"maskedPaths":["/a","b"]`), `linux.maskedPaths[1]: "b" is not an absolute path`},
		{linux(`"readonlyPaths":["b"]`), `linux.readonlyPaths[0]: "b" is not an absolute path`},
		{linux(`"rootfsPropagation":"rslave"`), ``},
		{linux(`"rootfsPropagation":"x"`), `linux.rootfsPropagation: unknown value "x"`},
		{linux(`"personality":{"domain":"LINUX32","flags":["a"]}`), `linux.personality.flags: no flag is defined`},
		{linux(`"intelRdt":{"closID":"../a"}`), `linux.intelRdt.closID: "../a" is not a name`},
		{linux(`"intelRdt":{"closID":"/","memBwSchema":"L3:0=1"}`), `linux.intelRdt.memBwSchema: is not one line that begins with MB:`},
		{linux(`"intelRdt":{"schemata":["a\nb"]}`), `linux.intelRdt.schemata[0]: has a newline`},
		{linux(`"memoryPolicy":{"mode":"MPOL_X","nodes":""}`), `linux.memoryPolicy.mode: unknown value "MPOL_X"`},
		{linux(`"memoryPolicy":{"mode":"MPOL_LOCAL","nodes":"0"}`), `linux.memoryPolicy.nodes: MPOL_LOCAL has none`},
		{linux(`"memoryPolicy":{"mode":"MPOL_BIND","nodes":""}`), `linux.memoryPolicy.nodes: empty: MPOL_BIND needs at least one`},
		{linux(`"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0-1024"}`), `linux.memoryPolicy.nodes: 1024 is larger than 1023`},
		{linux(`"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0","flags":["X"]}`), `linux.memoryPolicy.flags[0]: unknown value "X"`},
		{linux(`"personality":{"domain":"BSD"}`), `linux.personality.domain: unknown value "BSD"`},
		{linux(`"sysctl":{"user.max_net_namespaces":"1"}`), `linux.sysctl["user.max_net_namespaces"]: needs a user namespace in linux.namespaces`},
		{`"vm":{"kernel":{"path":"/k"}}`, `vm: is for virtual machines, and this runtime makes Linux containers`},
		{`"windows":{"layerFolders":["a"]}`, `windows: is for Windows, and this runtime makes Linux containers`},
		{`"solaris":{}`, `solaris: is for Solaris, and this runtime makes Linux containers`},
		{`"zos":{}`, `zos: is for z/OS, and this runtime makes Linux containers`},
		{`"freebsd":{}`, `freebsd: is for FreeBSD, and this runtime makes Linux containers`},
	} {
		// A key of the minimal config that comes again replaces it, or adds to it.
		in := `{"ociVersion":"1.3.0","root":{"path":"rootfs"},` + c.in + `}`
		s, err := Decode([]byte(strings.Replace(in, ",}", "}", 1)))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got := ""
		if err := Validate(s); err != nil {
			got = strings.TrimPrefix(err.Error(), "config.json: ")
			var e *Error
			if !errors.As(err, &e) || e.Path == "" {
				t.Errorf("%s: %v is no *Error with a path", c.in, err)
			}
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestValidateTellsAllProblems(t *testing.T) {
	s, err := Decode([]byte(`{"process":{"cwd":""},"linux":{"maskedPaths":[` + strings.Repeat(`"a",`, 50) + `"b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(Validate(s).Error(), "\n")
	if len(lines) != maxProblems || lines[0] != "config.json: ociVersion: missing" || lines[1] != "config.json: root: missing" {
		t.Errorf("%d problems: %q", len(lines), lines)
	}
}

// FuzzValidate: no document that decodes makes Validate panic.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.3.0","linux":{"sysctl":{"net.a/b":"1"},"uidMappings":[{"size":4294967295}]},"process":{"cwd":"/"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := Decode(data); err == nil {
			_ = Validate(s)
		}
	})
}

func BenchmarkValidateDocker(b *testing.B) {
	s, err := Decode(testdata(b, "docker.json")["testdata/docker.json"])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate(s); err != nil {
			b.Fatal(err)
		}
	}
}
