// Command memory measures what containers cost in memory (Runtime Spec 1.3.0,
// runtime.md, "Lifecycle"), side by side with crun and runc: the peak of create and of
// start; the private memory of a created container's process, which waits for
// start; and what stays behind for a running one beside the user's own program.
// The container sleeps, and has the configuration that "runc spec" writes plus a
// default seccomp profile.
//
//	go run ./bench/memory [-runs N]
//
// It needs root, and busybox-static, GNU time, runc and crun installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	runs := flag.Int("runs", 10, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/memory:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int) error {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	if err := runtimes.AdoptOrphans(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := runtimes.MakeBundle(dir, "/bin/sleep", "1000000"); err != nil {
		return err
	}
	contenders, err := runtimes.Contenders(dir)
	if err != nil {
		return err
	}
	outcomes := make([][]sample, len(contenders))
	for range runs {
		for i, c := range contenders {
			s, err := once(ctx, c, dir)
			if err != nil {
				return err
			}
			outcomes[i] = append(outcomes[i], s)
		}
	}
	print(contenders, outcomes)
	return nil
}

// A sample is what one container cost.
type sample struct {
	createPeakBytes, startPeakBytes int64
	created, running                footprint
}

// A footprint is what there is of a container at one time.
type footprint struct {
	initBytes    int64 // private memory of its first process
	processes    int64 // that the runtime has left beside it
	processBytes int64 // their private memory
	stateBytes   int64 // files of the runtime, which are in memory
}

func once(ctx context.Context, c runtimes.Contender, bundle string) (s sample, err error) {
	id := "bench-memory-" + c.Name
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, c.Run(ctx, "delete", "--force", id), runtimes.WaitForOrphans())
	}()
	pidFile := bundle + "/pid"
	if s.createPeakBytes, err = peak(ctx, bundle, c.Args("create", "--bundle", bundle, "--pid-file", pidFile, id)); err != nil {
		return s, err
	}
	if s.created, err = look(c, pidFile); err != nil {
		return s, err
	}
	if s.startPeakBytes, err = peak(ctx, bundle, c.Args("start", id)); err != nil {
		return s, err
	}
	s.running, err = look(c, pidFile)
	return s, err
}

func print(contenders []runtimes.Contender, outcomes [][]sample) {
	fmt.Printf("%-44s", fmt.Sprintf("median of %d, KiB or number", len(outcomes[0])))
	for _, c := range contenders {
		fmt.Printf(" %12s", c.Name)
	}
	fmt.Println()
	for _, row := range []struct {
		name string
		unit int64
		of   func(sample) int64
	}{
		{"peak resident memory of create", 1024, func(s sample) int64 { return s.createPeakBytes }},
		{"peak resident memory of start", 1024, func(s sample) int64 { return s.startPeakBytes }},
		{"created: private memory of its process", 1024, func(s sample) int64 { return s.created.initBytes }},
		{"created: processes of the runtime beside it", 1, func(s sample) int64 { return s.created.processes }},
		{"running: processes of the runtime beside it", 1, func(s sample) int64 { return s.running.processes }},
		{"running: their private memory", 1024, func(s sample) int64 { return s.running.processBytes }},
		{"running: files of state, in memory", 1024, func(s sample) int64 { return s.running.stateBytes }},
	} {
		fmt.Printf("%-44s", row.name)
		for _, samples := range outcomes {
			fmt.Printf(" %12d", (median(samples, row.of)+row.unit/2)/row.unit)
		}
		fmt.Println()
	}
}

func median(samples []sample, of func(sample) int64) int64 {
	v := make([]int64, len(samples))
	for i, s := range samples {
		v[i] = of(s)
	}
	slices.Sort(v)
	return v[len(v)/2]
}
