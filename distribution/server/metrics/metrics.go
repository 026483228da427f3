// Package metrics counts what a registry of the OCI Distribution Spec does, and
// writes it in Prometheus' text format (version 0.0.4). Counting a request
// costs a look-up and two atomic additions, and no allocation.
package metrics

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// family is one metric with its help, and writes its own samples.
type family interface {
	write(w *bufio.Writer)
}

// Set is a number of metrics. Its methods are safe for concurrent use.
type Set struct {
	mu       sync.Mutex
	families []family
}

func (s *Set) add(f family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = append(s.families, f)
}

// Write writes all metrics, in the order in which they were made.
func (s *Set) Write(w io.Writer) error {
	s.mu.Lock()
	families := s.families
	s.mu.Unlock()
	b := bufio.NewWriter(w)
	for _, f := range families {
		f.write(b)
	}
	return b.Flush()
}

// ServeHTTP implements http.Handler.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	s.Write(w)
}

// named is what each family begins with.
type named struct{ name, kind, help string }

func (n named) head(w *bufio.Writer) {
	help := strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(n.help)
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", n.name, help, n.name, n.kind)
}

// labels are `name="value"` pairs, in the order of names.
func labels(names, values []string) string {
	escape := strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
	pairs := make([]string, len(names))
	for i, name := range names {
		pairs[i] = name + `="` + escape.Replace(values[i]) + `"`
	}
	return strings.Join(pairs, ",")
}

func braces(labels string) string {
	if labels == "" {
		return ""
	}
	return "{" + labels + "}"
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// function is a metric whose value is asked for when it is written.
type function struct {
	named
	value func() float64
}

func (f function) write(w *bufio.Writer) {
	f.head(w)
	fmt.Fprintf(w, "%s %s\n", f.name, number(f.value()))
}

// Gauge adds a value that goes up and down, and is asked for when written.
func (s *Set) Gauge(name, help string, value func() float64) {
	s.add(function{named{name, "gauge", help}, value})
}

// Sample is one value of a metric with one label.
type Sample struct {
	Label string // its value
	Value float64
}

// samples is a metric whose values are asked for when it is written.
type samples struct {
	named
	label string
	all   func() []Sample
}

func (m samples) write(w *bufio.Writer) {
	m.head(w)
	all := m.all()
	for _, sample := range all[:min(len(all), maxSeries)] {
		fmt.Fprintf(w, "%s{%s} %s\n", m.name, labels([]string{m.label}, []string{sample.Label}), number(sample.Value))
	}
}

// Gauges adds a value for each of what a label tells, and all are asked for when
// written.
func (s *Set) Gauges(name, help, label string, all func() []Sample) {
	s.add(samples{named{name, "gauge", help}, label, all})
}

// CounterFunc adds a value that only grows, and is asked for when written.
func (s *Set) CounterFunc(name, help string, value func() float64) {
	s.add(function{named{name, "counter", help}, value})
}

// Counter is a value that only grows, for each set of labels.
type Counter struct {
	named
	names []string
	vec   vector[atomic.Uint64]
}

// Counter adds one; label names follow.
func (s *Set) Counter(name, help string, labelNames ...string) *Counter {
	c := &Counter{named: named{name, "counter", help}, names: labelNames}
	s.add(c)
	return c
}

// Add counts n more, for as many label values as there are names.
func (c *Counter) Add(n uint64, values ...string) { c.vec.get(c.names, values).Add(n) }

func (c *Counter) write(w *bufio.Writer) {
	c.head(w)
	c.vec.each(func(labels string, v *atomic.Uint64) {
		fmt.Fprintf(w, "%s%s %d\n", c.name, braces(labels), v.Load())
	})
}

// maxSeries bounds the label sets of one metric, whatever clients do; what
// comes after is counted as the last one.
const maxSeries = 1000

// vector is a value for each set of labels.
type vector[T any] struct {
	mu     sync.RWMutex
	series map[[4]string]*T
	texts  map[[4]string]string
}

func (v *vector[T]) get(names, values []string) *T {
	var key [4]string // no metric here has more labels
	copy(key[:], values)
	v.mu.RLock()
	found := v.series[key]
	v.mu.RUnlock()
	if found != nil {
		return found
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.series == nil {
		v.series, v.texts = map[[4]string]*T{}, map[[4]string]string{}
	}
	if v.series[key] == nil && len(v.series) >= maxSeries {
		key = [4]string{"other", "other", "other", "other"}
	}
	if v.series[key] == nil {
		v.series[key] = new(T)
		v.texts[key] = labels(names, key[:])
	}
	return v.series[key]
}

func (v *vector[T]) each(f func(labels string, value *T)) {
	type item struct {
		labels string
		value  *T
	}
	v.mu.RLock()
	items := make([]item, 0, len(v.series))
	for key, value := range v.series {
		items = append(items, item{v.texts[key], value})
	}
	v.mu.RUnlock()
	sort.Slice(items, func(i, j int) bool { return items[i].labels < items[j].labels })
	for _, i := range items {
		f(i.labels, i.value)
	}
}

// Histogram counts durations by how long they were, for each set of labels.
type Histogram struct {
	named
	names  []string
	bounds []time.Duration
	vec    vector[buckets]
}

const maxBuckets = 16

type buckets struct {
	counts [maxBuckets + 1]atomic.Uint64
	sumNS  atomic.Int64
}

// Histogram adds one with buckets up to each of bounds, which ascend; there are
// at most 16.
func (s *Set) Histogram(name, help string, bounds []time.Duration, labelNames ...string) *Histogram {
	h := &Histogram{named: named{name, "histogram", help}, names: labelNames, bounds: bounds[:min(len(bounds), maxBuckets)]}
	s.add(h)
	return h
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration, values ...string) {
	i := sort.Search(len(h.bounds), func(i int) bool { return d <= h.bounds[i] })
	b := h.vec.get(h.names, values)
	b.counts[i].Add(1)
	b.sumNS.Add(int64(d))
}

func (h *Histogram) write(w *bufio.Writer) {
	h.head(w)
	h.vec.each(func(labels string, b *buckets) {
		with := func(le string) string {
			if labels == "" {
				return `{le="` + le + `"}`
			}
			return "{" + labels + `,le="` + le + `"}`
		}
		total := uint64(0)
		for i, bound := range h.bounds {
			total += b.counts[i].Load()
			fmt.Fprintf(w, "%s_bucket%s %d\n", h.name, with(number(bound.Seconds())), total)
		}
		total += b.counts[len(h.bounds)].Load()
		fmt.Fprintf(w, "%s_bucket%s %d\n", h.name, with("+Inf"), total)
		fmt.Fprintf(w, "%s_sum%s %s\n", h.name, braces(labels), number(float64(b.sumNS.Load())/1e9))
		fmt.Fprintf(w, "%s_count%s %d\n", h.name, braces(labels), total)
	})
}
