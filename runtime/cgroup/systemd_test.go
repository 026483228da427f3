package cgroup

import (
	"fmt"
	"strings"
	"testing"
)

func TestExpandSlice(t *testing.T) {
	for slice, want := range map[string]string{
		"a.slice": "/a.slice", "a-b.slice": "/a.slice/a-b.slice", "system.slice": "/system.slice", "-.slice": "/",
		"kubepods-burstable-pod1.slice": "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice",
	} {
		if got, err := expandSlice(slice); err != nil || got != want {
			t.Errorf("%s: %s, %v", slice, got, err)
		}
	}
	for _, slice := range []string{"", ".slice", "a", "a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../x.slice", "a.slice/", "a\n.slice"} {
		if got, err := expandSlice(slice); err == nil {
			t.Errorf("%q: %s", slice, got)
		}
	}
}

func TestParseUnit(t *testing.T) {
	for _, c := range []struct {
		path  string
		user  bool
		want  string
		fails bool
	}{
		{"", false, "system.slice runc-ID.scope", false},
		{"", true, "user.slice runc-ID.scope", false},
		{"system.slice:docker:1234", false, "system.slice docker-1234.scope", false},
		{":cri-containerd:x", true, "user.slice cri-containerd-x.scope", false},
		{"a.slice::x", false, "a.slice -x.scope", false},
		{"/a/b", false, "", true}, {"a:b", false, "", true}, {"a:b:c:d", false, "", true}, {"a.slice:b:", false, "", true},
		{"a.slice:b:../c", false, "", true}, {"a.slice:b:c.slice", false, "", true}, {"a.slice:b:c\n", false, "", true},
	} {
		slice, unit, err := parseUnit(c.path, "ID", c.user)
		if got := slice + " " + unit; c.fails != (err != nil) || err == nil && got != c.want {
			t.Errorf("%q: %q, %v", c.path, got, err)
		}
	}
}

func FuzzUnit(f *testing.F) {
	for _, s := range []string{"", "a-b.slice:p:n", "x::y", "-.slice:a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		slice, unit, err := parseUnit(s, "ID", false)
		if err != nil {
			return
		}
		dir, err := expandSlice(slice)
		if err == nil && (checkPath(dir+"/"+unit) != nil || strings.Contains(unit, "/")) {
			t.Errorf("%q: %q in %q", s, unit, dir)
		}
	})
}

func showProperties(list []property) string {
	var words []string
	for _, p := range list {
		words = append(words, fmt.Sprintf("%s=%v", p.name, p.value.Value))
	}
	return strings.Join(words, " ")
}

func TestUnitProperties(t *testing.T) {
	for _, c := range []struct{ in, v1, v2 string }{
		{`{"memory":{"limit":100,"swap":150,"reservation":50}}`, "MemoryLimit=100", "MemoryMax=100 MemorySwapMax=50 MemoryLow=50"},
		{`{"memory":{"limit":-1}}`, "MemoryLimit=18446744073709551615", "MemoryMax=18446744073709551615 MemorySwapMax=18446744073709551615"},
		{`{"cpu":{"shares":1024}}`, "CPUShares=1024", "CPUWeight=100"},
		{`{"cpu":{"quota":50000,"period":100000}}`, "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=500000", "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=500000"},
		{`{"cpu":{"quota":25500}}`, "CPUQuotaPerSecUSec=260000", "CPUQuotaPerSecUSec=260000"},
		{`{"cpu":{"quota":-1}}`, "CPUQuotaPerSecUSec=18446744073709551615", "CPUQuotaPerSecUSec=18446744073709551615"},
		{`{"cpu":{"cpus":"0-2,9","mems":"0"}}`, "AllowedCPUs=[7 2] AllowedMemoryNodes=[1]", "AllowedCPUs=[7 2] AllowedMemoryNodes=[1]"},
		{`{"pids":{"limit":10}}`, "TasksMax=10", "TasksMax=10"},
		{`{"pids":{"limit":-1}}`, "TasksMax=18446744073709551615", "TasksMax=18446744073709551615"},
		{`{"blockIO":{"weight":500}}`, "BlockIOWeight=500", ""},
		{`{"unified":{"memory.high":"5","pids.max":"0","memory.oom.group":"1","cpu.max":"max 5000"}}`, "error",
			"MemoryHigh=5 TasksMax=1 CPUQuotaPeriodUSec=5000 CPUQuotaPerSecUSec=18446744073709551615"},
		{`{"unified":{"memory.high":"x"}}`, "error", "error"},
		{`{"cpu":{"cpus":"0-"}}`, "error", "error"},
	} {
		r := resources(t, c.in)
		for _, v := range []struct {
			unified func(string, string) bool
			want    string
		}{{onV1, c.v1}, {onV2, c.v2}} {
			p := planFor(r, v.unified)
			got := "error"
			if p.err == nil {
				if list, err := p.properties(); err == nil {
					got = showProperties(list)
				}
			}
			if got != v.want {
				t.Errorf("%s:\ngot  %s\nwant %s", c.in, got, v.want)
			}
		}
	}
}

func TestDeviceProperties(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`[]`, "DeviceAllow=[] DevicePolicy=strict DeviceAllow=[[char-* m] [block-* m] [/dev/char/1:3 rwm] [/dev/char/1:8 rwm] [/dev/char/1:7 rwm] " +
			"[/dev/char/5:0 rwm] [/dev/char/1:5 rwm] [/dev/char/1:9 rwm] [char-136 rwm] [/dev/char/5:2 rwm] [/dev/char/10:200 rwm]]"},
		{`[{"allow":true}]`, "DeviceAllow=[] DevicePolicy=auto"},
		{`[{"allow":true},{"allow":false,"type":"b"}]`, "DeviceAllow=[] DevicePolicy=auto"},
		{`[{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]`, "DeviceAllow=[] DevicePolicy=auto"},
		{`[{"allow":true,"type":"b","minor":8,"access":"rw"}]`, "DeviceAllow=[] DevicePolicy=auto"},
	} {
		rules, err := deviceRules(parseRules(t, c.in))
		if err != nil {
			t.Fatal(err)
		}
		if got := showProperties(deviceProperties(rules)); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestAnnotatedProperties(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"org.systemd.property.TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec=123456789"},
		{"org.systemd.property.TimeoutStopSec", "456", "TimeoutStopUSec=456000000"},
		{"org.systemd.property.TimeoutStopSec", "byte 234", "TimeoutStopUSec=234000000"},
		{"org.systemd.property.TimeoutStopSec", "234.789", "TimeoutStopUSec=234789000"},
		{"org.systemd.property.TimeoutStopSec", "false", "error"},
		{"org.systemd.property.TimeoutStopSec", "'covfefe'", "error"},
		{"org.systemd.property.FOOSec", "123", "FOOSec=123"},
		{"org.systemd.property.Sec", "123", "Sec=123"},
		{"org.systemd.property.CollectMode", "'inactive-or-failed'", "CollectMode=inactive-or-failed"},
		{"org.systemd.property.After", "['a.service', 'b.service']", "After=[a.service b.service]"},
		{"org.systemd.property.Xo", "1", "error"}, {"org.systemd.property.Number1", "1", "error"}, {"org.systemd.property.ValidName", "invalid-value", "error"},
		{"org.other", "1", ""},
	} {
		list, err := annotated(map[string]string{c.key: c.value})
		got := showProperties(list)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s=%s: got %s, %v", c.key, c.value, got, err)
		}
	}
}

func TestCPUBits(t *testing.T) {
	for in, want := range map[string]string{"0": "[1]", "0-15": "[255 255]", "8,0": "[1 1]", " 1-2, 4": "[22]"} {
		if got, err := cpuBits(in); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

// TestSystemdRefused needs no systemd.
func TestSystemdRefused(t *testing.T) {
	for _, o := range []Options{
		{Driver: "other", ID: "x"},
		{Driver: Systemd, ID: "x", Optional: true}, // the user's, on version 1
	} {
		if m, err := New(hybridFacts(), o); err == nil {
			t.Errorf("%+v: %v", o, m)
		}
	}
}
