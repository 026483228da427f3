package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
)

// A container has namespaces of its own where it asks for them, else the host's.
func TestNamespaces(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	kinds := map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		specs.MountNamespace: "mnt", specs.CgroupNamespace: "cgroup", specs.UserNamespace: "user",
	}
	show := "for n in pid net ipc uts mnt cgroup user; do echo $n $(readlink /proc/self/ns/$n); done"
	for _, c := range []struct {
		name   string
		change func(*bundle)
		shared string // with the host
	}{
		{"of the example", func(*bundle) {}, "cgroup user"},
		{"all", func(b *bundle) { b.userNamespace(); b.namespace(specs.CgroupNamespace, "") }, ""},
		{"only the one it needs", func(b *bundle) {
			b.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
			b.Mounts = b.Mounts[:1]
			b.Hostname = ""
		}, "pid net ipc uts cgroup user"},
		{"cgroup", func(b *bundle) { b.namespace(specs.CgroupNamespace, "") }, "user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, show)
			c.change(b)
			out, _ := b.run()
			for _, name := range kinds {
				ours, err := os.Readlink("/proc/self/ns/" + name)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.Contains(" "+c.shared+" ", " "+name+" ")
				if !strings.Contains(out, name+" "+name+":[") {
					t.Errorf("cannot tell the %s namespace: %s", name, out)
				} else if got := strings.Contains(out, ours); got != want {
					t.Errorf("the host's %s namespace: %v, want %v", name, got, want)
				}
			}
		})
	}
}

// Namespaces of another container are joined by their paths.
func TestJoinNamespaces(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	first := newBundle(t, "true")
	first.Hostname = "the-first"
	first.Linux.Sysctl = map[string]string{"net.ipv4.ip_local_port_range": "2000 3001"}
	c := first.create()
	path := func(name string) string { return fmt.Sprintf("/proc/%d/ns/%s", c.PID, name) }

	b := newBundle(t, "hostname; cat /proc/sys/net/ipv4/ip_local_port_range; for n in ipc net uts; do readlink /proc/self/ns/$n; done")
	b.Hostname = ""
	b.namespace(specs.UTSNamespace, path("uts"))
	b.namespace(specs.NetworkNamespace, path("net"))
	b.namespace(specs.IPCNamespace, path("ipc"))
	out, _ := b.run()
	want := []string{"the-first", "2000\t3001"}
	for _, name := range []string{"ipc", "net", "uts"} {
		ns, err := os.Readlink(path(name))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, ns)
	}
	if out != strings.Join(want, "\n") {
		t.Errorf("printed\n%s\nwant\n%s", out, strings.Join(want, "\n"))
	}

	b.namespace(specs.UTSNamespace, path("net"))
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "linux.namespaces[3].path") {
		t.Errorf("a path of another kind of namespace: %v", err)
	}
	b.namespace(specs.UTSNamespace, "/missing/ns")
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "/missing/ns: no such file or directory") {
		t.Errorf("a path to nothing: %v", err)
	}
}

func TestNetworkAndSysctl(t *testing.T) {
	look(t, []view{
		{name: "loopback is up", script: "ifconfig lo | grep -oE 'UP LOOPBACK RUNNING|addr:127.0.0.1'; nc -w 5 127.0.0.1 1", status: 1,
			want: lines("addr:127.0.0.1", "UP LOOPBACK RUNNING", "nc: can't connect to remote host (127.0.0.1): Connection refused")},
		{name: "no other interface is up", script: "ifconfig | grep -c Link", want: "1"},
		{name: "sysctl", script: "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start", want: lines("123", "55"),
			change: func(b *bundle) {
				b.Linux.Sysctl = map[string]string{"kernel.shmmni": "123", "net.ipv4.ip_unprivileged_port_start": "55"}
			}},
		{name: "sysctl with slashes", script: "cat /proc/sys/net/ipv4/conf/lo/forwarding", want: "1",
			change: func(b *bundle) { b.Linux.Sysctl = map[string]string{"net/ipv4/conf/lo/forwarding": "1"} }},
	})
}

// Limits hold where the container's process is, and can be read inside where
// its control groups are mounted, with and without a namespace for them.
func TestLimits(t *testing.T) {
	m := machine(t)
	testenv.Leaks(t)
	files := map[string]string{"memory/memory.limit_in_bytes": "67108864", "pids/pids.max": "33", "cpu/cpu.cfs_quota_us": "50000",
		"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.shares": "512"}
	if m.CgroupMode == host.CgroupV2 {
		files = map[string]string{"memory.max": "67108864", "pids.max": "33", "cpu.max": "50000 100000"}
	}
	for _, namespace := range []bool{false, true} {
		t.Run(fmt.Sprintf("namespace %v", namespace), func(t *testing.T) {
			b := newBundle(t, `cd /sys/fs/cgroup; for f in $(cat /files); do echo $f $(cat $f); done; cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo | cut -d' ' -f4-6; read wait`)
			b.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr[int64](64 << 20)}
			b.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr[int64](33)}
			b.Linux.Resources.CPU = &specs.LinuxCPU{Quota: ptr[int64](50000), Period: ptr[uint64](100000), Shares: ptr[uint64](512)}
			var list string
			for name := range files {
				list += name + "\n"
			}
			b.write("rootfs/files", list, 0o644)
			if namespace {
				b.namespace(specs.CgroupNamespace, "")
			}
			out := b.untilInput(func(c map[string]string) {
				for name, want := range files {
					controller, _, _ := strings.Cut(name, "/")
					if m.CgroupMode == host.CgroupV2 {
						controller = ""
					}
					data, err := os.ReadFile(filepath.Join(c[controller], filepath.Base(name)))
					if err != nil || strings.TrimSpace(string(data)) != want {
						t.Errorf("%s outside: %q, %v; want %s", name, data, err, want)
					}
				}
			})
			for name, want := range files {
				if !strings.Contains(out, name+" "+want+"\n") {
					t.Errorf("inside, no %q in\n%s", name+" "+want, out)
				}
			}
			// With a namespace the container does not learn its group's name, neither from /proc nor from its mounts.
			if told := strings.Contains(out, b.id); told == namespace {
				t.Errorf("the group's name is told: %v\n%s", told, out)
			}
			if !strings.Contains(out, " /sys/fs/cgroup") || strings.Contains(out, " rw") {
				t.Errorf("control groups are mounted, read-only:\n%s", out)
			}
		})
	}
}

// untilInput runs the container, whose script ends with "read wait". Meanwhile
// it calls f with the paths of its control groups.
func (b *bundle) untilInput(f func(cgroups map[string]string)) (out string) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer w.Close()
	b.stdin = r
	b.save()
	o, text := output(b.t)
	p, err := b.store.Run(b.t.Context(), b.options(o))
	o.Close()
	r.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := b.store.Load(b.id)
	if err != nil {
		b.t.Error(err)
	} else {
		f(c.Cgroups)
	}
	w.Close()
	if _, err := p.Wait(); err != nil {
		b.t.Error(err)
	}
	if err := p.Close(b.t.Context()); err != nil {
		b.t.Error(err)
	}
	return text()
}
