// Command registry compares tare serve with Debian's docker-registry (CNCF
// distribution 2), and with CNCF distribution 3 ("registry") and zot where they are
// in PATH, all with their files on the same disk: processor time per request and per
// GB, throughput, time of a push, memory, and how many repositories weigh.
//
//	go run ./bench/registry [-runs N] [-sync=false] [-repositories N]
//
// Processor time per manifest is also that of a Go handler that answers from memory,
// which no registry written in Go can be better than. Runs are interleaved, each on a
// fresh directory; the figures are medians, and a ratio is ours divided by theirs.
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
	sync := flag.Bool("sync", true, "tare serve syncs before it acknowledges; the others never do")
	repositories := flag.Int("repositories", 1000, "repositories, of ten tags each, to start with and to list; 0 leaves that out")
	handler := flag.Bool("handler", false, "be the handler that answers from memory")
	flag.Parse()
	if *handler {
		serveFromMemory()
		return
	}
	if err := run(context.Background(), *runs, *sync, *repositories); err != nil {
		fmt.Fprintln(os.Stderr, "bench/registry:", err)
		os.Exit(1)
	}
}

// contender is a registry to be measured; start starts it on a directory, which may
// have what it left there.
type contender struct {
	name  string
	start func(dir string) (*server, error)
}

func contenders(dir string, sync bool) ([]contender, error) {
	tare := filepath.Join(dir, "tare")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", tare, "./cmd/tare").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build tare: %w: %s", err, out)
	}
	all := []contender{{"tare serve", func(dir string) (*server, error) { return startTare(tare, dir, sync) }}}
	for _, c := range []struct {
		program string
		start   func(program, dir string) (*server, error)
	}{{"docker-registry", startDistribution}, {"registry", startDistribution}, {"zot", startZot}} {
		path, err := exec.LookPath(c.program)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench/registry: without %s: %v\n", c.program, err)
			continue
		}
		all = append(all, contender{c.program, func(dir string) (*server, error) { return c.start(path, dir) }})
	}
	return all, nil
}

func run(ctx context.Context, runs int, sync bool, repositories int) error {
	dir, err := os.MkdirTemp("", "tare-bench-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, err := contenders(dir, sync)
	if err != nil {
		return err
	}
	results := make([]map[string][]float64, len(all))
	var names []string
	for range runs {
		for i, c := range all {
			samples, err := measureOne(ctx, dir, c, repositories)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if results[i] == nil {
				results[i] = map[string][]float64{}
			}
			for _, s := range samples {
				if !slices.Contains(names, s.name) {
					names = append(names, s.name)
				}
				results[i][s.name] = append(results[i][s.name], s.value)
			}
		}
		if err := measureHandler(ctx, results[0], &names); err != nil {
			return err
		}
	}
	return print(all, results, names)
}

func print(all []contender, results []map[string][]float64, names []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 1, 3, ' ', tabwriter.AlignRight)
	for i, c := range all {
		fmt.Fprintf(w, "\t%s", c.name)
		if i > 0 {
			fmt.Fprint(w, "\tratio")
		}
	}
	fmt.Fprintln(w, "\t")
	for _, name := range names {
		ours := median(results[0][name])
		fmt.Fprintf(w, "%s\t%.4g", name, ours)
		for _, theirs := range results[1:] {
			if len(theirs[name]) > 0 {
				fmt.Fprintf(w, "\t%.4g\t%.2f", median(theirs[name]), ours/median(theirs[name]))
			} else {
				fmt.Fprint(w, "\t\t")
			}
		}
		fmt.Fprintln(w, "\t")
	}
	return w.Flush()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// measureOne starts a registry on a fresh directory and takes all figures of it.
func measureOne(ctx context.Context, dir string, c contender, repositories int) ([]sample, error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	s, err := c.start(data)
	if err != nil {
		return nil, err
	}
	l := &load{server: s, ctx: ctx}
	defer func() { l.server.stop() }()
	l.all()
	if repositories > 0 {
		l.many(repositories, func() (*server, error) { return c.start(data) })
	}
	return l.samples, l.err
}
