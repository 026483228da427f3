package metrics

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func text(s *Set) string {
	var b strings.Builder
	s.Write(&b)
	return b.String()
}

func TestText(t *testing.T) {
	s := &Set{}
	c := s.Counter("c_total", "Help with \\ and\nline.", "a", "b")
	s.Gauge("g", "Gauge.", func() float64 { return 0.5 })
	h := s.Histogram("h_seconds", "Histogram.", []time.Duration{time.Millisecond, time.Second}, "a")
	plain := s.Counter("p_total", "Plain.")
	c.Add(2, "x", "1")
	c.Add(3, "x", "1")
	c.Add(1, "a\"\\\n", "2")
	h.Observe(time.Millisecond, "x")
	h.Observe(time.Hour, "x")
	plain.Add(7)
	want := `# HELP c_total Help with \\ and\nline.
# TYPE c_total counter
c_total{a="a\"\\\n",b="2"} 1
c_total{a="x",b="1"} 5
# HELP g Gauge.
# TYPE g gauge
g 0.5
# HELP h_seconds Histogram.
# TYPE h_seconds histogram
h_seconds_bucket{a="x",le="0.001"} 1
h_seconds_bucket{a="x",le="1"} 1
h_seconds_bucket{a="x",le="+Inf"} 2
h_seconds_sum{a="x"} 3600.001
h_seconds_count{a="x"} 2
# HELP p_total Plain.
# TYPE p_total counter
p_total 7
`
	if got := text(s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCountingIsSafeAndBounded(t *testing.T) {
	s := &Set{}
	c := s.Counter("c_total", "Help.", "a")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 5000 {
				c.Add(1, strconv.Itoa(i))
			}
		})
	}
	group.Wait()
	lines := strings.Split(strings.TrimSpace(text(s)), "\n")[2:]
	sum := 0
	for _, l := range lines {
		n, err := strconv.Atoi(l[strings.LastIndexByte(l, ' ')+1:])
		if err != nil {
			t.Fatal(l)
		}
		sum += n
	}
	if len(lines) != maxSeries+1 || sum != 20_000 {
		t.Errorf("%d series of %d", len(lines), sum)
	}
}

func TestProcess(t *testing.T) {
	s := &Set{}
	s.Process()
	for _, line := range strings.Split(strings.TrimSpace(text(s)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		if v, err := strconv.ParseFloat(value, 64); err != nil || v <= 0 {
			t.Errorf("%s is %s", name, value)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != 405 {
		t.Error(w.Code)
	}
}
