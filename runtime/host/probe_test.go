//go:build linux

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbe compares with what the kernel says elsewhere.
func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	status := map[string]string{}
	for line := range strings.Lines(read("/proc/self/status")) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	if got, want := fmt.Sprintf("%016x", f.Caps), status["CapEff"]; got != want {
		t.Errorf("capabilities %s, want %s", got, want)
	}
	if got, want := strconv.Itoa(f.LastCap), read("/proc/sys/kernel/cap_last_cap"); got != want {
		t.Errorf("last capability %s, want %s", got, want)
	}
	if got, want := f.NoNewPrivs, status["NoNewPrivs"] == "1"; got != want {
		t.Errorf("no_new_privs %v, want %v", got, want)
	}
	if !strings.HasPrefix(read("/proc/sys/kernel/osrelease"), f.Kernel.String()) {
		t.Errorf("kernel %s, want %s", f.Kernel, read("/proc/sys/kernel/osrelease"))
	}
	if f.Arch != runtime.GOARCH || f.UID != os.Geteuid() || f.GID != os.Getegid() {
		t.Errorf("arch %s, uid %d, gid %d", f.Arch, f.UID, f.GID)
	}
	if initial := strings.Join(strings.Fields(read("/proc/self/uid_map")), " ") == "0 0 4294967295"; f.InUserNamespace == initial {
		t.Errorf("in a user namespace: %v", f.InUserNamespace)
	}
	checkCgroups(t, &f)
}

// checkCgroups finds this process where Facts say it is.
func checkCgroups(t *testing.T, f *Facts) {
	hs := append([]Hierarchy(nil), f.Hierarchies...)
	if f.Unified != nil {
		hs = append(hs, *f.Unified)
	}
	if len(hs) == 0 && f.CgroupMode != CgroupNone {
		t.Errorf("mode %s without a hierarchy", f.CgroupMode)
	}
	for _, h := range hs {
		procs, err := os.ReadFile(filepath.Join(h.Mountpoint, strings.TrimPrefix(h.OwnPath, h.MountRoot), "cgroup.procs"))
		if err != nil || !strings.Contains("\n"+string(procs), fmt.Sprintf("\n%d\n", os.Getpid())) {
			t.Errorf("%+v: this process is not in it (%v)", h, err)
		}
	}
	for _, controller := range []string{"memory", "devices"} {
		if h := f.Hierarchy(controller); h != nil {
			if _, err := os.Stat(filepath.Join(h.Mountpoint, "cgroup.procs")); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestFactsAreJSON(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	f.ProbeLSM()
	f.ProbeMemfd()
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Facts
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(f, back) {
		t.Errorf("%s came back as %+v, %v", data, back, err)
	}
	if !f.HasCap(unix.CAP_CHOWN) && f.UID == 0 && !f.InUserNamespace {
		t.Log("root without CAP_CHOWN: a restricted environment")
	}
	if f.HasCap(-1) || f.HasCap(64) {
		t.Error("HasCap knows capabilities that cannot be")
	}
}

func TestVersion(t *testing.T) {
	for in, want := range map[string]string{
		"6.1.0-42-amd64": "6.1", "5.14": "5.14", "6.18.44-fc-v669": "6.18", "10.0rc1": "10.0", "4.4.0": "4.4",
		"": "", "6": "", "6.": "", "six.one": "", ".1": "", "999999.1": "",
	} {
		v, err := parseVersion(in)
		if got := v.String(); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q: got %v, %v", in, v, err)
		}
	}
	for v, ok := range map[Version]bool{{5, 13}: false, {4, 99}: false, {5, 14}: true, {6, 0}: true} {
		err := v.check()
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrKernelTooOld) {
			t.Errorf("%s: %v", v, err)
		}
	}
	if got := (Version{5, 10}).check().Error(); got != "host: Linux 5.10: kernel too old: tare needs 5.14 or newer" {
		t.Error(got)
	}
}

const (
	v1Own = "12:cpu,cpuacct:/a\n3:name=systemd:/user.slice\n2:memory:/x:y (deleted)\n0::/user.slice/s\n"

	v1Mounts = `23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
90 23 0:35 / /host/memory rw - cgroup cgroup rw,memory
33 31 0:35 /x /sys/fs/cgroup/mem\040ory rw - cgroup cgroup rw,memory
34 31 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
91 23 0:38 / /host/unified rw - cgroup2 cgroup2 rw
35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
`
)

// probeText is the parsing part of probeCgroups.
func probeText(t testing.TB, own, mountinfo string, bufBytes int) Facts {
	path := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(path, []byte(mountinfo), 0o600); err != nil {
		t.Fatal(err)
	}
	hs, unified := parseOwnCgroups([]byte(own))
	if err := findMounts(path, hs, unified, make([]byte, bufBytes)); err != nil {
		t.Fatal(err)
	}
	var f Facts
	f.setCgroups(hs, unified)
	return f
}

func TestHierarchies(t *testing.T) {
	want := Facts{
		CgroupMode: CgroupHybrid,
		Hierarchies: []Hierarchy{
			{Controllers: []string{"cpu", "cpuacct"}, Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", MountRoot: "/", Options: "rw,nosuid", OwnPath: "/a"},
			{Name: "systemd", Mountpoint: "/sys/fs/cgroup/systemd", MountRoot: "/", Options: "rw", OwnPath: "/user.slice"},
			{Controllers: []string{"memory"}, Mountpoint: "/sys/fs/cgroup/mem ory", MountRoot: "/x", Options: "rw", OwnPath: "/x:y"},
		},
		Unified: &Hierarchy{Mountpoint: "/sys/fs/cgroup/unified", MountRoot: "/", Options: "rw", OwnPath: "/user.slice/s"},
	}
	many := strings.Repeat("99 1 0:99 / /var/lib/containers/"+strings.Repeat("x", 200)+" rw - overlay overlay rw\n", 5000)
	for name, mountinfo := range map[string]string{"plain": v1Mounts, "many before": many + v1Mounts, "many after": v1Mounts + many, "cut": v1Mounts + "1 2 3"} {
		for _, bufBytes := range []int{1, 4096} {
			if got := probeText(t, v1Own, mountinfo, bufBytes); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %+v", name, got, got.Unified)
			}
		}
	}
	onlyV1, _, _ := strings.Cut(v1Mounts, "91 23")
	if got := probeText(t, v1Own, onlyV1, 64); got.CgroupMode != CgroupV1 || got.Unified != nil {
		t.Errorf("without cgroup2: %+v", got)
	}
	if got := probeText(t, "0::/\n", v1Mounts, 64); got.CgroupMode != CgroupV2 || got.Unified.Mountpoint != "/sys/fs/cgroup/unified" {
		t.Errorf("cgroup2 alone: %+v", got)
	}
	if got := probeText(t, v1Own, "", 64); got.CgroupMode != CgroupNone {
		t.Errorf("nothing mounted: %+v", got)
	}
}

func TestMountinfoIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 2*maxMountinfoBytes); err != nil {
		t.Fatal(err)
	}
	if err := findMounts(path, nil, &Hierarchy{}, make([]byte, 4096)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func FuzzCgroups(f *testing.F) {
	f.Add([]byte(v1Own), []byte(v1Mounts))
	f.Add([]byte("0::\n:::\n1:name=:\n1:,:/\n"), []byte("1 2 3 4 \\05 6 - cgroup x name=\n - cgroup\n"))
	f.Fuzz(func(t *testing.T, own, mountinfo []byte) {
		hs, unified := parseOwnCgroups(own)
		for line := range strings.Lines(string(mountinfo)) {
			if m, ok := parseCgroupMount([]byte(line)); ok {
				m.assign(hs, unified)
			}
		}
		var facts Facts
		facts.setCgroups(hs, unified)
		if _, err := json.Marshal(facts); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := Probe(); err != nil {
			b.Fatal(err)
		}
	}
}
