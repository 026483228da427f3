// Command pull measures the way from a registry to a root file system that can
// run: tare unpack of a reference, which fetches, verifies and unpacks at
// once, against skopeo copy followed by umoci unpack (Distribution Spec 1.1,
// "Pull", and Image Spec, layer.md).
//
//	go run ./bench/pull -images DIR [-image medium] [-runs N]
//
// DIR holds OCI layouts, one directory each; the one named by -image is pushed
// to a registry in this process first. It needs root, skopeo and umoci. Every
// run starts with an empty store and a new target; nothing is deleted before
// the end, because a file system slows down on recently deleted files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
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
	dir, err := os.MkdirTemp("", "tare-bench-pull-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours := filepath.Join(dir, "tare")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", ours, "github.com/tare-oci/tare/cmd/tare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := command(build); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	address, err := serve(ctx, filepath.Join(dir, "registry"))
	if err != nil {
		return err
	}
	reference := address + "/bench/image:latest"
	if err := command(exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false",
		"oci:"+layout+":latest", "docker://"+reference)); err != nil {
		return err
	}
	table, err := measure.CompareCold(ctx, runs, []measure.Case{
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
	})
	if err != nil {
		return err
	}
	fmt.Printf("loopback registry to root file system, %s, %d runs each, medians\n", filepath.Base(layout), runs)
	fmt.Print(table)
	return nil
}

// serve starts a registry on a port of its own.
func serve(ctx context.Context, dir string) (address string, err error) {
	objects, err := fs.New(dir, fs.Options{NoSync: true})
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		if err := server.Serve(ctx, listener, server.New(storage.New(objects, storage.Options{}), server.Options{}), server.ServeOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, "bench/pull: registry:", err)
		}
	}()
	return listener.Addr().String(), nil
}

func command(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, out)
	}
	return nil
}
