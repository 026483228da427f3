// Command pull measures the way from a registry to a root file system that can
// run: tare unpack of a reference, which fetches, verifies and unpacks at
// once, against skopeo copy followed by umoci unpack; and tare pull against
// podman pull, which both leave a store with unpacked layers (Distribution Spec
// 1.1, "Pull", and Image Spec, layer.md).
//
//	go run ./bench/pull -images DIR [-image medium] [-runs N]
//
// DIR holds OCI layouts, one directory each; the one named by -image is pushed
// to a registry in this process first. It needs root, skopeo and umoci, and measures Podman if there is one. Every
// run starts with an empty store and a new target; nothing is deleted before
// the end, because a file system slows down on recently deleted files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	images := flag.String("images", os.Getenv("TARE_TEST_IMAGES"), "directory of OCI layouts")
	image := flag.String("image", "medium", "layout to pull")
	runs := flag.Int("runs", 5, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), filepath.Join(*images, *image), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/pull:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, layout string, runs int) (err error) {
	// Podman mounts its store on itself: that is not to outlive us, however we end.
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-pull-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours, err := engines.Build(ctx, dir)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reference, err := engines.Serve(ctx, filepath.Join(dir, "registry"), layout)
	if err != nil {
		return err
	}
	table, err := measure.CompareCold(ctx, runs, casesOf(dir, ours, reference))
	if err != nil {
		return err
	}
	fmt.Printf("loopback registry to root file system, %s, %d runs each, medians\n", filepath.Base(layout), runs)
	fmt.Print(table)
	return nil
}

// casesOf are the ways to bring an image here. All that they make is in dir.
func casesOf(dir, ours, reference string) []measure.Case {
	cases := []measure.Case{
		{Name: "tare unpack", Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			at := filepath.Join(dir, "ours"+strconv.Itoa(run))
			return exec.CommandContext(ctx, ours, "--quiet", "--root", at, "unpack", reference, at+"-bundle"), nil
		}},
		{Name: "skopeo + umoci", Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			at := filepath.Join(dir, "theirs"+strconv.Itoa(run))
			script := `skopeo --insecure-policy copy -q --src-tls-verify=false "docker://$0" "oci:$1:latest" &&
				umoci unpack --image "$1:latest" "$1-bundle"`
			return exec.CommandContext(ctx, "sh", "-c", script, reference, at), nil
		}},
	}
	podman := func(run int) (engines.Podman, error) {
		return engines.NewPodman(filepath.Join(dir, "podman"+strconv.Itoa(run)))
	}
	if _, err := podman(0); err != nil {
		fmt.Fprintln(os.Stderr, "bench/pull: podman is left out:", err)
	} else {
		cases = append(cases, measure.Case{Name: "tare pull", Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, ours, "--quiet", "--root", filepath.Join(dir, "store"+strconv.Itoa(run)), "pull", reference), nil
		}}, measure.Case{
			Name: "podman pull",
			Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				p, err := podman(run)
				if err != nil {
					return nil, err
				}
				return p.Pull(ctx, reference)
			},
			Cleanup: func(_ context.Context, run int) error {
				p, err := podman(run)
				return errors.Join(err, p.Close())
			},
		})
	}
	for i := range cases {
		cases[i].Setup = func(context.Context, int) error {
			unix.Sync() // what others wrote is not this one's to wait for
			return nil
		}
	}
	return cases
}
