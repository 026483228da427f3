package runtimecli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
)

// These tests run on the cgroup version that the machine has: on 1 or hybrid, and in the virtual machine on 2.

// background creates and starts a container.
func (b *bundle) background() {
	b.t.Helper()
	b.do("create", "ID")
	b.do("start", "ID")
}

// refused runs tare-runtime, which must fail, and returns what it wrote.
func (b *bundle) refused(args ...string) string {
	b.t.Helper()
	out, err := b.command(args...).CombinedOutput()
	if err == nil {
		b.t.Errorf("%v: no error", args)
	}
	return string(out)
}

// cgroups are the container's, as if New had been called with its path.
func (b *bundle) cgroups() (cgroup.Manager, host.Facts) {
	b.t.Helper()
	f, err := host.Probe()
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := cgroup.New(f, cgroup.Options{Path: b.Linux.CgroupsPath, ID: b.id})
	if err != nil {
		b.t.Fatal(err)
	}
	return m, f
}

// control reads a control file of the container, by version.
func (b *bundle) control(v1, v2 string) string {
	b.t.Helper()
	m, f := b.cgroups()
	controller, _, _ := strings.Cut(v1, ".")
	path := m.Paths()[controller] + "/" + v1
	if f.CgroupMode == host.CgroupV2 {
		path = m.Paths()[""] + "/" + v2
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

const counting = `i=0; while true; do i=$((i+1)); echo $i >/count; done`

func (b *bundle) count() string {
	data, err := os.ReadFile(filepath.Join(b.dir, "rootfs/count"))
	if err != nil {
		return ""
	}
	return string(data)
}

func (b *bundle) awaitCounting() {
	b.t.Helper()
	before := b.count()
	for end := time.Now().Add(10 * time.Second); b.count() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("it does not count")
		}
	}
}

func TestPauseResume(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, counting)
	if out := b.refused("pause", "ID"); !strings.Contains(out, "container does not exist") {
		t.Error(out)
	}
	b.background()
	b.awaitCounting()
	if out := b.refused("resume", "ID"); !strings.Contains(out, "container not paused") {
		t.Error(out)
	}
	b.do("pause", "ID")
	if s := b.state(); s.Status != "paused" || s.Pid == 0 {
		t.Errorf("paused: %+v", s)
	}
	before := b.count()
	time.Sleep(20 * time.Millisecond)
	if after := b.count(); after != before {
		t.Errorf("it counted on, from %s to %s", before, after)
	}
	if out := b.refused("pause", "ID"); !strings.Contains(out, "container not running") {
		t.Error(out)
	}
	if out := b.refused("delete", "ID"); !strings.Contains(out, "not stopped: paused") {
		t.Error(out)
	}
	b.do("resume", "ID")
	b.awaitCounting()
	b.do("pause", "ID")
	within(t, 8*time.Second, func() { b.do("delete", "--force", "ID") })
}

// within fails the test when f takes longer.
func within(t testing.TB, limit time.Duration, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took > limit {
		t.Errorf("took %v, more than %v", took, limit)
	}
}

// TestKillPaused: SIGKILL ends a paused container, and other signals wait until it runs again, as with runc.
func TestKillPaused(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, all := range []bool{false, true} {
		b := newBundle(t, counting)
		b.background()
		b.do("pause", "ID")
		b.do("kill", "ID", "TERM") // to pid 1, which has no handler
		args := []string{"kill", "ID", "9"}
		if all {
			args = []string{"kill", "--all", "ID", "9"}
		}
		b.do(args...)
		for end := time.Now().Add(10 * time.Second); b.state().Status != specs.StateStopped; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("all=%v: %s", all, b.state().Status)
			}
		}
		b.do("delete", "ID")
	}
}

func TestUpdate(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "exec sleep 1000")
	if out := b.refused("update", "--memory", "64m", "ID"); !strings.Contains(out, "container does not exist") {
		t.Error(out)
	}
	b.background()
	want := func(v1, value1, v2, value2 string) {
		t.Helper()
		_, f := b.cgroups()
		value := value1
		if f.CgroupMode == host.CgroupV2 {
			value = value2
		}
		if got := b.control(v1, v2); got != value {
			t.Errorf("%s, %s: got %q, want %q", v1, v2, got, value)
		}
	}
	b.do("update", "--memory", "64m", "--memory-swap", "96M", "--memory-reservation", "32MiB", "--pids-limit", "50", "--cpu-share", "512",
		"--cpu-quota", "50000", "--cpu-period=100000", "--cpu-burst", "1000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "ID")
	want("memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	want("memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432")
	want("memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432")
	want("pids.max", "50", "pids.max", "50")
	want("cpu.shares", "512", "cpu.weight", "59")
	want("cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	want("cpu.cfs_burst_us", "1000", "cpu.max.burst", "1000")
	want("cpuset.cpus", "0", "cpuset.cpus", "0")
	// A change of memory alone leaves the limit of memory and swap together.
	b.do("update", "ID", "--memory", "80m")
	want("memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "16777216")
	b.do("update", "ID", "--cpu-quota", "20000")
	want("cpu.cfs_quota_us", "20000", "cpu.max", "20000 100000")
	b.do("update", "ID", "--pids-limit", "-1", "--memory", "-1")
	want("pids.max", "max", "pids.max", "max")
	want("memory.memsw.limit_in_bytes", "9223372036854771712", "memory.swap.max", "max")

	file := filepath.Join(b.dir, "resources.json")
	if err := os.WriteFile(file, []byte(`{"memory":{"limit":33554432},"pids":{"limit":9}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.do("update", "-r", file, "ID", "--pids-limit", "77")
	want("pids.max", "9", "pids.max", "9")
	cmd := b.command("update", "--resources", "-", "ID")
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":11}}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	want("pids.max", "11", "pids.max", "11")
	for _, c := range [][2]string{
		{"--memory=12x", "invalid value for memory"}, {"--cpu-quota=a", "invalid value for cpu-quota"}, {"--l3-cache-schema=L3:0=f", "RDT"},
		{"--cpuset-cpus=4095", "linux.resources.cpu.cpus"}, {"--memory=-7", "invalid value for memory"},
	} {
		if out := b.refused("update", c[0], "ID"); !strings.Contains(out, c[1]) || strings.Contains(out, "config.json") {
			t.Errorf("%s: %s", c[0], out)
		}
	}
	b.do("kill", "ID", "9")
	b.awaitStopped()
	if out := b.refused("update", "--memory", "64m", "ID"); !strings.Contains(out, "container not running") {
		t.Error(out)
	}
	b.do("delete", "ID")
}

func (b *bundle) awaitStopped() {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); b.state().Status != specs.StateStopped; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("still %s", b.state().Status)
		}
	}
}

// TestNoCgroup: without control groups a container can run, but what needs them says so.
func TestNoCgroup(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "exec sleep 1000")
	limit := int64(100)
	b.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	if out := b.refused("--cgroup-manager", "disabled", "create", "ID"); !strings.Contains(out, "config.json: linux.resources.pids.limit") {
		t.Error(out)
	}
	b.Linux.Resources.Pids = nil
	b.do("--cgroup-manager", "disabled", "create", "ID")
	b.do("start", "ID")
	if m, _ := b.cgroups(); m != nil {
		for _, dir := range m.Paths() {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is there", dir)
			}
		}
	}
	for _, args := range [][]string{{"pause", "ID"}, {"update", "--memory", "64m", "ID"}, {"kill", "--all", "ID", "TERM"}} {
		if out := b.refused(args...); !strings.Contains(out, "no cgroup") && !strings.Contains(out, "made without cgroups") {
			t.Errorf("%v: %s", args, out)
		}
	}
	b.do("kill", "--all", "ID", "9") // the end of its first process is that of all
	b.awaitStopped()
	b.do("delete", "ID")
}

// TestNoHierarchy: on a machine without control groups nothing that needs them is ignored.
func TestNoHierarchy(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	mounts := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range slices.Backward(mounts) {
		if point := strings.Fields(line)[1]; strings.HasPrefix(point, "/sys/fs/cgroup") {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := newBundle(t, "exec sleep 1000")
	b.Mounts = slices.DeleteFunc(b.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	if out := b.refused("create", "ID"); !strings.Contains(out, "config.json: linux.resources.devices: no cgroup hierarchy is mounted") {
		t.Error(out)
	}
	limit := int64(1 << 26)
	b.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	if out := b.refused("create", "ID"); !strings.Contains(out, "config.json: linux.resources.memory.limit: no cgroup hierarchy is mounted") {
		t.Error(out)
	}
	b.Linux.Resources = nil
	b.background()
	if out := b.refused("kill", "--all", "ID", "TERM"); !strings.Contains(out, "no cgroup") {
		t.Error(out)
	}
	if out := b.refused("events", "--stats", "ID"); !strings.Contains(out, "no cgroup") {
		t.Error(out)
	}
	b.do("delete", "--force", "ID")
}

// TestDeviceAttack: a container that may make device nodes cannot use those that nobody has allowed, whatever the configuration does not say.
func TestDeviceAttack(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	no := false
	for name, rules := range map[string][]specs.LinuxDeviceCgroup{
		"none": nil, "empty": {}, "denied": {{Allow: no, Access: "rwm"}}, "denied in part": {{Allow: no, Type: "b", Access: "m"}},
		"allowed in part": {{Allow: no}, {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(3)), Access: "rw"}},
	} {
		b := newBundle(t, "busybox mknod /kmsg c 1 11 && test -c /kmsg && if cat /kmsg; then echo read; fi; if echo x >>/kmsg; then echo written; fi; echo x >/dev/null && echo null")
		for _, set := range []*[]string{&b.Process.Capabilities.Bounding, &b.Process.Capabilities.Effective, &b.Process.Capabilities.Permitted} {
			*set = append(*set, "CAP_MKNOD", "CAP_SYSLOG")
		}
		b.Linux.Resources = &specs.LinuxResources{Devices: rules}
		if name == "none" {
			b.Linux.Resources = nil
		}
		out := b.do("run", "ID")
		if strings.Contains(out, "read") || strings.Contains(out, "written") || !strings.HasSuffix(out, "null") || strings.Count(out, "ermitted") != 2 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// TestFrozenCgroup: what is frozen keeps nobody.
func TestFrozenCgroup(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "exec sleep 1000")
	b.do("create", "ID")
	b.do("pause", "ID")
	if s := b.state().Status; s != "paused" {
		t.Errorf("a paused created container is %s", s)
	}
	within(t, 5*time.Second, func() {
		if out := b.refused("start", "ID"); !strings.Contains(out, "paused") {
			t.Error(out)
		}
	})
	b.do("resume", "ID")
	b.do("start", "ID")
	b.do("delete", "--force", "ID")

	// A cgroup below one that is frozen.
	_, f := b.cgroups()
	parent, err := cgroup.New(f, cgroup.Options{Path: "/" + testenv.Name(t), ID: b.id})
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Create(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := parent.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := parent.Freeze(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	dir := parent.Paths()["freezer"]
	if dir == "" {
		dir = parent.Paths()[""]
	}
	b.Linux.CgroupsPath = fmt.Sprintf("/%s/inner", filepath.Base(dir))
	within(t, 8*time.Second, func() {
		if out := b.refused("create", "ID"); !strings.Contains(out, "frozen") {
			t.Error(out)
		}
	})
}

func TestEvents(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, `trap 'x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done' USR1; while :; do sleep 0.01; done`)
	limit := int64(16 << 20)
	b.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	if out := b.refused("events", "--stats", "ID"); !strings.Contains(out, "container does not exist") {
		t.Error(out)
	}
	b.background()
	var e struct {
		Type, ID string
		Data     cgroup.Stats
	}
	if err := json.Unmarshal([]byte(b.do("events", "--stats", "ID")), &e); err != nil || e.Type != "stats" || e.ID != b.id || e.Data.Memory.Usage.Limit != 16<<20 {
		t.Errorf("%v: %+v", err, e)
	}
	if out := b.refused("events", "--interval", "0", "ID"); !strings.Contains(out, "must be greater than 0") {
		t.Error(out)
	}
	cmd := b.command("events", "--interval", "20ms", "ID")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(out)
	for e.Type = ""; e.Type != "stats"; {
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
	}
	b.do("kill", "ID", "USR1")
	for e.Type = ""; e.Type != "oom"; {
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
	}
	b.awaitStopped()
	b.do("delete", "ID")
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	b.do("create", "ID")
	b.do("kill", "ID", "9")
	b.awaitStopped()
	if out := b.refused("events", "--stats", "ID"); !strings.Contains(out, "is not running") {
		t.Error(out)
	}
	b.do("delete", "ID")
}
