package cgroup

import (
	"maps"
	"strings"
	"testing"

	"github.com/tare-oci/tare/runtime/host"
)

func hybridFacts() host.Facts {
	return host.Facts{
		CgroupMode: host.CgroupHybrid,
		Hierarchies: []host.Hierarchy{
			{Controllers: []string{"cpu", "cpuacct"}, Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", MountRoot: "/", OwnPath: "/"},
			{Controllers: []string{"memory"}, Mountpoint: "/sys/fs/cgroup/memory", MountRoot: "/docker/x", OwnPath: "/docker/x/own"},
			{Name: "systemd", Mountpoint: "/sys/fs/cgroup/systemd", MountRoot: "/docker/x", OwnPath: "/other"},
		},
		Unified: &host.Hierarchy{Mountpoint: "/sys/fs/cgroup/unified", MountRoot: "/", OwnPath: "/user"},
	}
}

func v2Facts() host.Facts {
	return host.Facts{
		CgroupMode: host.CgroupV2,
		Unified:    &host.Hierarchy{Mountpoint: "/sys/fs/cgroup", MountRoot: "/", OwnPath: "/system.slice/ssh.service"},
	}
}

func TestPaths(t *testing.T) {
	hybrid := func(cpu, memory, systemd, unified string) map[string]string {
		return map[string]string{
			"cpu": "/sys/fs/cgroup/cpu,cpuacct" + cpu, "cpuacct": "/sys/fs/cgroup/cpu,cpuacct" + cpu,
			"memory": "/sys/fs/cgroup/memory" + memory, "name=systemd": "/sys/fs/cgroup/systemd" + systemd,
			"": "/sys/fs/cgroup/unified" + unified,
		}
	}
	for _, c := range []struct {
		facts       host.Facts
		cgroupsPath string
		want        map[string]string
	}{
		{hybridFacts(), "/a//b/.", hybrid("/a/b", "/a/b", "/a/b", "/a/b")},
		{hybridFacts(), "", hybrid("/ID", "/own/ID", "/ID", "/user/ID")},
		{hybridFacts(), "a/b", hybrid("/a/b", "/own/a/b", "/a/b", "/user/a/b")},
		{hybridFacts(), "test.slice:cri:ID", hybrid("/test.slice:cri:ID", "/own/test.slice:cri:ID", "/test.slice:cri:ID", "/user/test.slice:cri:ID")},
		{v2Facts(), "/a", map[string]string{"": "/sys/fs/cgroup/a"}},
		{v2Facts(), "", map[string]string{"": "/sys/fs/cgroup/system.slice/ID"}},
	} {
		m, err := New(c.facts, Options{Path: c.cgroupsPath, ID: "ID"})
		if err != nil {
			t.Errorf("%q: %v", c.cgroupsPath, err)
			continue
		}
		if got := m.Paths(); !maps.Equal(got, c.want) {
			t.Errorf("%q on %s:\ngot  %v\nwant %v", c.cgroupsPath, c.facts.CgroupMode, got, c.want)
		}
		loaded, err := Load(c.facts, m.Paths(), "")
		if err != nil || !maps.Equal(loaded.Paths(), c.want) {
			t.Errorf("Load: got %v, %v", loaded, err)
		}
	}
}

func TestPathsRefused(t *testing.T) {
	for _, p := range []string{"..", "/../x", "a/../../b", "/", "//", ".", "/./", "a\x00", "a\nb", strings.Repeat("x", 3000)} {
		if _, err := New(hybridFacts(), Options{Path: p, ID: "ID"}); err == nil || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("%.20q: got %v", p, err)
		}
	}
	for _, p := range []map[string]string{{"": "/etc"}, {"": "/sys/fs/cgroup"}, {"": "/sys/fs/cgroup/../../etc"}, {"": "/sys/fs/cgroupx/a"}, {"": "a"}} {
		if _, err := Load(v2Facts(), p, ""); err == nil {
			t.Errorf("Load took %v", p)
		}
	}
	if _, err := Load(hybridFacts(), map[string]string{"memory": "/sys/fs/cgroup/cpu,cpuacct/a"}, ""); err == nil {
		t.Error("Load took a path in another hierarchy")
	}
}

// FuzzPaths: whatever cgroupsPath is, the cgroups are below their hierarchies' mount points, and Load takes what Paths saved.
func FuzzPaths(f *testing.F) {
	for _, p := range []string{"", "/a", "a/./b", "..", "/../x", "a:b:c", "...", "/a/..b"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		for _, facts := range []host.Facts{hybridFacts(), v2Facts()} {
			m, err := New(facts, Options{Path: p, ID: "ID"})
			if err != nil {
				continue
			}
			loaded, err := Load(facts, m.Paths(), "")
			if err != nil || !maps.Equal(loaded.Paths(), m.Paths()) {
				t.Errorf("%q: %v: %v", p, m.Paths(), err)
			}
		}
	})
}
