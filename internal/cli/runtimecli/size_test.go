package runtimecli

import "testing"

// TestParseSize has runc's results (docker/go-units, RAMInBytes).
func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"-1": -1, "0": 0, "32": 32, "32B": 32, "32k": 32 << 10, "32K": 32 << 10, "32kb": 32 << 10, "32KiB": 32 << 10, "32Mb": 32 << 20,
		"32m": 32 << 20, "32 MiB": 32 << 20, "1.5g": 3 << 29, "32.5kB": 33280, ".3kB": 307, "1t": 1 << 40, "2P": 2 << 50, "32.": 32, "32 ": 32,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "k", " 32", "32  k", "32k ", "-2", "-32m", "+1", "1e9", "0x10", "1_000", "32mm", "32bb", "32ki", "32bi", "1.2.3", "9e", "8192p",
		"99999999999999999999", "NaN", "Inf"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: got %d", in, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"-1", "12", "1.5g", "32 MiB", "9p", "1e3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n < -1 {
			t.Errorf("%q: %d", s, n)
		}
	})
}
