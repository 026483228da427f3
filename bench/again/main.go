// Command again measures a run of an image that is here already: tare run
// against podman run, of /bin/true, in a new container each that is removed when
// it ends (Runtime Spec 1.3.0), on the host's network.
//
//	go run ./bench/again -images DIR [-runs N] [IMAGE...]
//
// DIR holds OCI layouts, one directory each; both pull the image from a registry in this process first. It needs root, skopeo, and Podman with
// crun.
package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	engines.Bench{Name: "again", Images: []string{"small"}, Runs: 20, Private: true, Tare: true, Registry: true}.Main(run)
}

func run(ctx context.Context, s engines.Setup) (err error) {
	podman, err := engines.NewPodman(filepath.Join(s.Dir, "podman"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, podman.Close()) }()
	ours := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, s.Tare, append([]string{"--quiet", "--root", filepath.Join(s.Dir, "tare-root")}, args...)...)
	}
	theirs, err := podman.Pull(ctx, s.Reference)
	if err != nil {
		return err
	}
	for _, pull := range []*exec.Cmd{ours("pull", s.Reference), theirs} {
		if _, err := measure.Run(pull); err != nil {
			return err
		}
	}
	table, err := measure.Compare(ctx, s.Runs, []measure.Case{
		{Name: "tare run", Command: func(context.Context, int) (*exec.Cmd, error) {
			return ours("run", "--network", "host", s.Reference, "/bin/true"), nil
		}},
		{Name: "podman run", Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return podman.Command(ctx, "--runtime", "crun", "run", "--rm", "--network", "host", s.Reference, "/bin/true")
		}},
	})
	if err != nil {
		return err
	}
	fmt.Printf("run /bin/true of an image that is here, %d runs each, medians\n", s.Runs)
	fmt.Print(table)
	return nil
}
