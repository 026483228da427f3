package cgroup

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
)

func TestParseStats(t *testing.T) {
	for _, c := range []struct {
		parse    func(string) (any, error)
		in, want string
	}{
		{asAny(parsePairs), "user 12\nsystem 3\n", "map[system:3 user:12]"},
		{asAny(parsePairs), "low max\n", "map[low:18446744073709551615]"},
		{asAny(parsePairs), "user\n", "error"},
		{asAny(parsePairs), "", "map[]"},
		{asAny(parseList), "0-3,7", "[0 1 2 3 7]"},
		{asAny(parseList), "", "[]"},
		{asAny(parseList), "3-1", "error"},
		{asAny(parseList), "0-70000", "error"},
		{asAny(parseList), "0,,1", "error"},
		{asAny(parsePressure), "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
			"&{{1.5 0.25 0 7} {0 0 0 9}}"},
		{asAny(parsePressure), "some avg10=x\n", "error"},
		{asAny(parseBlkio), "8:0 Read 4096\n8:0 Total 4096\n8:16 12\nTotal 4096\n", "[{8 0 Read 4096} {8 0 Total 4096} {8 16  12}]"},
		{asAny(parseBlkio), "8 Read 4096\n", "error"},
		{asAny(func(s string) (string, error) {
			bytes, ops, err := parseIOStat(s)
			return fmt.Sprint(bytes, ops), err
		}), "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 \n", "[{8 0 Read 1} {8 0 Write 2}] [{8 0 Read 3} {8 0 Write 4}]"},
	} {
		got, err := c.parse(c.in)
		text := fmt.Sprint(got)
		if err != nil {
			text = "error"
		}
		if text != c.want {
			t.Errorf("%q: got %s, %v, want %s", c.in, text, err, c.want)
		}
	}
	for kb, want := range map[uint64]string{64: "64KB", 2048: "2MB", 32768: "32MB", 1048576: "1GB", 16777216: "16GB"} {
		if got := pageSize(kb); got != want {
			t.Errorf("%d kB: %s", kb, got)
		}
	}
}

func asAny[T any](parse func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return parse(s) }
}

func FuzzParseStats(f *testing.F) {
	for _, s := range []string{"user 12\nsystem 3\n", "0-3,7", "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\n", "8:0 Read 4096\n", "8:0 rbytes=1 wios=2\n", "max 100000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parsePairs(s)
		_, _ = parsePressure(s)
		_, _ = parseBlkio(s)
		_, _, _ = parseIOStat(s)
		if n, err := parseLimit(s, "file"); err == nil && n < 0 {
			t.Errorf("limit %q: %d", s, n)
		}
		if list, err := parseList(s); len(list) > 2<<16 || err == nil && s != "" && len(list) == 0 {
			t.Errorf("list %q: %d numbers, %v", s, len(list), err)
		}
	})
}

// TestStats holds what is read against what a process does.
func TestStats(t *testing.T) {
	testenv.Leaks(t)
	m, f := newManager(t)
	create(t, m, `{"memory":{"limit":67108864},"pids":{"limit":20},"cpu":{"quota":20000,"period":10000}}`)
	cmd := start(t, m, "x=xxxxxxxxxxxxxxxx; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do x=$x$x; done; sleep 1000 & while :; do :; done")
	var s *Stats
	eventually(t, "it uses something", func() bool {
		var err error
		if s, err = m.Stats(); err != nil {
			t.Fatal(err)
		}
		return s.CPU.Usage.Total > 20e6 && s.Memory.Usage.Usage > 4<<20 && s.Pids.Current >= 2
	})
	if s.Memory.Usage.Limit != 64<<20 || s.Pids.Limit != 20 || len(s.Memory.Raw) < 20 || s.CPU.Throttling.Periods == 0 {
		t.Errorf("%+v", s)
	}
	if s.Memory.Swap.Usage < s.Memory.Usage.Usage {
		t.Errorf("memory and swap together %d, memory alone %d", s.Memory.Swap.Usage, s.Memory.Usage.Usage)
	}
	if f.CgroupMode != host.CgroupV2 && (len(s.CPU.Usage.PerCPU) == 0 || len(s.CPUSet.CPUs) == 0) {
		t.Errorf("version 1: %+v", s)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Stats
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, *s) {
		t.Errorf("%v: %s", err, data)
	}
	if !strings.Contains(string(data), `"intel_rdt":{},"network_interfaces":null}`) {
		t.Errorf("%s", data)
	}
	if err := m.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

func TestOOMs(t *testing.T) {
	testenv.Leaks(t)
	m, _ := newManager(t)
	create(t, m, `{"memory":{"limit":16777216,"swap":16777216}}`)
	struck, ended := make(chan bool, 100), make(chan error, 1)
	keep := start(t, m, "exec sleep 1000") // or there would be an end before the beginning
	go func() { ended <- m.OOMs(t.Context(), func() { struck <- true }) }()
	time.Sleep(50 * time.Millisecond) // no harm if it is too short: then there is nothing to hear, and the test fails
	cmd := start(t, m, `x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done`)
	_ = cmd.Wait()
	select {
	case <-struck:
	case <-time.After(10 * time.Second):
		t.Error("nothing was heard of the OOM killer")
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	_ = keep.Wait()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on after the cgroup's end")
	}
	// A caller that has heard enough.
	create(t, m, `{}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.OOMs(ctx, func() {}); err == nil {
		t.Error("no error when the context ended")
	}
}

// The fields that are always there are those that runc always writes.
func TestStatsFields(t *testing.T) {
	got, err := json.Marshal(Stats{Hugetlb: map[string]HugetlbStat{}})
	const want = `{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},` +
		`"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,` +
		`"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},` +
		`"memory":{"usage":{"limit":0,"failcnt":0},"swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0}},` +
		`"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
