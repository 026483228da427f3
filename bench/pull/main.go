// Command pull measures the way from a registry to a root file system that can
// run: tare unpack of a reference, which fetches, verifies and unpacks at
// once, against skopeo copy followed by umoci unpack; and tare pull against
// podman pull, which both leave a store with unpacked layers (Distribution Spec
// 1.1, "Pull", and Image Spec, layer.md).
//
//	go run ./bench/pull -images DIR [-runs N] [IMAGE...]
//
// DIR holds OCI layouts, one directory each; an image is pushed to a registry in
// this process first. It needs root, skopeo and umoci, and measures Podman if there is one. Every
// run starts with an empty store and a new target; nothing is deleted before
// the end, because a file system slows down on recently deleted files.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	// Podman mounts its store on itself: that is not to outlive us, however we end.
	engines.Bench{Name: "pull", Images: []string{"medium"}, Runs: 5, Private: true, Tare: true, Registry: true}.Main(run)
}

func run(ctx context.Context, s engines.Setup) error {
	table, err := measure.CompareCold(ctx, s.Runs, casesOf(s.Dir, s.Tare, s.Reference))
	if err != nil {
		return err
	}
	fmt.Printf("loopback registry to root file system, %s, %d runs each, medians\n", filepath.Base(s.Layout), s.Runs)
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
		cases[i].Setup = engines.Settle
	}
	return cases
}
