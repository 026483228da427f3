// Command repack measures how long it takes to make an image of a bundle of which one file was changed: tare repack and umoci
// repack, in turn, each on a bundle that it has unpacked itself, on a fresh ext4 file system. Each run changes another file, and
// nothing is deleted between runs.
//
//	go run ./bench/repack -images DIR [-runs 5] [-fs ext4|tmpfs] [IMAGE...]
//
// DIR holds OCI layouts as test/images/make-images.sh makes them. It needs root, for owners and the mount, which is in a mount
// namespace of its own.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	engines.Bench{Name: "repack", Images: []string{"manyfiles", "medium"}, Runs: 5, Tare: true, Fresh: true}.Main(run)
}

func run(ctx context.Context, s engines.Setup) error {
	var cases []measure.Case
	for _, t := range []tool{
		{"tare", s.Dir, func(args ...string) []string {
			return append([]string{s.Tare, "--quiet", "--root", filepath.Join(s.Dir, "tare-root")}, args...)
		}, unpackTare, repackTare},
		{"umoci", s.Dir, func(args ...string) []string { return append([]string{"umoci"}, args...) }, unpackUmoci, repackUmoci},
	} {
		c, err := t.measured(ctx, s.Layout)
		if err != nil {
			return err
		}
		cases = append(cases, c)
	}
	table, err := measure.Compare(ctx, s.Runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("repack %s after one of its files was changed (%s)\n%s\n", filepath.Base(s.Layout), s.FSType, table)
	return nil
}

// tool is one that unpacks and repacks.
type tool struct {
	name, target string
	command      func(args ...string) []string
	unpack       func(layout, bundle string) []string
	repack       func(layout, bundle string, run int) []string
}

func unpackTare(layout, bundle string) []string {
	return []string{"unpack", "oci:" + layout + ":latest", bundle}
}

func repackTare(layout, bundle string, run int) []string {
	return []string{"repack", bundle, fmt.Sprintf("oci:%s:new%d", layout, run)}
}

func unpackUmoci(layout, bundle string) []string {
	return []string{"unpack", "--image", layout + ":latest", bundle}
}

func repackUmoci(layout, bundle string, run int) []string {
	return []string{"repack", "--image", fmt.Sprintf("%s:new%d", layout, run), bundle}
}

// measured unpacks the image, from a layout of the tool's own, and says how to repack it.
func (t tool) measured(ctx context.Context, image string) (measure.Case, error) {
	layout, bundle := filepath.Join(t.target, t.name+"-layout"), filepath.Join(t.target, t.name+"-bundle")
	for _, args := range [][]string{{"cp", "-r", image, layout}, t.command(t.unpack(layout, bundle)...)} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return measure.Case{}, fmt.Errorf("%s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
	}
	files, err := someFiles(filepath.Join(bundle, "rootfs"))
	if err != nil {
		return measure.Case{}, err
	}
	return measure.Case{
		Name: t.name,
		Setup: func(_ context.Context, run int) error {
			// The change of the run before stays, so each run has one more than the last; the first has one.
			err := os.WriteFile(files[(run+1)%len(files)], fmt.Appendf(nil, "changed for run %d\n", run), 0o644)
			unix.Sync() // what others wrote is not this one's to wait for
			return err
		},
		Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			args := t.command(t.repack(layout, bundle, run)...)
			return exec.CommandContext(ctx, args[0], args[1:]...), nil
		},
	}, nil
}

// someFiles finds files to change.
func someFiles(rootfs string) ([]string, error) {
	const enough = 100
	var files []string
	err := filepath.WalkDir(rootfs, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			files = append(files, path)
		}
		if len(files) == enough {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no files")
	}
	return files, err
}
