// Command registry compares tare serve with Debian's docker-registry (CNCF
// distribution), both with their files on the same disk: processor time per
// request and per GB, throughput, time of a push, and memory.
//
//	go run ./bench/registry [-runs N] [-sync=false]
//
// It needs docker-registry in PATH. The runs are interleaved; the figures are
// medians, the last column is ours divided by theirs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

func main() {
	runs := flag.Int("runs", 3, "interleaved runs of each")
	sync := flag.Bool("sync", true, "tare serve syncs before it acknowledges; docker-registry never does")
	flag.Parse()
	if err := run(context.Background(), *runs, *sync); err != nil {
		fmt.Fprintln(os.Stderr, "bench/registry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, sync bool) error {
	dir, err := os.MkdirTemp("", "tare-bench-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tare := filepath.Join(dir, "tare")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", tare, "./cmd/tare").CombinedOutput(); err != nil {
		return fmt.Errorf("build tare: %w: %s", err, out)
	}
	results := map[string][2][]float64{}
	var order []string
	for range runs {
		for i, start := range []func(dir string) (*server, error){
			func(dir string) (*server, error) { return startTare(tare, dir, sync) }, startDistribution,
		} {
			samples, err := measureOne(ctx, dir, start)
			if err != nil {
				return err
			}
			for _, s := range samples {
				if _, seen := results[s.name]; !seen {
					order = append(order, s.name)
				}
				both := results[s.name]
				both[i] = append(both[i], s.value)
				results[s.name] = both
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 1, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\ttare serve\tdocker-registry\tratio\t")
	for _, name := range order {
		ours, theirs := median(results[name][0]), median(results[name][1])
		fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%.2f\t\n", name, ours, theirs, ours/theirs)
	}
	return w.Flush()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// measureOne starts a registry on a fresh directory and takes all figures of it.
func measureOne(ctx context.Context, dir string, start func(string) (*server, error)) ([]sample, error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	s, err := start(data)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	l := &load{server: s, ctx: ctx}
	l.all()
	return l.samples, l.err
}
