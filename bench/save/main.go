// Command save measures writing an image to an archive (Image Spec 1.1.1,
// image-layout.md, and what docker save writes): tare save against skopeo copy,
// from image layouts of the same content, in both forms of archives.
//
//	go run ./bench/save -images DIR [-runs N] [IMAGE...]
//
// DIR holds OCI layouts, one directory each. It needs skopeo. Nothing is deleted
// before the end, because a file system slows down on recently deleted files.
package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	engines.Bench{Name: "save", Images: []string{"medium"}, Runs: 5, Tare: true}.Main(run)
}

func run(ctx context.Context, s engines.Setup) error {
	root := filepath.Join(s.Dir, "root")
	if out, err := exec.CommandContext(ctx, s.Tare, "--quiet", "--root", root, "copy", "oci:"+s.Layout+":latest", "image").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, format := range []string{"oci-archive", "docker-archive"} {
		table, err := measure.CompareCold(ctx, s.Runs, []measure.Case{
			{Name: "tare save", Setup: engines.Settle, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				to := filepath.Join(s.Dir, "ours-"+format+strconv.Itoa(run))
				return exec.CommandContext(ctx, s.Tare, "--quiet", "--root", root, "save", "--format", format, "-o", to, "image"), nil
			}},
			{Name: "skopeo copy", Setup: engines.Settle, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				to := filepath.Join(s.Dir, "theirs-"+format+strconv.Itoa(run))
				return exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+s.Layout+":latest", format+":"+to+":image:latest"), nil
			}},
		})
		if err != nil {
			return err
		}
		fmt.Printf("image layout to %s, %s, %d runs each, medians\n%s", format, filepath.Base(s.Layout), s.Runs, table)
	}
	return nil
}
