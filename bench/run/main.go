// Command run measures what a container costs: create, start, wait and delete
// of /bin/true with the configuration that "runc spec" writes plus a default
// seccomp profile (Runtime Spec 1.3.0), side by side with crun and runc, and
// with the floor: the same program image started by a few lines of static C.
//
//	go run ./bench/run [-runs N] [-pause DURATION]
//
// Network namespaces are removed by the kernel when their container is gone, which
// takes it some milliseconds: the pause lets it, so that no run pays for the one
// before. Without one (-pause 0) the second processor is never free.
//
// It needs root, and busybox-static, runc, crun and gcc installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	runs := flag.Int("runs", 100, "interleaved runs of each")
	pause := flag.Duration("pause", 25*time.Millisecond, "rest before each run")
	flag.Parse()
	if err := run(context.Background(), *runs, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "bench/run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, pause time.Duration) error {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := runtimes.MakeBundle(dir, "/bin/true"); err != nil {
		return err
	}
	contenders, err := runtimes.Contenders(dir)
	if err != nil {
		return err
	}
	floor, err := makeFloor(dir)
	if err != nil {
		return err
	}
	var cases []measure.Case
	for _, c := range contenders {
		cases = append(cases, measure.Case{Name: c.Name, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			return c.Command(ctx, "run", "--bundle", dir, "bench-run-"+c.Name+"-"+strconv.Itoa(run+1)), nil
		}})
	}
	cases = append(cases, measure.Case{Name: "floor", Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, floor), nil
	}})
	for i := range cases {
		cases[i].Setup = func(context.Context, int) error { time.Sleep(pause); return nil }
	}
	table, err := measure.Compare(ctx, runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("create + start + wait + delete of /bin/true, %d runs each, %v apart, medians\n", runs, pause)
	fmt.Print(table)
	return nil
}
