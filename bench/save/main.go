// Command save measures writing an image to an archive (Image Spec 1.1.1,
// image-layout.md, and what docker save writes): tare save against skopeo copy,
// from image layouts of the same content, in both forms of archives.
//
//	go run ./bench/save -images DIR [-image medium] [-runs N]
//
// DIR holds OCI layouts, one directory each. It needs skopeo. Nothing is deleted
// before the end, because a file system slows down on recently deleted files.
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
)

func main() {
	images := flag.String("images", os.Getenv("TARE_TEST_IMAGES"), "directory of OCI layouts")
	image := flag.String("image", "medium", "layout to save")
	runs := flag.Int("runs", 5, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), filepath.Join(*images, *image), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/save:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, layout string, runs int) (err error) {
	dir, err := os.MkdirTemp("", "tare-bench-save-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours, err := engines.Build(ctx, dir)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if out, err := exec.CommandContext(ctx, ours, "--quiet", "--root", root, "copy", "oci:"+layout+":latest", "image").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, format := range []string{"oci-archive", "docker-archive"} {
		table, err := measure.CompareCold(ctx, runs, []measure.Case{
			{Name: "tare save", Setup: settle, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				to := filepath.Join(dir, "ours-"+format+strconv.Itoa(run))
				return exec.CommandContext(ctx, ours, "--quiet", "--root", root, "save", "--format", format, "-o", to, "image"), nil
			}},
			{Name: "skopeo copy", Setup: settle, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				to := filepath.Join(dir, "theirs-"+format+strconv.Itoa(run))
				return exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout+":latest", format+":"+to+":image:latest"), nil
			}},
		})
		if err != nil {
			return err
		}
		fmt.Printf("image layout to %s, %s, %d runs each, medians\n%s", format, filepath.Base(layout), runs, table)
	}
	return nil
}

// settle waits for what others wrote, which is not this one's to wait for.
func settle(context.Context, int) error {
	unix.Sync()
	return nil
}
