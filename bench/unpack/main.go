// Command unpack measures how long it takes to unpack an image's layers into a directory: tare's layer package, GNU tar
// with gzip and with igzip (Debian's isal), and umoci, in turn, each run into a new directory of a fresh ext4 file system.
// Nothing is deleted between runs: recently deleted inodes slow ext4 down.
//
//	go run ./bench/unpack -images DIR [-runs 5] [-fs ext4|tmpfs] [IMAGE...]
//
// DIR holds OCI layouts as test/images/make-images.sh makes them. It needs root, for owners, devices and the mount, which is in a
// mount namespace of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/safepath"
)

// applyCommand is the first argument with which this program runs itself to unpack one image, so that tare is measured as
// a process like the others.
const applyCommand = "apply-image"

func main() {
	if len(os.Args) != 4 || os.Args[1] != applyCommand {
		engines.Bench{Name: "unpack", Images: []string{"manyfiles", "medium", "zstd"}, Runs: 5, Fresh: true}.Main(run)
		return
	}
	if err := applyImage(context.Background(), os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/unpack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s engines.Setup) error {
	cases, err := casesOf(ctx, s.Layout, s.Work, s.Dir)
	if err != nil {
		return err
	}
	table, err := measure.Compare(ctx, s.Runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("unpack %s (%s)\n%s\n", filepath.Base(s.Layout), s.FSType, table)
	return nil
}

// casesOf are the ways to unpack an image, tare's first. A tool that is not installed, or cannot read the image's
// compression, is left out, and that is said.
func casesOf(ctx context.Context, image, dir, target string) ([]measure.Case, error) {
	layers, _, err := read(image)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var blobs []string
	for _, l := range layers {
		blobs = append(blobs, blobPath(image, l.Digest))
	}
	tarWith := func(decompress string) []string {
		script := `dir=$0; for blob; do ` + decompress + ` < "$blob" | tar -x -C "$dir" --numeric-owner --same-owner -p --xattrs --xattrs-include='*' || exit 1; done`
		return append([]string{"sh", "-c", script, "DIR"}, blobs...)
	}
	cases := []measure.Case{unpackCase("tare", target, self, applyCommand, image, "DIR")}
	others := []struct {
		name, needs string
		args        []string
	}{
		{"gzip | tar", "gzip", tarWith("gzip -dc")},
		{"igzip | tar", "igzip", tarWith("igzip -dc")},
		{"umoci", "umoci", []string{"umoci", "unpack", "--image", image + ":latest", "DIR"}},
		{"umoci raw", "umoci", []string{"umoci", "raw", "unpack", "--image", image + ":latest", "DIR/rootfs"}},
	}
	if strings.HasSuffix(layers[0].MediaType, "+zstd") {
		umoci, err := engines.Umoci(ctx, dir)
		if err != nil {
			return nil, err
		}
		others = others[2:]
		others[0].name, others[0].needs, others[0].args = "zstd | tar", "zstd", tarWith("zstd -dc")
		others[1].name, others[1].needs, others[1].args[0] = "umoci 0.6", umoci, umoci
	}
	for _, o := range others {
		if _, err := exec.LookPath(o.needs); err != nil {
			fmt.Fprintf(os.Stderr, "unpack: %s is left out: %v\n", o.name, err)
			continue
		}
		cases = append(cases, unpackCase(o.name, target, o.args...))
	}
	return cases, nil
}

// unpackCase runs a command, in whose arguments DIR at the beginning stands for a new directory.
func unpackCase(name, target string, args ...string) measure.Case {
	dir := func(run int) string {
		return filepath.Join(target, strings.NewReplacer(" | ", "-", " ", "-").Replace(name)+fmt.Sprint(run))
	}
	return measure.Case{
		Name: name,
		Setup: func(_ context.Context, run int) error {
			unix.Sync() // what others wrote is not this one's to wait for
			return os.Mkdir(dir(run), 0o755)
		},
		Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
			cmd := exec.CommandContext(ctx, args[0])
			for _, a := range args[1:] {
				if rest, ok := strings.CutPrefix(a, "DIR"); ok {
					a = dir(run) + rest
				}
				cmd.Args = append(cmd.Args, a)
			}
			return cmd, nil
		},
	}
}

// applyImage unpacks an image, as one of the measured commands.
func applyImage(ctx context.Context, image, dir string) error {
	layers, diffIDs, err := read(image)
	if err != nil {
		return err
	}
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for i, l := range layers {
		blob, err := os.Open(blobPath(image, l.Digest))
		if err != nil {
			return err
		}
		_, err = layer.Apply(ctx, blob, root, layer.Options{
			Name: l.Digest.String(), MediaType: l.MediaType, DiffID: diffIDs[i], Devices: layer.DevicesCreate,
		})
		if err := errors.Join(err, blob.Close()); err != nil {
			return err
		}
	}
	return nil
}

func blobPath(image string, d digest.Digest) string {
	return filepath.Join(image, "blobs", d.Algorithm().String(), d.Encoded())
}

// read finds the layers of a layout's first image, and what they hash to.
func read(image string) ([]ocispec.Descriptor, []digest.Digest, error) {
	var index ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	if err := readJSON(filepath.Join(image, "index.json"), &index); err != nil {
		return nil, nil, err
	}
	if len(index.Manifests) == 0 {
		return nil, nil, fmt.Errorf("%s has no images", image)
	}
	if err := readJSON(blobPath(image, index.Manifests[0].Digest), &manifest); err != nil {
		return nil, nil, err
	}
	if err := readJSON(blobPath(image, manifest.Config.Digest), &config); err != nil {
		return nil, nil, err
	}
	if len(manifest.Layers) == 0 || len(manifest.Layers) != len(config.RootFS.DiffIDs) {
		return nil, nil, fmt.Errorf("%s: %d layers, %d diffIDs", image, len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	return manifest.Layers, config.RootFS.DiffIDs, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
