// Command copy measures the way of an image from a registry to an image layout,
// and from there to another repository of a registry (Distribution Spec 1.1,
// "Pull" and "Push"): tare copy against skopeo copy, and against crane if there
// is one.
//
//	go run ./bench/copy -images DIR [-image medium] [-runs N] [-rate MB [-delay 20ms]]
//
// With -rate each connection gets no more than so many MB a second, as far away as
// -delay says.
// DIR holds OCI layouts, one directory each; the one named by -image is pushed
// to a registry in this process first. It needs skopeo. Every run goes to a new
// layout and a new repository; nothing is deleted before the end.
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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	images := flag.String("images", os.Getenv("TARE_TEST_IMAGES"), "directory of OCI layouts")
	image := flag.String("image", "medium", "layout to copy")
	runs := flag.Int("runs", 5, "interleaved runs of each")
	rate := flag.Int64("rate", 0, "MB a second of each connection; 0 is what there is")
	delay := flag.Duration("delay", 20*time.Millisecond, "how long a byte takes, with -rate")
	flag.Parse()
	if err := run(context.Background(), filepath.Join(*images, *image), *runs, *rate*1e6, *delay); err != nil {
		fmt.Fprintln(os.Stderr, "bench/copy:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, layout string, runs int, bytesPerSecond int64, delay time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "tare-bench-copy-")
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
	host, name, _ := strings.Cut(reference, "/")
	if bytesPerSecond > 0 {
		if host, err = link(ctx, host, bytesPerSecond, delay); err != nil {
			return err
		}
		reference = host + "/" + name
	}
	// $0 is the program, $1 where from, $2 a layout, $3 where to.
	scripts := []struct{ name, program, script string }{
		{"tare copy", ours, `"$0" --quiet --root "$2-root" copy "docker://$1" "oci:$2:x" && "$0" --quiet --root "$2-root" copy "oci:$2:x" "docker://$3"`},
		{"skopeo copy", "skopeo", `"$0" --insecure-policy copy -q --src-tls-verify=false "docker://$1" "oci:$2:x" &&
			"$0" --insecure-policy copy -q --dest-tls-verify=false "oci:$2:x" "docker://$3"`},
		{"crane", "crane", `"$0" pull --insecure --format oci "$1" "$2" && "$0" push --insecure "$2" "$3"`},
		// tare and skopeo end when the layout is on the disk.
		{"crane-synced", "crane", `"$0" pull --insecure --format oci "$1" "$2" && sync -f "$2" && "$0" push --insecure "$2" "$3"`},
	}
	var cases []measure.Case
	for _, s := range scripts {
		if _, err := exec.LookPath(s.program); err != nil {
			fmt.Fprintf(os.Stderr, "bench/copy: %s is left out: %v\n", s.name, err)
			continue
		}
		cases = append(cases, measure.Case{
			Name: s.name,
			Setup: func(context.Context, int) error {
				unix.Sync() // what others wrote is not this one's to wait for
				return nil
			},
			Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				id := strings.Fields(s.name)[0] + strconv.Itoa(run)
				return exec.CommandContext(ctx, "sh", "-c", s.script, s.program, reference, filepath.Join(dir, id), host+"/copies/"+id+":x"), nil
			},
		})
	}
	table, err := measure.CompareCold(ctx, runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("loopback registry to image layout to registry, %s, %d runs each, medians\n%s", filepath.Base(layout), runs, table)
	return nil
}
