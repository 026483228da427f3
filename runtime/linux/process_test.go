package linux

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":                "[net ipv4 ip_forward]",
		"net/ipv4/ip_forward":                "[net ipv4 ip_forward]",
		"net/ipv4/conf/eth0.1/forwarding":    "[net ipv4 conf eth0.1 forwarding]",
		"net.ipv4.conf.eth0/1.forwarding":    "[net ipv4 conf eth0.1 forwarding]",
		"net":                                "[]",
		"":                                   "[]",
		"/net/x":                             "[]",
		"net..x":                             "[]",
		"net/./x":                            "[]",
		"net.a\x00b":                         "[]",
		"net.///.x":                          "[net ... x]",
		"kernel/../../../etc/passwd":         "[]",
		"net.ipv4.//.//.kernel.core_pattern": "[]",
	} {
		if got := fmt.Sprint(SysctlPath(name)); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

// FuzzSysctlPath: whatever the name, its path stays below its root, and a
// namespace is told only of a path.
func FuzzSysctlPath(f *testing.F) {
	f.Add("net.ipv4.conf.eth0/1.forwarding")
	f.Add("net/../x")
	f.Fuzz(func(t *testing.T, name string) {
		p := SysctlPath(name)
		if slices.ContainsFunc(p, func(e string) bool { return e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00") }) {
			t.Errorf("%q: %q", name, p)
		}
		if _, ok := SysctlNamespace(p); ok && p == nil {
			t.Errorf("%q belongs to a namespace", name)
		}
	})
}

func TestNumberLists(t *testing.T) {
	for list, want := range map[string]string{
		"":               "",
		"0":              "0",
		"0-3,7":          "0-3,7",
		"7,1-2, 0 ,,3":   "0-3,7",
		"62-65,200":      "62-65,200",
		"99":             "99",
		"0-":             `"0-" is not a list such as 0-3,7`,
		"-1":             `"-1" is not a list such as 0-3,7`,
		"3-1":            `"3-1" is not a list such as 0-3,7`,
		"+1":             `"+1" is not a list such as 0-3,7`,
		"1-2-3":          `"1-2-3" is not a list such as 0-3,7`,
		"0-4294967295":   "4294967295 is larger than 255",
		"256":            "256 is larger than 255",
		"99999999999999": `"99999999999999" is not a list such as 0-3,7`,
	} {
		got := ""
		if set, err := ParseNumbers(list, 256); err != nil {
			got = err.Error()
		} else {
			got = set.String()
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", list, got, want)
		}
	}
}

// FuzzNumbers: what is read prints itself so that it is read again.
func FuzzNumbers(f *testing.F) {
	f.Add("0-3,7")
	f.Add(" 1,,8191")
	f.Fuzz(func(t *testing.T, list string) {
		set, err := ParseNumbers(list, MaxCPUs)
		if err != nil {
			return
		}
		again, err := ParseNumbers(set.String(), MaxCPUs)
		if err != nil || !slices.Equal(set, again) {
			t.Errorf("%q: %q is read as %v, %v", list, set, again, err)
		}
	})
}

func TestSchedulingNames(t *testing.T) {
	for _, c := range []struct {
		table func(string) (uint64, bool)
		name  string
		want  uint64
	}{
		{SchedPolicy, "SCHED_DEADLINE", 6}, {SchedFlag, "SCHED_FLAG_UTIL_CLAMP_MAX", 0x40}, {IOPriorityClass, "IOPRIO_CLASS_IDLE", 3},
		{MemoryPolicy, "MPOL_WEIGHTED_INTERLEAVE", 6}, {MemoryPolicyFlag, "MPOL_F_STATIC_NODES", 1 << 15}, {Personality, "LINUX32", 8},
	} {
		if got, ok := c.table(c.name); !ok || got != c.want {
			t.Errorf("%s: got %d, %v", c.name, got, ok)
		}
		if _, ok := c.table(strings.ToLower(c.name)); ok {
			t.Errorf("%s: names are spelled exactly", c.name)
		}
	}
}
