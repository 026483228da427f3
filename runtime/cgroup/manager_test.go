package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
)

// These tests run on the cgroup layout that the machine has. CI runs them on version 1 or hybrid and, in the virtual machine, on
// version 2: what a test asks of one layout only is in a function whose name says so.

func facts(t testing.TB) host.Facts {
	t.Helper()
	testenv.Root(t)
	f, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newManager returns the manager for a cgroup of this test's own.
func newManager(t testing.TB) (Manager, host.Facts) {
	t.Helper()
	f := facts(t)
	m, err := New(f, Options{Path: "/tare-cgroup-test/" + testenv.Name(t), ID: "id"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Kill(context.Background(), unix.SIGKILL)
		if err := m.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		for _, dir := range m.Paths() {
			_ = unix.Rmdir(filepath.Dir(dir))
		}
	})
	return m, f
}

func resources(t testing.TB, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func create(t testing.TB, m Manager, text string) {
	t.Helper()
	if err := m.Create(t.Context(), resources(t, text), 0); err != nil {
		t.Fatal(err)
	}
}

// start runs a shell script in the cgroups. It joins as a container's process does: born into Dir, and writing "0" to JoinFiles.
func start(t testing.TB, m Manager, script string) *exec.Cmd {
	t.Helper()
	join := ""
	files, err := m.JoinFiles()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", "") // dash has no descriptors above 9
	for i, f := range files {
		defer f.Close()
		join += fmt.Sprintf("echo 0 >&%d || exit 99\nexec %d>&-\n", 3+i, 3+i)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.Args[2] = join + script
	dir, err := m.Dir()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if dir != nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.WaitDelay = time.Second
	return cmd
}

// run runs a script in the cgroups to its end and returns what it printed.
func runScript(t testing.TB, m Manager, script string) (string, error) {
	t.Helper()
	cmd := start(t, m, script)
	err := cmd.Wait()
	return cmd.Stdout.(*strings.Builder).String(), err
}

// eventually waits until ok, for something that other processes bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}

func TestLifecycle(t *testing.T) {
	testenv.Leaks(t)
	m, f := newManager(t)
	create(t, m, `{"pids":{"limit":50}}`)
	cmd := start(t, m, "exec sleep 1000")
	eventually(t, "the process is in every cgroup", func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			mounted := !strings.HasPrefix(line, "0::") || f.Unified != nil
			if mounted && !strings.Contains(line, "tare-test-") {
				return false
			}
		}
		return true
	})
	eventually(t, "Pids has the process", func() bool {
		pids, err := m.Pids()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(pids, []int{cmd.Process.Pid})
	})
	loaded, err := Load(f, m.Paths(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Create(t.Context(), nil, 0); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("Create over a cgroup in use: %v", err)
	}
	if pids, err := loaded.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("after a refused Create: %v, %v", pids, err)
	}
	if err := loaded.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if sig := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); sig != syscall.SIGTERM {
		t.Errorf("ended by %v", sig)
	}
	for range 2 { // the second time there is nothing
		if err := loaded.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if pids, err := loaded.Pids(); err != nil || len(pids) != 0 {
			t.Errorf("Pids after Destroy: %v, %v", pids, err)
		}
		if err := loaded.Kill(t.Context(), unix.SIGKILL); err != nil {
			t.Errorf("Kill after Destroy: %v", err)
		}
		if frozen, err := loaded.Frozen(); err != nil || frozen {
			t.Errorf("Frozen after Destroy: %v, %v", frozen, err)
		}
	}
}

func TestAdd(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{}`)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if pids, err := m.Pids(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("got %v, %v", pids, err)
	}
	if err := m.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

func TestExistingCgroup(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{}`)
	create(t, m, `{"pids":{"limit":7}}`) // empty: taken over
	// What the one before may not use is none of the next one's business.
	create(t, m, `{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}`)
	node := t.TempDir() + "/kmsg"
	if out, err := runScript(t, m, "mknod "+node+" c 1 11 && : <"+node); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := m.Freeze(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := m.Create(t.Context(), nil, 0); !errors.Is(err, ErrFrozen) {
		t.Errorf("frozen: %v", err)
	}
	if err := m.Freeze(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	create(t, m, `{}`)
}

func TestFreeze(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{}`)
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	cmd := start(t, m, "while :; do echo x >>"+count+"; done")
	size := func() int64 {
		st, err := os.Stat(count)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	eventually(t, "the loop runs", func() bool { return size() > 0 })
	if err := m.Freeze(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if frozen, err := m.Frozen(); err != nil || !frozen {
		t.Errorf("Frozen: %v, %v", frozen, err)
	}
	before := size()
	time.Sleep(50 * time.Millisecond)
	if after := size(); after != before {
		t.Errorf("it ran on: %d bytes, then %d", before, after)
	}
	if err := m.Freeze(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop runs again", func() bool { return size() > before })
	// A frozen process does not keep Destroy.
	if err := m.Freeze(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Destroy(ctx); err != nil {
		t.Errorf("Destroy of a frozen cgroup: %v", err)
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Error("a frozen process survived SIGKILL")
	}
}

// TestKillForkers kills processes that fork as fast as they can.
func TestKillForkers(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{"pids":{"limit":200}}`)
	cmd := start(t, m, "f() { f & f & }; f 2>/dev/null; wait")
	eventually(t, "many processes", func() bool {
		pids, _ := m.Pids()
		return len(pids) > 20
	})
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

// TestNestedProcesses has a container make cgroups of its own, on version 2 with threads as well, and on version 1 freeze what is in one.
func TestNestedProcesses(t *testing.T) {
	testenv.Leaks(t)
	m, f := newManager(t)
	create(t, m, `{}`)
	dir := m.Paths()["freezer"]
	script := "mkdir $D/a $D/a/b; sleep 1000 & echo $! >$D/a/b/cgroup.procs; sleep 1000 & echo $! >$D/a/cgroup.procs; echo FROZEN >$D/a/b/freezer.state; wait"
	want := 3
	if f.CgroupMode == host.CgroupV2 {
		dir = m.Paths()[""]
		script = "mkdir $D/a $D/a/b $D/t $D/t/u; sleep 1000 & echo $! >$D/a/b/cgroup.procs; echo 1 >$D/a/b/cgroup.freeze; " +
			"echo threaded >$D/t/u/cgroup.type && sleep 1000 & echo $! >$D/t/cgroup.procs; echo $! >$D/t/u/cgroup.threads; wait"
	}
	cmd := start(t, m, "D="+dir+"; "+script)
	eventually(t, "all are there", func() bool {
		pids, err := m.Pids()
		if err != nil {
			t.Fatal(err)
		}
		return len(pids) == want
	})
	if err := m.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDestroyNested(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{}`)
	for _, dir := range m.Paths() {
		if err := os.MkdirAll(dir+"/a/b/c", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range m.Paths() {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", dir)
		}
	}
}

// TestFailedCreateLeavesNothing has the last write of Create fail.
func TestFailedCreateLeavesNothing(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	for field, text := range map[string]string{
		"linux.resources.memory.limit":         `{"memory":{"limit":-7}}`,
		"linux.resources.cpu.cpus":             `{"cpu":{"cpus":"4095"}}`,
		"linux.resources.devices[1]":           `{"devices":[{"allow":false},{"type":"q"}]}`,
		"linux.resources.hugepageLimits[0]":    `{"hugepageLimits":[{"pageSize":"3KB","limit":1}]}`,
		"linux.resources.blockIO.throttleRead": `{"blockIO":{"throttleReadBpsDevice":[{"major":999,"minor":999,"rate":1}]}}`,
	} {
		err := m.Create(t.Context(), resources(t, text), 0)
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", text, err)
		}
		for _, dir := range m.Paths() {
			if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s is still there", text, filepath.Dir(dir))
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Create(ctx, nil, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPrepareV1 has a process begin before its cgroups are made, and one of them be another's: what Prepare made goes, and the other
// container notices nothing.
func TestPrepareV1(t *testing.T) {
	testenv.Leaks(t)
	m, f := newManager(t)
	v, ok := m.(*v1)
	if !ok {
		return
	}
	bad := resources(t, `{"devices":[{"allow":false},{"type":"q"}]}`)
	if made, err := m.Prepare(t.Context(), bad); made || err == nil || !strings.Contains(err.Error(), "linux.resources.devices[1]") {
		t.Errorf("Prepare: %v, %v", made, err)
	}
	theirs := v.groups[len(v.groups)-1]
	if _, err := mkdirAll(theirs.root, theirs.dir); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait() // it was killed
		for _, dir := range []string{theirs.dir, filepath.Dir(theirs.dir)} {
			if err := unix.Rmdir(dir); err != nil {
				t.Errorf("rmdir %s: %v", dir, err)
			}
		}
	})
	if err := writeFile(theirs.dir+"/cgroup.procs", strconv.Itoa(other.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	made, err := m.Prepare(t.Context(), nil)
	if err != nil || made != (f.Unified != nil) {
		t.Fatalf("Prepare: %v, %v", made, err)
	}
	if err := m.Create(t.Context(), nil, 0); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("Create: %v", err)
	}
	if made {
		if _, err := os.Stat(v.unified.dir); err != nil {
			t.Error(err)
		}
		if err := m.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(v.unified.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", v.unified.dir, err)
		}
	}
	if pids, err := allPids(theirs.dir); err != nil || !slices.Equal(pids, []int{other.Process.Pid}) {
		t.Errorf("the other's processes: %v, %v", pids, err)
	}
}

// TestDevices opens /dev/full, which is in the defaults, and a node for /dev/kmsg, which is not.
func TestDevices(t *testing.T) {
	testenv.Leaks(t)
	dir := t.TempDir()
	node := dir + "/kmsg"
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(node); err != nil {
		t.Fatalf("not even outside a cgroup: %v", err)
	} else {
		f.Close()
	}
	script := fmt.Sprintf("if : <%[1]s/kmsg; then echo read; fi; if : >>%[1]s/kmsg; then echo write; fi; if mknod %[1]s/new c 1 11; then echo mknod; fi; "+
		"if : </dev/full; then echo full; fi; rm -f %[1]s/new", dir)
	for _, c := range []struct{ rules, want string }{
		{``, "mknod full"},
		{`{"allow":false,"access":"rwm"}`, "mknod full"},
		{`{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}`, "read mknod full"},
		{`{"allow":false},{"allow":true,"type":"c","major":1,"access":"rw"}`, "read write mknod full"},
		{`{"allow":true,"access":"rwm"}`, "read write mknod full"},
		{`{"allow":true},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}`, "read mknod full"},
	} {
		m, _ := newManager(t)
		create(t, m, `{"devices":[`+c.rules+`]}`)
		out, _ := runScript(t, m, "{ "+script+"; } 2>/dev/null")
		if got := strings.Join(strings.Fields(out), " "); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.rules, got, c.want)
		}
	}
}

func TestPidsLimit(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{"pids":{"limit":2}}`)
	out, err := runScript(t, m, "exec /bin/sh -c 'sleep 1 & sleep 1 & sleep 1 & wait'") // bash itself would try again for 15 s
	if err == nil || !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestOOMKilled(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{"memory":{"limit":16777216,"swap":16777216}}`)
	if killed, err := m.OOMKilled(); err != nil || killed {
		t.Fatalf("before: %v, %v", killed, err)
	}
	cmd := start(t, m, `x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done`)
	_ = cmd.Wait()
	if sig := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); sig != syscall.SIGKILL {
		t.Errorf("ended by %v", sig)
	}
	if killed, err := m.OOMKilled(); err != nil || !killed {
		t.Errorf("after: %v, %v", killed, err)
	}
}

// control reads a control file of the cgroup of controller, "" for the unified one.
func control(t testing.TB, m Manager, controller, file string) string {
	t.Helper()
	dir, ok := m.Paths()[controller]
	if !ok {
		dir = m.Paths()[""]
	}
	data, err := os.ReadFile(dir + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// TestLimits reads back what engines usually set, at creation and after updates that need a certain order of writes.
func TestLimits(t *testing.T) {
	testenv.Leaks(t)
	m, f := newManager(t)
	v2 := f.CgroupMode == host.CgroupV2
	create(t, m, `{"memory":{"limit":33554432,"swap":33554432,"reservation":16777216},"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"},
		"pids":{"limit":100},"blockIO":{"weight":0}}`)
	want := func(controller, v1File, v1Value, v2File, v2Value string) {
		t.Helper()
		file, value := v1File, v1Value
		if v2 {
			file, value = v2File, v2Value
		}
		if file == "" {
			return
		}
		if got := control(t, m, controller, file); got != value {
			t.Errorf("%s: got %q, want %q", file, got, value)
		}
	}
	want("memory", "memory.limit_in_bytes", "33554432", "memory.max", "33554432")
	want("memory", "memory.soft_limit_in_bytes", "16777216", "memory.low", "16777216")
	want("memory", "memory.memsw.limit_in_bytes", "33554432", "memory.swap.max", "0")
	want("cpu", "cpu.shares", "512", "cpu.weight", "59")
	want("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	want("cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0")
	want("pids", "pids.max", "100", "pids.max", "100")

	update := func(text string) {
		t.Helper()
		if err := m.Set(t.Context(), resources(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	update(`{"memory":{"limit":67108864,"swap":134217728}}`) // both rise: on v1 swap goes first
	want("memory", "memory.memsw.limit_in_bytes", "134217728", "memory.swap.max", "67108864")
	update(`{"memory":{"limit":33554432,"swap":33554432}}`) // both fall: limit first
	want("memory", "memory.memsw.limit_in_bytes", "33554432", "memory.max", "33554432")
	update(`{"memory":{"limit":-1}}`)
	want("memory", "memory.limit_in_bytes", "9223372036854771712", "memory.max", "max")
	update(`{"cpu":{"period":20000}}`)
	want("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 20000")
	update(`{"cpu":{"quota":10000,"burst":10000}}`)
	want("cpu", "cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000")
	update(`{"cpu":{"quota":2000,"burst":1000}}`) // the old burst is above the new quota
	want("cpu", "cpu.cfs_quota_us", "2000", "cpu.max", "2000 20000")
	update(`{"cpu":{"idle":1,"shares":99}}`)
	want("cpu", "cpu.idle", "1", "cpu.idle", "1")
	update(`{"cpu":{"idle":0,"shares":99},"pids":{"limit":-1}}`)
	want("cpu", "cpu.shares", "99", "", "")
	want("pids", "pids.max", "max", "pids.max", "max")
	if err := m.Set(t.Context(), resources(t, `{"pids":{"limit":5},"rdma":{"none":{"hcaHandles":1}}}`)); err == nil ||
		!strings.Contains(err.Error(), `linux.resources.rdma["none"]`) {
		t.Errorf("rdma: %v", err)
	}
	// What fails changes nothing, whatever came before it.
	update(`{"memory":{"limit":33554432,"swap":67108864},"cpu":{"quota":20000,"period":50000,"shares":300},"pids":{"limit":70}}`)
	before := limitFiles(t, m)
	if err := m.Set(t.Context(), resources(t, `{"memory":{"limit":16777216,"swap":134217728,"reservation":8388608},"cpu":{"quota":-1,"period":100000,
		"shares":400,"cpus":"4000"},"pids":{"limit":71}}`)); err == nil || !strings.Contains(err.Error(), "linux.resources.cpu.cpus") || strings.Contains(err.Error(), "changed back") {
		t.Errorf("CPUs that are not there: %v", err)
	}
	if after := limitFiles(t, m); after != before {
		t.Errorf("after an update that failed:\n%s\nbefore:\n%s", after, before)
	}
	if v2 {
		limitsV2(t, m)
	}
}

// limitFiles is what the files have that updates change.
func limitFiles(t testing.TB, m Manager) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range slices.Sorted(maps.Values(m.Paths())) {
		for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "cpu.shares", "cpu.cfs_quota_us",
			"cpu.cfs_period_us", "cpuset.cpus", "pids.max", "memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight"} {
			if text, err := readFile(dir + "/" + file); err == nil {
				fmt.Fprintf(&all, "%s/%s: %s", dir, file, text)
			}
		}
	}
	return all.String()
}

// TestWritable: what control files have, as it is written back.
func TestWritable(t *testing.T) {
	for _, c := range []struct{ file, value, content, want string }{
		{"memory.max", "5", "max\n", "max\n"}, {"cpuset.cpus", "0-1", "\n", "\n"}, {"cpu.max", "max 5", "100 20\n", "100 20\n"}, {"cpu.max", "5", "100 20\n", "100 20\n"},
		{"io.max", "8:0 rbps=5", "7:0 rbps=1 wbps=2 riops=max wiops=max\n8:0 rbps=max wbps=2 riops=max wiops=max\n", "8:0 rbps=max wbps=2 riops=max wiops=max"},
		{"io.max", "8:0 rbps=5", "", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{"blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n", "8:0 0"}, {"blkio.throttle.read_bps_device", "8:16 5", "8:0 1\n8:16 7\n", "8:16 7"},
		{"io.weight", "70", "default 100\n8:0 50\n", "100"}, {"io.weight", "8:0 70", "default 100\n8:0 50\n", "8:0 50"}, {"io.weight", "8:16 70", "default 100\n", "8:16 default"},
		{"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", "0"}, {"rdma.max", "m hca_handle=1", "", "m hca_handle=max hca_object=max"},
		{"net_prio.ifpriomap", "lo 5", "lo 0\neth0 1\n", "lo 0"}, {"net_prio.ifpriomap", "no 5", "lo 0\n", "none"}, {"x.y", "1", "a 1\nb 2\n", "none"},
	} {
		got, ok := writable(c.file, c.value, c.content)
		if !ok {
			got = "none"
		}
		if got != c.want {
			t.Errorf("%s, %q: got %q, want %q", c.file, c.value, got, c.want)
		}
	}
}

// limitsV2 sets what only version 2 has.
func limitsV2(t *testing.T, m Manager) {
	if err := m.Set(t.Context(), resources(t, `{"unified":{"memory.high":"50331648","cgroup.max.depth":"3","io.weight":"default 200"}}`)); err != nil {
		t.Error(err)
	}
	if got := control(t, m, "", "memory.high"); got != "50331648" {
		t.Errorf("memory.high: %s", got)
	}
	for text, want := range map[string]string{
		`{"unified":{"memory.nosuch":"1"}}`: "this kernel has no memory.nosuch",
		`{"unified":{"nosuch.max":"1"}}`:    "the nosuch controller is not available",
	} {
		if err := m.Set(t.Context(), resources(t, text)); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", text, err)
		}
	}
	cmd := start(t, m, "x=xxxxxxxxxxxxxxxx; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do x=$x$x; done; sleep 1000")
	eventually(t, "4 MiB are in use", func() bool {
		n, _ := strconv.Atoi(control(t, m, "", "memory.current"))
		return n > 4<<20
	})
	if err := m.Set(t.Context(), resources(t, `{"memory":{"limit":1048576,"checkBeforeUpdate":true}}`)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("checkBeforeUpdate: %v", err)
	}
	if err := m.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

// TestRelativePath makes the cgroup that an empty cgroupsPath stands for.
func TestRelativePath(t *testing.T) {
	testenv.Leaks(t)
	name := testenv.Name(t)
	m, err := New(facts(t), Options{ID: name})
	if err != nil {
		t.Fatal(err)
	}
	create(t, m, `{}`)
	for _, dir := range m.Paths() {
		if filepath.Base(dir) != name {
			t.Errorf("%s is not named %s", dir, name)
		}
	}
	if out, err := runScript(t, m, "cat /proc/self/cgroup"); err != nil || !strings.Contains(out, "/"+name+"\n") {
		t.Errorf("got %q, %v", out, err)
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
