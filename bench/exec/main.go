// Command exec measures what one more process in a running container costs:
// exec of /bin/true into a container with the configuration that "runc spec"
// writes plus a default seccomp profile (Runtime Spec 1.3.0), side by side with
// crun and runc.
//
//	go run ./bench/exec [-runs N]
//
// It needs root, and busybox-static, runc and crun installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	runs := flag.Int("runs", 200, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/exec:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int) (err error) {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-exec-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := runtimes.MakeBundle(dir, "/bin/sleep", "1000000"); err != nil {
		return err
	}
	ours, err := runtimes.Build(dir)
	if err != nil {
		return err
	}
	var cases []measure.Case
	for _, c := range []contender{{"tare-runtime", ours}, {"crun", "crun"}, {"runc", "runc"}} {
		if err := c.run(ctx, "run", "--detach", "--bundle", dir, c.id()); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, c.run(context.WithoutCancel(ctx), "delete", "--force", c.id()))
		}()
		cases = append(cases, measure.Case{Name: c.name, Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return c.command(ctx, "exec", c.id(), "/bin/true"), nil
		}})
	}
	table, err := measure.Compare(ctx, runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("exec of /bin/true into a running container, %d runs each, medians\n", runs)
	fmt.Print(table)
	return nil
}

// A contender is one runtime.
type contender struct{ name, path string }

func (c contender) id() string { return "bench-exec-" + c.name }

func (c contender) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.path, append([]string{"--root", filepath.Join(runtimes.State, c.name)}, args...)...)
}

// run runs a verb whose container may outlive it, and must not hold our pipes.
func (c contender) run(ctx context.Context, args ...string) error {
	log, err := os.CreateTemp("", "tare-bench-exec-log-")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd := c.command(ctx, args...)
	cmd.Stderr = log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name()) // only to tell more
		return fmt.Errorf("%s: %w: %s", cmd, err, text)
	}
	return nil
}
