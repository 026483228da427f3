// Command run measures what a container costs: create, start, wait and delete
// of /bin/true with the configuration that "runc spec" writes plus a default
// seccomp profile (Runtime Spec 1.3.0), side by side with crun and runc, and
// with the floor: the same program image started by a few lines of static C.
//
//	go run ./bench/run [-runs N]
//
// It needs root, and busybox-static, runc, crun and gcc installed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/seccomp/defaultprofile"
)

func main() {
	runs := flag.Int("runs", 100, "interleaved runs of each")
	flag.Parse()
	if err := run(context.Background(), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int) error {
	if again, err := privateMounts(); again || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeBundle(dir); err != nil {
		return err
	}
	ours := filepath.Join(dir, "tare-runtime")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", ours, "github.com/tare-oci/tare/cmd/tare-runtime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build tare-runtime: %w: %s", err, out)
	}
	floor, err := makeFloor(dir)
	if err != nil {
		return err
	}
	cases := []measure.Case{
		oneRun("tare-runtime", dir, ours, "--root", filepath.Join(state, "tare")),
		oneRun("crun", dir, "crun", "--root", filepath.Join(state, "crun")),
		oneRun("runc", dir, "runc", "--root", filepath.Join(state, "runc")),
		{Name: "floor", Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, floor), nil
		}},
	}
	table, err := measure.Compare(ctx, runs, cases)
	if err != nil {
		return err
	}
	fmt.Printf("create + start + wait + delete of /bin/true, %d runs each, medians\n", runs)
	fmt.Print(table)
	return nil
}

func oneRun(name, bundle, command string, global ...string) measure.Case {
	return measure.Case{Name: name, Command: func(ctx context.Context, run int) (*exec.Cmd, error) {
		args := append(append([]string{}, global...), "run", "--bundle", bundle, "bench-"+name+"-"+strconv.Itoa(run+1))
		return exec.CommandContext(ctx, command, args...), nil
	}}
}

// state is where the runtimes keep theirs: in memory, as /run is.
const state = "/dev/shm/tare-bench-run"

// privateMounts runs this program again in a mount namespace of its own, with
// memory for the state, and without the version 2 hierarchy of a hybrid
// machine, which Debian's crun refuses. Nothing outside changes.
func privateMounts() (again bool, err error) {
	if os.Getenv("TARE_BENCH_PRIVATE") != "" {
		if err := os.MkdirAll(state, 0o700); err != nil {
			return false, err
		}
		return false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	const script = `mount -t tmpfs tmpfs /dev/shm || exit 1
		if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified || exit 1; fi
		exec "$0" "$@"`
	cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), "TARE_BENCH_PRIVATE=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return false, fmt.Errorf("in a private mount namespace: %w", err)
	}
	return true, nil
}

// makeBundle writes a bundle that all three runtimes understand.
func makeBundle(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("busybox-static: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "true"), busybox, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	native, _ := linux.NativeArch(runtime.GOARCH)
	s.Process.Terminal = false
	s.Process.Args = []string{"/bin/true"}
	// runc drops what it cannot raise, in silence.
	s.Process.Capabilities.Ambient = nil
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}}
	s.Linux.Seccomp = defaultprofile.New(native, s.Process.Capabilities.Bounding)
	if data, err = json.Marshal(&s); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
