package rdt

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fake is a directory tree with what the kernel puts into new groups.
func fake(t *testing.T) tree {
	t.Helper()
	x := tree{root: t.TempDir(), rmdir: os.RemoveAll}
	x.mkdir = func(dir string, mode uint32) error {
		if err := unix.Mkdir(dir, mode); err != nil {
			return err
		}
		files := map[string]string{"tasks": ""}
		if filepath.Base(filepath.Dir(dir)) != "mon_groups" {
			files["schemata"] = "    L3:0=fff;1=fff\n    MB:0=100;1=100\n"
			if err := unix.Mkdir(filepath.Join(dir, "mon_groups"), 0o755); err != nil {
				return err
			}
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	x.put(t, "info/last_cmd_status", "ok\n")
	x.put(t, "schemata", "L3:0=fff\n")
	x.put(t, "tasks", "")
	if err := unix.Mkdir(filepath.Join(x.root, "mon_groups"), 0o755); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x tree) put(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(x.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// all are the files below the root, with what is in those that have anything.
func (x tree) all(t *testing.T) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(x.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/info/") {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(x.root, path)
		if len(text) > 0 {
			name += "=" + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "|")
		}
		list = append(list, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func create(x tree, c *specs.LinuxIntelRdt) (*Group, error) {
	g, err := x.find("c1", c)
	if err != nil {
		return nil, err
	}
	return g, g.Create(c)
}

// The rules of config-linux.md, "IntelRdt".
func TestCreate(t *testing.T) {
	const untouched = "schemata=L3:0=fff tasks"
	for _, c := range []struct {
		name   string
		config specs.LinuxIntelRdt
		have   string // class "there" with this schemata
		want   string // what there is with process 7 in it
		left   string // and after the container is gone
		err    string
	}{
		{name: "its own class", want: "c1/schemata=L3:0=fff;1=fff|    MB:0=100;1=100 c1/tasks=7 " + untouched, left: untouched},
		{name: "its own class, with shares", config: specs.LinuxIntelRdt{MemBwSchema: "MB:0=20", L3CacheSchema: "L3:0=f", Schemata: []string{"L2:0=1", "L2:1=2"}},
			want: "c1/schemata=L3:0=f|MB:0=20|L2:0=1|L2:1=2 c1/tasks=7 " + untouched, left: untouched},
		{name: "its own class, measured", config: specs.LinuxIntelRdt{EnableMonitoring: true},
			want: "c1/mon_groups/c1/tasks=7 c1/schemata=L3:0=fff;1=fff|    MB:0=100;1=100 c1/tasks=7 " + untouched, left: untouched},
		{name: "the default class", config: specs.LinuxIntelRdt{ClosID: "/", EnableMonitoring: true},
			want: "mon_groups/c1/tasks=7 schemata=L3:0=fff tasks=7", left: "schemata=L3:0=fff tasks=7"},
		{name: "a class that is there", config: specs.LinuxIntelRdt{ClosID: "there"}, have: "MB:0=10\n",
			want: untouched + " there/schemata=MB:0=10 there/tasks=7", left: untouched + " there/schemata=MB:0=10 there/tasks=7"},
		{name: "a class that is there, of that share", config: specs.LinuxIntelRdt{ClosID: "there", L3CacheSchema: "L3:1=0F;0=ff"}, have: "    L3:0=0ff;1=00f\n",
			want: untouched + " there/schemata=L3:1=0F;0=ff there/tasks=7", left: untouched + " there/schemata=L3:1=0F;0=ff there/tasks=7"},
		{name: "a class that is there, of another share", config: specs.LinuxIntelRdt{ClosID: "there", MemBwSchema: "MB:0=20"}, have: "MB:0=10\n",
			err: "memBwSchema: class ROOT/there has MB:0=10, not 20", left: untouched + " there/schemata=MB:0=10 there/tasks"},
		{name: "a new class", config: specs.LinuxIntelRdt{ClosID: "new", Schemata: []string{"MB:0=30"}},
			want: "new/schemata=MB:0=30 new/tasks=7 " + untouched, left: "new/schemata=MB:0=30 new/tasks=7 " + untouched},
		{name: "a class that is missing", config: specs.LinuxIntelRdt{ClosID: "none"}, left: untouched,
			err: `closID: there is no class "none", and nothing that says what a new one should be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := fake(t)
			if c.have != "" {
				x.put(t, "there/schemata", c.have)
				x.put(t, "there/tasks", "")
			}
			g, err := create(x, &c.config)
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), x.root, "ROOT")
			}
			if got != c.err {
				t.Fatalf("error %q, want %q", got, c.err)
			}
			if err == nil {
				if err := g.Add(7); err != nil {
					t.Fatal(err)
				}
				if got := x.all(t); got != c.want {
					t.Errorf("with the container\n%s, want\n%s", got, c.want)
				}
				if err := errors.Join(g.remove(x.rmdir), g.remove(x.rmdir)); err != nil {
					t.Error(err)
				}
			}
			if got := x.all(t); got != c.left {
				t.Errorf("afterwards\n%s, want\n%s", got, c.left)
			}
		})
	}
}

// What fails says what the kernel has said, and leaves nothing.
func TestCreateFails(t *testing.T) {
	x := fake(t)
	before := x.all(t)
	mkdir := x.mkdir
	x.mkdir = func(dir string, mode uint32) error {
		if strings.Contains(dir, "mon_groups/") {
			x.put(t, "info/last_cmd_status", "Out of RMIDs\n")
			return unix.ENOSPC
		}
		return mkdir(dir, mode)
	}
	_, err := create(x, &specs.LinuxIntelRdt{EnableMonitoring: true})
	var field *FieldError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &field) || field.Field != "enableMonitoring" || !strings.Contains(err.Error(), "Out of RMIDs") {
		t.Errorf("%v", err)
	}
	if got := x.all(t); got != before {
		t.Errorf("left %s", got)
	}
}

func TestUpdate(t *testing.T) {
	x := fake(t)
	g, err := create(x, &specs.LinuxIntelRdt{})
	if err == nil {
		err = g.Update(&specs.LinuxIntelRdt{MemBwSchema: "MB:0=50"})
	}
	if got, rerr := readAll(filepath.Join(g.Class, "schemata")); err != nil || rerr != nil || got != "MB:0=50\n" {
		t.Errorf("%q, %v, %v", got, err, rerr)
	}
}

func TestFindMount(t *testing.T) {
	const mounts = "22 1 0:5 / /proc rw,nosuid - proc proc rw\n" +
		"30 22 0:25 / /mnt/my\\040rdt rw,relatime shared:9 - resctrl resctrl rw,cdp\n"
	if got, err := findMount(strings.NewReader(mounts)); err != nil || got != "/mnt/my rdt" {
		t.Errorf("%q, %v", got, err)
	}
	for _, none := range []string{"", "22 1 0:5 / /resctrl rw - proc resctrl rw\n", "x - resctrl\n"} {
		if got, err := findMount(strings.NewReader(none)); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%q: %q, %v", none, got, err)
		}
	}
}

// FuzzShares: whatever a class says, numbers come without padding, so that equal
// ones are equal.
func FuzzShares(f *testing.F) {
	f.Add("    L3:0=0ff;1=00f\nMB:0= 20\n")
	f.Fuzz(func(t *testing.T, schemata string) {
		for share, value := range shares(schemata) {
			if value == "" || value != plain(value) || value != strings.ToLower(value) {
				t.Errorf("%q: %s=%q", schemata, share, value)
			}
		}
	})
}

func TestStats(t *testing.T) {
	x := fake(t)
	g, err := create(x, &specs.LinuxIntelRdt{EnableMonitoring: true, L3CacheSchema: "L3:0=f"})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"info/L3/cbm_mask": "fff\n", "info/L3/min_cbm_bits": "2\n", "info/L3/num_closids": "16\n", "info/MB/min_bandwidth": "10\n",
		"c1/schemata": "    L3:0=00f;1=fff\n    MB:0=100;1= 20\n",
		"c1/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy": "4096\n", "c1/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy": "Unavailable\n",
		"c1/mon_groups/c1/mon_data/mon_L3_00/mbm_total_bytes": "70\n", "c1/mon_groups/c1/mon_data/mon_L3_00/mbm_local_bytes": "60\n",
	} {
		x.put(t, name, text)
	}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"l3_cache_info":{"cbm_mask":"fff","min_cbm_bits":2,"num_closids":16},"l3_cache_schema_root":"L3:0=fff","l3_cache_schema":"L3:0=00f;1=fff",` +
		`"mem_bw_info":{"min_bandwidth":10},"mem_bw_schema":"MB:0=100;1= 20","mbm_stats":[{"mbm_total_bytes":70,"mbm_local_bytes":60}],` +
		`"cmt_stats":[{"llc_occupancy":4096},{"llc_occupancy":0}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	x.put(t, "info/L3/num_closids", "many")
	if _, err := g.Stats(); err == nil || !strings.Contains(err.Error(), "info/L3/num_closids") {
		t.Errorf("a number that is none: %v", err)
	}
}
