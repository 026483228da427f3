package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
)

// TestRealtime gives a group time for real-time processes, which all groups above have to have, too.
func TestRealtime(t *testing.T) {
	testenv.Leaks(t)
	f := facts(t)
	const text = `{"cpu":{"realtimePeriod":500000,"realtimeRuntime":2000}}`
	m, err := New(f, Options{Path: "/" + testenv.Name(t), ID: "id"})
	if err != nil {
		t.Fatal(err)
	}
	cpu := f.Hierarchy("cpu")
	if cpu == nil || !there(cpu.Mountpoint+"/cpu.rt_runtime_us") {
		refused(t, m, text, "linux.resources.cpu.realtimePeriod")
		return
	}
	create(t, m, text)
	defer destroyed(t, m)
	if period, runtime := control(t, m, "cpu", "cpu.rt_period_us"), control(t, m, "cpu", "cpu.rt_runtime_us"); period != "500000" || runtime != "2000" {
		t.Errorf("%s of %s", runtime, period)
	}
	if err := m.Set(t.Context(), resources(t, `{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":3000}}`)); err != nil {
		t.Error(err)
	}
	if got := control(t, m, "cpu", "cpu.rt_runtime_us"); got != "3000" {
		t.Errorf("after an update: %s", got)
	}
}

// TestNetwork sets classes and priorities of what a container sends: version 1 alone has them, and few machines mount that.
func TestNetwork(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	f := facts(t)
	const text = `{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":5}]}}`
	if f.CgroupMode == host.CgroupV2 {
		m, _ := newManager(t)
		refused(t, m, text, "linux.resources.network.classID")
		return
	}
	for _, controller := range []string{"net_cls", "net_prio"} {
		if f.Hierarchy(controller) != nil {
			continue
		}
		dir := filepath.Join(t.TempDir(), controller)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mountHierarchy(t, controller, dir)
		defer removeHierarchy(t, controller, dir)
		f.Hierarchies = append(f.Hierarchies, host.Hierarchy{Controllers: []string{controller}, Mountpoint: dir, MountRoot: "/", OwnPath: "/"})
	}
	m, err := New(f, Options{Path: "/" + testenv.Name(t), ID: "id"})
	if err != nil {
		t.Fatal(err)
	}
	create(t, m, text)
	defer destroyed(t, m)
	if got := control(t, m, "net_cls", "net_cls.classid"); got != "1048577" {
		t.Errorf("class %s", got)
	}
	if got := control(t, m, "net_prio", "net_prio.ifpriomap"); !strings.Contains(got, "lo 5") {
		t.Errorf("priorities %s", got)
	}
	if err := m.Set(t.Context(), resources(t, `{"network":{"classID":7,"priorities":[{"name":"no-such-interface","priority":5}]}}`)); err == nil ||
		!strings.Contains(err.Error(), "linux.resources.network.priorities[0]") {
		t.Errorf("an interface that is not there: %v", err)
	}
	if got := control(t, m, "net_cls", "net_cls.classid"); got != "1048577" {
		t.Errorf("class %s after an update that failed", got)
	}
}

func mountHierarchy(t *testing.T, controller, dir string) {
	t.Helper()
	if err := unix.Mount("cgroup", dir, "cgroup", 0, controller); err != nil {
		t.Fatalf("mount %s: %v", controller, err)
	}
}

// removeHierarchy leaves the machine as it was. A hierarchy goes some time after its last mount, and only if no group in
// it was on its way out then: it is mounted once more for that. Engines cannot do with one that is mounted nowhere.
func removeHierarchy(t *testing.T, controller, dir string) {
	t.Helper()
	for range 10 {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatalf("unmount %s: %v", controller, err)
		}
		for range 20 {
			text, err := os.ReadFile("/proc/self/cgroup")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), ":"+controller+":") {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		mountHierarchy(t, controller, dir)
	}
	_ = unix.Unmount(dir, 0)
	t.Errorf("the hierarchy of %s stays", controller)
}

// refused creates with limits that are not to be had here.
func refused(t *testing.T, m Manager, text, field string) {
	t.Helper()
	if err := m.Create(t.Context(), resources(t, text), 0); err == nil || !strings.Contains(err.Error(), field) {
		t.Errorf("%s: %v", text, err)
	}
}

func there(path string) bool { return unix.Access(path, unix.F_OK) == nil }

func destroyed(t *testing.T, m Manager) {
	t.Helper()
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
