package lifecycle_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// kinds are the names of all namespaces in /proc/PID/ns.
var kinds = map[specs.LinuxNamespaceType]string{
	specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
	specs.MountNamespace: "mnt", specs.CgroupNamespace: "cgroup", specs.UserNamespace: "user", specs.TimeNamespace: "time",
}

// A container has each namespace as its configuration says: new, joined, or
// the host's, in any mixture.
func TestNamespaces(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	owner, others := startHolder(t, true), startHolder(t, false)
	for _, c := range []struct{ fresh, joined string }{
		{"mnt pid net ipc uts", ""}, // those of the example
		{"mnt pid net ipc uts cgroup user time", ""},
		{"mnt", ""},
		{"mnt pid net ipc uts cgroup", ""},
		{"mnt time", ""},
		{"mnt pid time", ""},
		{"mnt user", ""},
		{"mnt pid user", ""},
		{"mnt net user", ""},
		{"mnt uts time user", ""},
		{"mnt", "pid"},
		{"mnt net ipc uts cgroup time", "pid"},
		{"mnt pid", "net ipc uts cgroup time"},
		{"mnt", "pid net ipc uts cgroup time"},
		{"mnt user", "pid net ipc uts cgroup time"},
		{"mnt pid user time", "net"},
		{"mnt pid net ipc uts cgroup time", "user"},
		{"mnt", "user"},
		{"mnt pid", "user net ipc uts"},
		{"mnt", "user pid net ipc uts cgroup time"},
		{"pid", "mnt"},
		{"pid net ipc", "mnt user"},
		{"", "mnt pid net ipc uts cgroup user time"},
	} {
		for name, holder := range map[string]holder{"": owner, " of the host": {t: t, pid: owner.pid, others: &others}} {
			if name != "" && (c.joined == "" || has(c.joined, "mnt") && has(c.joined, "user")) {
				continue // nobody in a user namespace may mount in the host's mount namespaces
			}
			t.Run(fmt.Sprintf("new %s, joined %s%s", c.fresh, c.joined, name), func(t *testing.T) {
				if has(c.joined, "mnt") {
					// A container takes over a mount namespace that it joins, root and all, as with runc.
					holder = startHolder(t, name == "")
				}
				b := newBundle(t, "exec sleep 1000")
				b.mixture(c.fresh, c.joined, holder)
				var container *lifecycle.Container
				t.Cleanup(func() {
					// Later than its deletion. A joined pid namespace cannot end before.
					if container != nil {
						_, _ = syscall.Wait4(container.PID, nil, 0, nil) // it has been killed
					}
				})
				container = b.create()
				for _, name := range kinds {
					want := "the host's"
					switch {
					case has(c.fresh, name):
						want = "new"
					case has(c.joined, name):
						want = "joined"
					}
					if is := holder.whose(container.PID, name); is != want {
						t.Errorf("the %s namespace is %s, want %s", name, is, want)
					}
				}
				b.wantExecInSame(container.PID)
				if err := b.store.Start(t.Context(), b.id); err != nil {
					t.Fatal(err)
				}
				b.execsInto(container)
			})
		}
	}
}

// execsInto runs a further process, which has all namespaces of the container's own.
func (b *bundle) execsInto(container *lifecycle.Container) {
	b.t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer null.Close()
	p, err := b.store.Exec(b.t.Context(), b.execOptions(null, nil, "exec sleep 1000"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, name := range kinds {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", container.PID, name))
		if err != nil {
			b.t.Fatal(err)
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.PID, name)); got != own {
			b.t.Errorf("a further process's %s namespace is %s, %v, want %s", name, got, err, own)
		}
	}
	if err := p.Close(b.t.Context()); err != nil {
		b.t.Error(err)
	}
}

// whose says whose namespace a process is in.
func (h holder) whose(pid int, name string) string {
	h.t.Helper()
	var links []string
	for _, p := range []int{pid, os.Getpid()} {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p, name))
		if err != nil {
			h.t.Fatal(err)
		}
		links = append(links, l)
	}
	switch links[0] {
	case links[1]:
		return "the host's"
	case h.link(name):
		return "joined"
	}
	return "new"
}

// A container without a mount namespace is in the host's, as the specification
// wants it, and so are its mounts until it is deleted.
func TestHostMountNamespace(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	b := newBundle(t, "exec sleep 1000")
	b.without(specs.MountNamespace)
	b.Root.Readonly = true
	b.write("rootfs/in/file", "", 0o644)
	// The directory is a mount already, as engines have it.
	if err := unix.Mount(b.path("rootfs"), b.path("rootfs"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.path("rootfs"), 0); err != nil {
			t.Error(err)
		}
	})
	before := mountinfo(t)
	c := b.create()
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	if is := (holder{t: t, pid: os.Getpid()}).whose(c.PID, "mnt"); is != "the host's" {
		t.Errorf("the mount namespace is %s", is)
	}
	if during := mountinfo(t); !strings.HasPrefix(during, before) || !strings.Contains(during, b.path("rootfs/dev/shm")) {
		t.Errorf("mounts while it runs:\n%s\nand before:\n%s", during, before)
	}
	script := "pwd; ls / /in; ls /dev/null; touch /in/x 2>/dev/null || echo read-only; ls " + b.dir + " 2>/dev/null"
	out, _, err := b.exec(nil, script)
	if want := lines("/", "/:", "bin", "dev", "etc", "in", "proc", "sys", "", "/in:", "file", "/dev/null", "read-only"); err != nil || out != want {
		t.Errorf("%v: exec printed\n%s\nwant\n%s", err, out, want)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}
	if after := mountinfo(t); after != before {
		t.Errorf("mounts left:\n%s\nbefore:\n%s", after, before)
	}
	b.Process.Args = []string{"/missing"}
	if _, _, err := b.tryRun(t.Context()); err == nil {
		t.Error("a missing program runs")
	}
	if after := mountinfo(t); after != before {
		t.Errorf("mounts left by a failure:\n%s\nbefore:\n%s", after, before)
	}
}

func mountinfo(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A user namespace need not have a root.
func TestUserNamespaceWithoutRoot(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "id -u; id -g; ls -ldn /dev/shm | tr -s ' ' | cut -d' ' -f3,4; grep CapEff /proc/self/status")
	testenv.Run(t, "chown", "-R", "100005:100007", b.path("rootfs"))
	b.namespace(specs.UserNamespace, "")
	b.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 5, HostID: 100005, Size: 1}}
	b.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 7, HostID: 100007, Size: 1}}
	b.Process.User = specs.User{UID: 5, GID: 7}
	b.Process.Capabilities.Ambient, b.Process.Capabilities.Inheritable = nil, nil
	for i, m := range b.Mounts {
		if m.Type == "devpts" { // its group is not mapped
			b.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
		}
	}
	out, _ := b.run()
	if want := lines("5", "7", "5 7", "CapEff:\t0000000000000000"); out != want {
		t.Errorf("printed\n%s\nwant\n%s", out, want)
	}
}

// The clocks of a new time namespace are set before anybody is in it.
func TestTimeOffsets(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, user := range []bool{false, true} {
		b := newBundle(t, "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime")
		if user {
			b.userNamespace()
		}
		b.namespace(specs.TimeNamespace, "")
		b.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -1, Nanosecs: 7}, "boottime": {Secs: 1 << 30}}
		out, _ := b.run()
		f := strings.Fields(out)
		if want := "monotonic -1 7 boottime 1073741824 0"; len(f) != 7 || strings.Join(f[:6], " ") != want || len(f[6]) < 10 {
			t.Errorf("user namespace %v: printed\n%s\nwant %s and an uptime of years", user, out, want)
		}
	}
	b := newBundle(t, "true")
	b.namespace(specs.TimeNamespace, "")
	b.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -1 << 40}}
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "(linux.timeOffsets)") {
		t.Errorf("a clock that would begin before its time: %v", err)
	}
}

func has(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

// mixture gives the container new and joined namespaces, and the host's else.
func (b *bundle) mixture(fresh, joined string, holder holder) {
	b.Linux.Namespaces = nil
	for kind, name := range kinds {
		switch {
		case has(fresh, name):
			b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
		case has(joined, name):
			b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: holder.path(name)})
		}
	}
	b.Hostname = ""
	// What a procfs or a sysfs may be mounted over depends on the mixture; the test is not about them.
	b.Mounts = nil
	b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
	if has(fresh, "user") {
		b.userNamespace()
	} else if has(joined, "user") {
		testenv.Run(b.t, "chown", "-R", "100000:100000", b.path("rootfs"))
	}
	if has(fresh, "time") {
		b.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000}, "boottime": {Secs: 5000, Nanosecs: 5}}
	}
}

// A holder is a process with one namespace of each kind, to be joined.
type holder struct {
	t   *testing.T
	pid int
	// others has those that do not belong to the holder's user namespace, but to the host's.
	others *holder
}

func (h holder) path(name string) string {
	if h.others != nil && name != "user" {
		return h.others.path(name)
	}
	if name == "time" {
		name = "time_for_children" // which is what unshare makes
	}
	return fmt.Sprintf("/proc/%d/ns/%s", h.pid, name)
}

func (h holder) link(name string) string {
	h.t.Helper()
	l, err := os.Readlink(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

// startHolder starts a process in new namespaces, with or without a user
// namespace that the others belong to.
func startHolder(t *testing.T, user bool) holder {
	t.Helper()
	cmd := exec.Command("unshare", "--time", "sh", "-c", "echo ready; read wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC |
		syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP}
	if user {
		maps := []syscall.SysProcIDMap{{HostID: 100000, Size: 2000}}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = maps, maps
		cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // the status is of no interest
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	return holder{t: t, pid: cmd.Process.Pid}
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
	if err := unix.Mkfifo(b.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.namespace(specs.UTSNamespace, b.path("fifo"))
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "fifo: not a namespace") {
		t.Errorf("a FIFO: %v", err)
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
			// Without a namespace version 2 is there as a whole, version 1 from the container's own groups on.
			b := newBundle(t, `cd /sys/fs/cgroup; [ ! -e cgroup.controllers ] || cd ./$(cut -d: -f3 /proc/self/cgroup); for f in $(cat /files); do echo $f $(cat $f); done; cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo | cut -d' ' -f4-6; read wait`)
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
