// Package runtimes is what the benchmarks of container runtimes share: a bundle
// (Runtime Spec 1.3.0, bundle.md) for tare-runtime, crun and runc, and a place where all
// three run.
package runtimes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/seccomp/defaultprofile"
)

// Build builds tare-runtime as it is released, into dir.
func Build(dir string) (path string, err error) {
	path = filepath.Join(dir, "tare-runtime")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/tare-oci/tare/cmd/tare-runtime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tare-runtime: %w: %s", err, out)
	}
	return path, nil
}

// State is where the runtimes keep theirs: in memory, as /run is.
const State = "/dev/shm/tare-bench-run"

// PrivateMounts runs this program again in a mount namespace of its own, with
// memory for the state, and without the version 2 hierarchy of a hybrid
// machine, which Debian's crun refuses. Nothing outside changes.
func PrivateMounts() (again bool, err error) {
	if os.Getenv("TARE_BENCH_PRIVATE") != "" {
		if err := os.MkdirAll(State, 0o700); err != nil {
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

// MakeBundle writes a bundle that all three runtimes understand, with the
// configuration that "runc spec" writes plus a default seccomp profile. /bin/true
// and /bin/sleep are there to be run.
func MakeBundle(dir string, args ...string) error {
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
	if err := os.Symlink("true", filepath.Join(bin, "sleep")); err != nil {
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
	s.Process.Args = args
	// runc drops what it cannot raise, in silence.
	s.Process.Capabilities.Ambient = nil
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}}
	s.Linux.Seccomp = defaultprofile.New(native, s.Process.Capabilities.Bounding)
	if data, err = json.Marshal(&s); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
