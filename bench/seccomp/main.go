// Command seccomp measures what a system call costs in a container under the
// default profile of Docker (Runtime Spec 1.3.0, config-linux.md, "Seccomp"): the
// same program in containers of tare-runtime, crun and runc, and in one without a
// filter.
//
//	go run ./bench/seccomp [-runs N]
//
// It needs root, and busybox-static, runc and crun installed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/bench/internal/runtimes"
)

func main() {
	runs := flag.Int("runs", 15, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/seccomp:", err)
		os.Exit(1)
	}
}

// A contender runs the program in one kind of container.
type contender struct {
	name, path, bundle string
	// nanoseconds a call took, run by run, by the call's name.
	calls map[string][]float64
}

func run(ctx context.Context, runs int) error {
	if again, err := runtimes.PrivateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-seccomp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	filtered, free := filepath.Join(dir, "filtered"), filepath.Join(dir, "free")
	for _, bundle := range []string{filtered, free} {
		if err := makeBundle(bundle); err != nil {
			return err
		}
	}
	if err := withoutFilter(filepath.Join(free, "config.json")); err != nil {
		return err
	}
	ours, err := runtimes.Build(dir)
	if err != nil {
		return err
	}
	all := []contender{{name: "tare-runtime", path: ours, bundle: filtered}, {name: "crun", path: "crun", bundle: filtered},
		{name: "runc", path: "runc", bundle: filtered}, {name: "no filter", path: ours, bundle: free}}
	var names []string
	for run := range runs {
		for i := range all {
			if names, err = all[i].once(ctx, run); err != nil {
				return err
			}
		}
	}
	fmt.Printf("nanoseconds for a system call under Docker's default profile, medians of %d runs\n", runs)
	print(names, all)
	return nil
}

func makeBundle(bundle string) error {
	if err := runtimes.MakeBundle(bundle, "/bin/calls"); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(bundle, "rootfs/bin/calls"), "github.com/tare-oci/tare/bench/seccomp/calls")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	return nil
}

func withoutFilter(config string) error {
	data, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	s.Linux.Seccomp = nil
	if data, err = json.Marshal(&s); err != nil {
		return err
	}
	return os.WriteFile(config, data, 0o644)
}

// once runs the container and notes what it printed.
func (c *contender) once(ctx context.Context, run int) (names []string, err error) {
	id := strings.ReplaceAll(fmt.Sprintf("bench-seccomp-%s-%d", c.name, run), " ", "-")
	cmd := exec.CommandContext(ctx, c.path, "--root", filepath.Join(runtimes.State, id), "run", "--bundle", c.bundle, id)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	if c.calls == nil {
		c.calls = map[string][]float64{}
	}
	for line := range strings.Lines(string(out)) {
		var name string
		var ns float64
		if _, err := fmt.Sscan(line, &name, &ns); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", cmd, line, err)
		}
		names = append(names, name)
		c.calls[name] = append(c.calls[name], ns)
	}
	return names, nil
}

func print(names []string, all []contender) {
	fmt.Printf("%-12s", "")
	for _, c := range all {
		fmt.Printf(" %12s", c.name)
	}
	fmt.Printf(" %12s %12s\n", "ratio crun", "ratio runc")
	for _, name := range names {
		fmt.Printf("%-12s", name)
		for _, c := range all {
			fmt.Printf(" %12.1f", median(c.calls[name]))
		}
		ours := median(all[0].calls[name])
		fmt.Printf(" %12.3f %12.3f\n", ours/median(all[1].calls[name]), ours/median(all[2].calls[name]))
	}
	fmt.Println("(ratio: tare-runtime divided by the other; below 1, tare-runtime's filter is the faster)")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}
