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
	contenders, err := runtimes.Contenders(dir)
	if err != nil {
		return err
	}
	var cases []measure.Case
	for _, c := range contenders {
		id := "bench-exec-" + c.Name
		if err := c.Run(ctx, "run", "--detach", "--bundle", dir, id); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, c.Run(context.WithoutCancel(ctx), "delete", "--force", id))
		}()
		cases = append(cases, measure.Case{Name: c.Name, Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return c.Command(ctx, "exec", id, "/bin/true"), nil
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
