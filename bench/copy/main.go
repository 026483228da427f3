// Command copy measures the way of an image from a registry to an image layout,
// and from there to another repository of a registry (Distribution Spec 1.1,
// "Pull" and "Push"): tare copy against skopeo copy, and against crane if there
// is one.
//
//	go run ./bench/copy -images DIR [-runs N] [-rate MB [-delay 20ms]] [IMAGE...]
//
// With -rate each connection gets no more than so many MB a second, as far away as
// -delay says.
// DIR holds OCI layouts, one directory each; an image is pushed to a registry in
// this process first. It needs skopeo. Every run goes to a new
// layout and a new repository; nothing is deleted before the end.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/bench/internal/engines"
	"github.com/tare-oci/tare/bench/internal/measure"
)

func main() {
	rate := flag.Int64("rate", 0, "MB a second of each connection; 0 is what there is")
	delay := flag.Duration("delay", 20*time.Millisecond, "how long a byte takes, with -rate")
	bench := engines.Bench{Name: "copy", Images: []string{"medium"}, Runs: 5, Tare: true, Registry: true}
	bench.Main(func(ctx context.Context, s engines.Setup) error { return run(ctx, s, *rate*1e6, *delay) })
}

func run(ctx context.Context, s engines.Setup, bytesPerSecond int64, delay time.Duration) (err error) {
	host, name, _ := strings.Cut(s.Reference, "/")
	if bytesPerSecond > 0 {
		if host, err = link(ctx, host, bytesPerSecond, delay); err != nil {
			return err
		}
		s.Reference = host + "/" + name
	}
	// $0 is the program, $1 where from, $2 a layout, $3 where to.
	scripts := []struct{ name, program, script string }{
		{"tare copy", s.Tare, `"$0" --quiet --root "$2-root" copy "docker://$1" "oci:$2:x" && "$0" --quiet --root "$2-root" copy "oci:$2:x" "docker://$3"`},
		{"skopeo copy", "skopeo", `"$0" --insecure-policy copy -q --src-tls-verify=false "docker://$1" "oci:$2:x" &&
			"$0" --insecure-policy copy -q --dest-tls-verify=false "oci:$2:x" "docker://$3"`},
		{"crane", "crane", `"$0" pull --insecure --format oci "$1" "$2" && "$0" push --insecure "$2" "$3"`},
		// tare and skopeo end when the layout is on the disk.
		{"crane-synced", "crane", `"$0" pull --insecure --format oci "$1" "$2" && sync -f "$2" && "$0" push --insecure "$2" "$3"`},
	}
	var cases []measure.Case
	for _, w := range scripts {
		if _, err := exec.LookPath(w.program); err != nil {
			fmt.Fprintf(os.Stderr, "bench/copy: %s is left out: %v\n", w.name, err)
			continue
		}
		cases = append(cases, measure.Case{
			Name:  w.name,
			Setup: engines.Settle,
			Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
				id := strings.Fields(w.name)[0] + strconv.Itoa(run)
				return exec.CommandContext(ctx, "sh", "-c", w.script, w.program, s.Reference, filepath.Join(s.Dir, id), host+"/copies/"+id+":x"), nil
			},
		})
	}
	table, err := measure.CompareCold(ctx, s.Runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("loopback registry to image layout to registry, %s, %d runs each, medians\n%s", filepath.Base(s.Layout), s.Runs, table)
	return nil
}
