// Command lifecycle measures the verbs of the Runtime Spec 1.3.0 (runtime.md,
// "Operations") one by one, and the sequence that engines run (create, start,
// state, kill, delete --force, a process each), side by side with crun and runc.
// The container sleeps, and has the configuration that "runc spec" writes plus a
// default seccomp profile.
//
//	go run ./bench/lifecycle [-runs N] [-beside 1,10,100]
//
// Each is done for one container, and for 10 and 100 at the same time, where the
// CPU time is that of all together. It needs root, and busybox-static, runc and
// crun installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	runs := flag.Int("runs", 50, "interleaved runs of each; fewer where many containers take part")
	beside := flag.String("beside", "1,10,100", "numbers of containers side by side")
	flag.Parse()
	if err := run(context.Background(), *runs, strings.Split(*beside, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench/lifecycle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, beside []string) error {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	if err := runtimes.AdoptOrphans(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-lifecycle-")
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
	for _, text := range beside {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-beside: %q is not a number of containers", text)
		}
		f := field{contenders: contenders, bundle: dir, containers: n}
		if err := f.measure(ctx, max(3, runs/n)); err != nil {
			return errors.Join(err, f.clear(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// A field is the contenders and the number of containers that each has to work on
// at the same time.
type field struct {
	contenders []runtimes.Contender
	bundle     string
	containers int
}

// A step is one or more verbs in turn.
type step struct {
	name  string
	verbs []verb
	// before, if set, is done first, untimed.
	before func() error
}

// A verb is a command line around the container's name.
type verb struct{ before, after []string }

func (f field) measure(ctx context.Context, runs int) error {
	create := verb{before: []string{"create", "--bundle", f.bundle}}
	start, state := verb{before: []string{"start"}}, verb{before: []string{"state"}}
	// Each step goes on where the one before has led all the containers.
	steps := []step{
		{name: "create", verbs: []verb{create}},
		{name: "start", verbs: []verb{start}},
		{name: "state", verbs: []verb{state}},
		{name: "kill", verbs: []verb{{[]string{"kill"}, []string{"KILL"}}}},
		{name: "delete", verbs: []verb{{before: []string{"delete"}}}, before: runtimes.WaitForOrphans},
		// Here the container ignores the signal, as it has no handler and is process 1; so delete has to end it.
		{
			name:  "create, start, state, kill, delete --force",
			verbs: []verb{create, start, state, {[]string{"kill"}, []string{"TERM"}}, {before: []string{"delete", "--force"}}},
		},
	}
	var cases []measure.Case
	for i, s := range steps {
		for _, c := range f.contenders {
			one := f.one(s, c)
			one.Stage = i
			cases = append(cases, one)
		}
	}
	table, err := measure.Compare(ctx, runs, cases)
	if err != nil {
		return err
	}
	for i, s := range steps {
		fmt.Printf("%s: %d side by side\n", s.name, f.containers)
		fmt.Println(measure.Table{Rows: table.Rows[i*len(f.contenders):][:len(f.contenders)]})
	}
	return runtimes.WaitForOrphans()
}

func (f field) one(s step, c runtimes.Contender) measure.Case {
	m := measure.Case{Name: c.Name, Sequences: func(ctx context.Context, _ int) ([][]*exec.Cmd, error) {
		sequences := make([][]*exec.Cmd, f.containers)
		for i := range sequences {
			for _, verb := range s.verbs {
				args := slices.Concat(verb.before, []string{f.id(c, i)}, verb.after)
				sequences[i] = append(sequences[i], c.Command(ctx, args...))
			}
		}
		return sequences, nil
	}}
	if s.before != nil {
		m.Setup = func(context.Context, int) error { return s.before() }
	}
	return m
}

func (f field) id(c runtimes.Contender, i int) string {
	return "bench-lifecycle-" + c.Name + "-" + strconv.Itoa(i)
}

// clear deletes what a failure has left.
func (f field) clear(ctx context.Context) error {
	var errs []error
	for _, c := range f.contenders {
		for i := range f.containers {
			errs = append(errs, c.Run(ctx, "delete", "--force", f.id(c, i)))
		}
	}
	return errors.Join(errs...)
}
