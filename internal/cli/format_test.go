package cli

import (
	"bufio"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSizeText(t *testing.T) {
	for size, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB",
		215_000_000: "215 MB", 1_500_000_000: "1.5 GB", math.MaxInt64: "9.2 EB",
	} {
		if got := sizeText(size); got != want {
			t.Errorf("%d: %s, want %s", size, got, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		900 * time.Nanosecond: "1 µs", 1500 * time.Microsecond: "1.5 ms", 25 * time.Millisecond: "25 ms",
		2340 * time.Millisecond: "2.3 s", 185 * time.Second: "3m5s",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestAgoText(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		time.Second: "just now", time.Minute: "1 minute ago", 25 * time.Hour: "1 day ago", 15 * 24 * time.Hour: "2 weeks ago",
		800 * 24 * time.Hour: "2 years ago", -time.Hour: "just now",
		-48 * time.Hour: "2026-05-03",
	} {
		if got := agoText(now.Add(-ago), now); got != want {
			t.Errorf("%v: %s, want %s", ago, got, want)
		}
	}
	for _, nothing := range []time.Time{{}, time.Unix(0, 0)} {
		if got := agoText(nothing, now); got != "-" {
			t.Errorf("%v: %s", nothing, got)
		}
	}
}

// TestPrintable: nothing that others wrote drives the terminal, forges a line or
// makes text read the other way round.
func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain, ünïcode 日本 👩‍🚀": "plain, ünïcode 日本 👩‍🚀",
		"\x1b[2J\a\r\n\t\x7f":   "?[2J?????",
		"\u009b31m":             "?31m",
		"\x9b31m":               "\ufffd31m", // the same in one byte
		"a\u202eb\u2066c\u200f": "a?b?c?",
		"a\u2028b\u2029":        "a?b?",
	} {
		if got := printable(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "7b": 7, "512k": 512 << 10, "64m": 64 << 20, "64M": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20,
		"1.5g": 3 << 29, "2t": 2 << 40,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-1m", "+1", "1e9", "64x", "6 4m", "64mk", "64i", "0x10", "inf", "nan", "99999999t", "1..5", "."} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"64m", "1.5g", "99999999999999999t", "-1", "1e5", "..", "bkmgti"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n < 0 {
			t.Errorf("%q: %d", s, n)
		}
	})
}

func TestParseEnvFile(t *testing.T) {
	got, err := parseEnvFile(bufio.NewScanner(strings.NewReader("# a comment\n\nA=1\n  B=two words # kept\nC\nD=\nE='x'\n")))
	if want := []string{"A=1", "B=two words # kept", "C", "D=", "E='x'"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"=x", "a b=1", "A=\x00", "A=1\nx y"} {
		if got, err := parseEnvFile(bufio.NewScanner(strings.NewReader(bad))); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\n#x\nB")
	f.Add("=\n \t=")
	f.Fuzz(func(t *testing.T, s string) {
		env, err := parseEnvFile(bufio.NewScanner(strings.NewReader(s)))
		if err != nil {
			return
		}
		for _, e := range env {
			if name, _, _ := strings.Cut(e, "="); name == "" || strings.ContainsAny(e, "\n\x00") {
				t.Errorf("%q", e)
			}
		}
	})
}

func TestQuoted(t *testing.T) {
	if got, want := quoted([]string{"/bin/sh", "-c", "echo hi", ""}), `/bin/sh -c "echo hi" ""`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
