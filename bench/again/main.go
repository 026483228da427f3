// Command again measures a run of an image that is here already: tare run
// against podman run, of /bin/true, in a new container each that is removed when
// it ends (Runtime Spec 1.3.0), on the host's network.
//
//	go run ./bench/again -images DIR [-image small] [-runs N]
//
// DIR holds OCI layouts, one directory each; both pull the one named by -image
// from a registry in this process first. It needs root, skopeo, and Podman with
// crun.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	images := flag.String("images", os.Getenv("TARE_TEST_IMAGES"), "directory of OCI layouts")
	image := flag.String("image", "small", "layout to run")
	runs := flag.Int("runs", 20, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), filepath.Join(*images, *image), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/again:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, layout string, runs int) (err error) {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-again-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tare, err := engines.Build(ctx, dir)
	if err != nil {
		return err
	}
	podman, err := engines.NewPodman(filepath.Join(dir, "podman"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, podman.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reference, err := engines.Serve(ctx, filepath.Join(dir, "registry"), layout)
	if err != nil {
		return err
	}
	ours := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, tare, append([]string{"--quiet", "--root", filepath.Join(dir, "tare-root")}, args...)...)
	}
	theirs, err := podman.Pull(ctx, reference)
	if err != nil {
		return err
	}
	for _, pull := range []*exec.Cmd{ours("pull", reference), theirs} {
		if _, err := measure.Run(pull); err != nil {
			return err
		}
	}
	table, err := measure.Compare(ctx, runs, []measure.Case{
		{Name: "tare run", Command: func(context.Context, int) (*exec.Cmd, error) {
			return ours("run", "--network", "host", reference, "/bin/true"), nil
		}},
		{Name: "podman run", Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return podman.Command(ctx, "--runtime", "crun", "run", "--rm", "--network", "host", reference, "/bin/true")
		}},
	})
	if err != nil {
		return err
	}
	fmt.Printf("run /bin/true of an image that is here, %d runs each, medians\n", runs)
	fmt.Print(table)
	return nil
}
