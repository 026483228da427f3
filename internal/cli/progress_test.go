package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// vt is a terminal, as far as screen uses one. Like most it wraps long lines,
// and breaks and joins them anew when its width changes.
type vt struct {
	columns, rows int
	lines         []string // each ended by a line feed
	row           int      // of the cursor, in lines
	hidden        bool
}

var sequence = regexp.MustCompile(`^\x1b\[(\??)([0-9]*)([A-Za-z])`)

// physical is how many rows a line takes.
func (v *vt) physical(line string) int {
	return max(1, (utf8.RuneCountInString(line)+v.columns-1)/v.columns)
}

func (v *vt) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		if m := sequence.FindStringSubmatch(text); m != nil {
			v.control(m[1]+m[3], m[2])
			text = text[len(m[0]):]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		switch r {
		case '\r': // screen writes whole lines
		case '\n':
			v.row++
			v.grow()
		default:
			v.grow()
			v.lines[v.row] += string(r)
		}
	}
	return len(p), nil
}

func (v *vt) grow() {
	for len(v.lines) <= v.row {
		v.lines = append(v.lines, "")
	}
}

func (v *vt) control(kind, number string) {
	switch n, _ := strconv.Atoi(number); kind {
	case "A":
		for n > 0 && v.row > 0 {
			v.row--
			n -= v.physical(v.lines[v.row])
		}
		// What is above the cursor now is written over from its beginning.
		for i := v.row; i < len(v.lines); i++ {
			v.lines[i] = ""
		}
	case "J":
		v.lines = v.lines[:min(len(v.lines), v.row+1)]
	case "?l", "?h":
		v.hidden = kind == "?l"
	}
}

func (v *vt) size() (int, int) { return v.columns, v.rows }

func (v *vt) String() string { return strings.TrimRight(strings.Join(v.lines, "\n"), "\n") }

// testProgress is a display without a clock of its own.
func testProgress(v *vt) (*progress, *time.Time) {
	now := time.Unix(1_700_000_000, 0)
	p := &progress{now: func() time.Time { return now }, utf8: true, screen: &screen{w: v, size: v.size}}
	p.begin("Pulling x")
	return p, &now
}

func TestProgressIsRedrawnInPlace(t *testing.T) {
	v := &vt{columns: 100, rows: 24}
	fmt.Fprint(v, "before\n")
	p, now := testProgress(v)
	p.set("aaaaaaaaaaaa", fetching, 0, 100e6)
	p.set("bbbbbbbbbbbb", waiting, 0, 4000)
	for i := range 10 {
		*now = now.Add(100 * time.Millisecond)
		p.set("aaaaaaaaaaaa", fetching, int64(i)*5e6, 100e6)
		p.draw()
	}
	want := `before
Pulling x
  aaaaaaaaaaaa  ━━━━━━━━━━━━━━━━━╸──────────────────────   45 MB / 100 MB  50 MB/s
  bbbbbbbbbbbb  ────────────────────────────────────────           4.0 kB  waiting
  all           ━━━━━━━━━━━━━━━━╸───────────────────────   45 MB / 100 MB  50 MB/s, 1s left`
	if got := v.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	*now = now.Add(time.Second)
	p.set("aaaaaaaaaaaa", done, 100e6, 100e6)
	p.set("bbbbbbbbbbbb", present, 4000, 4000)
	p.ended = true
	p.draw()
	want = `before
Pulling x
  aaaaaaaaaaaa  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━           100 MB  2.0 s
  bbbbbbbbbbbb  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━           4.0 kB  here already`
	if got := v.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if v.hidden {
		t.Error("the cursor is hidden")
	}
}

// TestProgressOnAnyTerminal: whatever the width, however it changes, no line is
// broken and nothing of an earlier drawing stays.
func TestProgressOnAnyTerminal(t *testing.T) {
	v := &vt{columns: 120, rows: 24}
	p, now := testProgress(v)
	for i, columns := range []int{120, 60, 33, 200, 10, 2, 80, 79, 40} {
		v.columns = columns
		*now = now.Add(time.Second)
		for n := range 3 {
			p.set(strings.Repeat(string(rune('a'+n)), 12), fetching, int64(i)*1e6, 100e6)
		}
		p.draw()
		if n := len(v.lines); n != 6 {
			t.Errorf("%d columns: %d lines, want title, 3 blobs, sum and the cursor's:\n%s", columns, n, v)
		}
		for _, l := range v.lines {
			if v.physical(l) > 1 {
				t.Errorf("%d columns: broken: %s", columns, l)
			}
		}
	}
}

func TestProgressOnALowTerminal(t *testing.T) {
	v := &vt{columns: 80, rows: 8}
	p, _ := testProgress(v)
	for n := range 10 {
		p.set(fmt.Sprintf("%012d", n), []transferState{done, fetching, waiting}[n%3], 1, 2)
	}
	p.draw()
	got := v.String()
	if n := strings.Count(got, "\n") + 1; n > 7 {
		t.Errorf("%d lines on %d rows:\n%s", n, v.rows, got)
	}
	for _, want := range []string{"000000000001", "000000000004", "000000000007", "and 6 more"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}
}

// TestProgressInALog: a line at the beginning, one at the end, and nothing that
// moves a cursor.
func TestProgressInALog(t *testing.T) {
	var log strings.Builder
	now := time.Unix(1_700_000_000, 0)
	p := &progress{now: func() time.Time { return now }, line: func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) }}
	p.begin("Pulling x")
	p.set("aaaaaaaaaaaa", fetching, 0, 5e6)
	for i := range 50 {
		p.set("aaaaaaaaaaaa", fetching, int64(i)*1e5, 5e6)
	}
	now = now.Add(1500 * time.Millisecond)
	p.set("aaaaaaaaaaaa", unpacking, 5e6, 5e6)
	p.set("bbbbbbbbbbbb", reusing, 10, 10)
	p.set("bbbbbbbbbbbb", present, 10, 10)
	p.set("aaaaaaaaaaaa", done, 5e6, 5e6)
	p.close()
	want := `Pulling x
  aaaaaaaaaaaa: fetching 5.0 MB
  bbbbbbbbbbbb: here already
  aaaaaaaaaaaa: done in 1.5 s
`
	if log.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &log, want)
	}
}

func TestColorIsOptional(t *testing.T) {
	l := line{{"ab", green}, {"cdef", plain}}
	for _, c := range []struct {
		width int
		color bool
		want  string
	}{{80, false, "abcdef"}, {3, false, "abc"}, {3, true, "\x1b[32mab\x1b[0mc"}, {0, true, ""}} {
		if got, _ := l.render(c.width, c.color); got != c.want {
			t.Errorf("width %d, color %t: %q, want %q", c.width, c.color, got, c.want)
		}
	}
}

func TestSpeaksUTF8(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{"LANG": "C.UTF-8"}, true}, {map[string]string{"LANG": "de_DE.utf8"}, true}, {map[string]string{"LANG": "C"}, false},
		{map[string]string{"LANG": "C.UTF-8", "LC_ALL": "POSIX"}, false}, {nil, true},
	} {
		if got := speaksUTF8(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %t", c.env, got)
		}
	}
}
