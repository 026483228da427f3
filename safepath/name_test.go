package safepath

import (
	"errors"
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	good := map[string]string{
		"a":           "a",
		"./a/./b//c/": "a/b/c",
		"/etc/passwd": "etc/passwd",
		"///":         ".",
		".":           ".",
		"a/...":       "a/...",
		"..a/b..":     "..a/b..",
		"\xff\xe4":    "\xff\xe4",
		"new\nline":   "new\nline",
	}
	for in, want := range good {
		if got, err := Clean(in); err != nil || got != want {
			t.Errorf("Clean(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"..", "../x", "a/../b", "/..", "a/.."} {
		if got, err := Clean(in); !errors.Is(err, ErrEscapes) {
			t.Errorf("Clean(%q) = %q, %v; want ErrEscapes", in, got, err)
		}
	}
	for _, in := range []string{"", "a\x00b", strings.Repeat("a", maxNameBytes+1)} {
		if got, err := Clean(in); err == nil {
			t.Errorf("Clean(%.20q) = %.20q, want an error", in, got)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "/", "a/b", "./a//b/", "../a", "a/../b", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := Clean(name)
		if err != nil {
			return
		}
		if again, err := Clean(got); err != nil || again != got {
			t.Errorf("Clean(%q) = %q, which cleans to %q, %v", name, got, again, err)
		}
		if got == "." {
			return
		}
		for part := range strings.SplitSeq(got, "/") {
			if checkBase(part) != nil {
				t.Errorf("Clean(%q) = %q has the component %q", name, got, part)
			}
		}
		if dir, base := SplitBase(got); dir != "." && dir+"/"+base != got {
			t.Errorf("SplitBase(%q) = %q, %q", got, dir, base)
		}
	})
}
