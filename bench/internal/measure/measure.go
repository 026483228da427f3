// Package measure runs named commands or functions in turn and compares them: median wall time, CPU time and peak
// memory of each, as ratios to the first. The runs are interleaved, so that whatever else the machine does falls on all
// of them alike, and in each round the order is another one: what a command leaves the kernel to clean up is paid for by
// the next, and that shall not always be the same.
package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Case is one thing to measure. Exactly one of Command, Sequences and Func is set.
type Case struct {
	Name string
	// Stage keeps cases apart of which one goes on where another has led: in each round those of a lower stage come
	// first, and only those of the same stage are mixed.
	Stage int

	// Setup, if set, runs before each run, untimed. Run counts from 0, and -1 is the warm-up.
	Setup func(ctx context.Context, run int) error
	// Command makes the command of one run. Its CPU time and memory include the children it waited for. Standard output
	// is discarded and standard error kept for the error message, unless the command brings its own.
	Command func(ctx context.Context, run int) (*exec.Cmd, error)
	// Sequences makes the commands of one run: those of a sequence run one after another, the sequences side by side. The
	// wall time is that of the whole, the CPU time the sum, the peak memory the largest.
	Sequences func(ctx context.Context, run int) ([][]*exec.Cmd, error)
	// Func is measured inside this process; its CPU time includes that of children it waited for. Peak memory is not
	// known for it.
	Func func(ctx context.Context, run int) error
	// Cleanup, if set, runs after each run, untimed, also when the run failed.
	Cleanup func(ctx context.Context, run int) error
}

// Sample is what one run cost.
type Sample struct {
	Wall, CPU time.Duration
	// PeakBytes is the largest resident set of the process or one of its waited-for children. A process inherits the
	// peak of the one that it was forked from, which is this one; so a smaller peak than our own is not known, and 0.
	PeakBytes int64
}

// Row is one case's outcome.
type Row struct {
	Name    string
	Samples []Sample
}

// Table is the outcome of Compare, in the order of the cases. Ratios are those of the first row to the others.
type Table struct {
	Rows []Row
}

// Compare runs every case once to warm up, then runs times more, interleaved.
func Compare(ctx context.Context, runs int, cases []Case) (Table, error) {
	return compare(ctx, -1, runs, cases)
}

// CompareCold is Compare without the warm-up: for work that is large or leaves much behind.
func CompareCold(ctx context.Context, runs int, cases []Case) (Table, error) {
	return compare(ctx, 0, runs, cases)
}

func compare(ctx context.Context, first, runs int, cases []Case) (Table, error) {
	table := Table{Rows: make([]Row, len(cases))}
	for i, c := range cases {
		set := 0
		for _, is := range []bool{c.Command != nil, c.Sequences != nil, c.Func != nil} {
			if is {
				set++
			}
		}
		if set != 1 {
			return Table{}, fmt.Errorf("measure %s: exactly one of Command, Sequences and Func must be set", c.Name)
		}
		table.Rows[i].Name = c.Name
	}
	for run := first; run < runs; run++ {
		for _, i := range order(run, cases) {
			c := cases[i]
			if err := ctx.Err(); err != nil {
				return Table{}, err
			}
			s, err := once(ctx, c, run)
			if err != nil {
				return Table{}, fmt.Errorf("measure %s: run %d: %w", c.Name, run, err)
			}
			if run >= 0 {
				table.Rows[i].Samples = append(table.Rows[i].Samples, s)
			}
		}
	}
	return table, nil
}

// order is that of the cases in a round. It is seeded, so that every invocation measures the same.
func order(run int, cases []Case) []int {
	mixed := rand.New(rand.NewPCG(uint64(run), 0)).Perm(len(cases))
	slices.SortStableFunc(mixed, func(a, b int) int { return cases[a].Stage - cases[b].Stage })
	return mixed
}

func once(ctx context.Context, c Case, run int) (s Sample, err error) {
	if c.Setup != nil {
		if err := c.Setup(ctx, run); err != nil {
			return s, fmt.Errorf("set up: %w", err)
		}
	}
	if c.Cleanup != nil {
		defer func() {
			// The context may be what ended the run; cleaning up has to happen all the same.
			if cerr := c.Cleanup(context.WithoutCancel(ctx), run); cerr != nil {
				err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
			}
		}()
	}
	if c.Func != nil {
		return timeFunc(ctx, c.Func, run)
	}
	if c.Command != nil {
		cmd, err := c.Command(ctx, run)
		if err != nil {
			return s, err
		}
		return Run(cmd)
	}
	sequences, err := c.Sequences(ctx, run)
	if err != nil {
		return s, err
	}
	return timeSequences(sequences)
}

func timeSequences(sequences [][]*exec.Cmd) (sum Sample, err error) {
	samples, errs := make([]Sample, len(sequences)), make([]error, len(sequences))
	var all sync.WaitGroup
	start := time.Now()
	for i, sequence := range sequences {
		all.Go(func() {
			for _, cmd := range sequence {
				s, err := Run(cmd)
				if err != nil {
					errs[i] = err
					return
				}
				samples[i].CPU += s.CPU
				samples[i].PeakBytes = max(samples[i].PeakBytes, s.PeakBytes)
			}
		})
	}
	all.Wait()
	sum.Wall = time.Since(start)
	for _, s := range samples {
		sum.CPU += s.CPU
		sum.PeakBytes = max(sum.PeakBytes, s.PeakBytes)
	}
	return sum, errors.Join(errs...)
}

// Run runs one command and says what it cost. What the command leaves running does not hold it up: standard error is
// kept in a file, not read from a pipe.
func Run(cmd *exec.Cmd) (s Sample, err error) {
	if cmd.Stderr == nil {
		log, err := os.CreateTemp("", "tare-bench-stderr-")
		if err != nil {
			return s, err
		}
		defer log.Close()
		if err := os.Remove(log.Name()); err != nil {
			return s, err
		}
		cmd.Stderr = log
	}
	start := time.Now()
	err = cmd.Run()
	s.Wall = time.Since(start)
	if err != nil {
		return s, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(cmd.Stderr))
	}
	s.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		if peak := int64(ru.Maxrss) * 1024; peak > ownPeakBytes() { // Linux counts in KiB
			s.PeakBytes = peak
		}
	}
	return s, nil
}

// ownPeakBytes is the largest resident set this process has had. Its getrusage would do, were that not inherited, too.
func ownPeakBytes() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return math.MaxInt64
	}
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscan(string(after), &kib); err != nil {
		return math.MaxInt64
	}
	return kib * 1024
}

func timeFunc(ctx context.Context, f func(context.Context, int) error, run int) (Sample, error) {
	cpu, err := cpuTime()
	if err != nil {
		return Sample{}, err
	}
	start := time.Now()
	err = f(ctx, run)
	s := Sample{Wall: time.Since(start)}
	if err != nil {
		return s, err
	}
	after, err := cpuTime()
	s.CPU = after - cpu
	return s, err
}

// cpuTime is what this process and the children it has waited for have used so far.
func cpuTime() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var ru syscall.Rusage
		if err := syscall.Getrusage(who, &ru); err != nil {
			return 0, fmt.Errorf("getrusage: %w", err)
		}
		sum += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	return sum, nil
}

// tail is the end of what a command wrote to the file that Run gave it.
func tail(stderr any) string {
	log, ok := stderr.(*os.File)
	if !ok {
		return ""
	}
	const maxBytes = 2000
	text := make([]byte, maxBytes)
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	n, _ := log.ReadAt(text, max(0, end-maxBytes)) // io.EOF where there is less
	return strings.TrimSpace(string(text[:n]))
}

// Median is the median of each figure by itself.
func (r Row) Median() Sample {
	return Sample{
		Wall:      median(r.Samples, func(s Sample) time.Duration { return s.Wall }),
		CPU:       median(r.Samples, func(s Sample) time.Duration { return s.CPU }),
		PeakBytes: median(r.Samples, func(s Sample) int64 { return s.PeakBytes }),
	}
}

func median[T ~int64](samples []Sample, of func(Sample) T) T {
	if len(samples) == 0 {
		return 0
	}
	v := make([]T, len(samples))
	for i, s := range samples {
		v[i] = of(s)
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Ratio is the first row's median wall and CPU time divided by the named row's: 0.5 means the first takes half as long.
func (t Table) Ratio(name string) (wall, cpu float64, err error) {
	i := slices.IndexFunc(t.Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return 0, 0, fmt.Errorf("measure: no case named %q", name)
	}
	ours, theirs := t.Rows[0].Median(), t.Rows[i].Median()
	return ratio(int64(ours.Wall), int64(theirs.Wall)), ratio(int64(ours.CPU), int64(theirs.CPU)), nil
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// String is the table as text: one line a case, with the ratio of the first to it.
func (t Table) String() string {
	if len(t.Rows) == 0 {
		return ""
	}
	width := len("median of 000")
	for _, r := range t.Rows {
		width = max(width, len(r.Name))
	}
	var b strings.Builder
	first := t.Rows[0]
	fmt.Fprintf(&b, "%-*s %10s %10s %9s %12s %12s\n", width, fmt.Sprintf("median of %d", len(first.Samples)),
		"wall ms", "cpu ms", "peak MB", "wall ratio", "cpu ratio")
	ours := first.Median()
	for i, r := range t.Rows {
		m := r.Median()
		peak, wall, cpu := "-", "1", "1"
		if m.PeakBytes > 0 {
			peak = fmt.Sprintf("%.1f", float64(m.PeakBytes)/1e6)
		}
		if i > 0 {
			wall = fmt.Sprintf("%.3f", ratio(int64(ours.Wall), int64(m.Wall)))
			cpu = fmt.Sprintf("%.3f", ratio(int64(ours.CPU), int64(m.CPU)))
		}
		fmt.Fprintf(&b, "%-*s %10.2f %10.2f %9s %12s %12s\n", width, r.Name, ms(m.Wall), ms(m.CPU), peak, wall, cpu)
	}
	fmt.Fprintf(&b, "(ratio: %s divided by the line's; below 1, %[1]s is the faster)\n", first.Name)
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
