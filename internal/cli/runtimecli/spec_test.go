package runtimecli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/spec"
)

// The examples that tare-runtime, runc and crun write run under each of the
// three, and a process sees the same everywhere.
func TestExamplesRunEverywhere(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	// crun does not work where version 1 and 2 are both mounted.
	if err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		t.Fatal(err)
	}
	runtimes := []string{"tare-runtime", testenv.Tool(t, "runc"), testenv.Tool(t, "crun")}
	for _, author := range runtimes {
		b := newBundle(t, "")
		cmd := exec.Command(author, "spec")
		cmd.Dir = b.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		data, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		b.Spec = new(specs.Spec)
		if err := json.Unmarshal(data, b.Spec); err != nil {
			t.Fatal(err)
		}
		b.Version = "1.0.2" // the newest that all of them know
		b.Process.Terminal = false
		// Not compared: /dev/core, a link that crun makes also where it leads to nothing, and
		// the options of the null device that hides a file.
		b.Process.Args = []string{"sh", "-c", `id; cat /proc/sys/kernel/hostname; ls /; ls /dev | grep -v core; ulimit -n
			grep -E '^(CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
			cut -d' ' -f5,6 /proc/self/mountinfo | sed 's,^\(/proc/[^ ]*\) .*,\1,' | sort | grep -v cgroup`}
		first := ""
		for _, runtime := range runtimes {
			if err := writeConfig(b.dir, b.Spec); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(runtime, "--root", filepath.Join(b.dir, "state"), "run", b.id)
			cmd.Dir = b.dir
			out, err := cmd.Output()
			if exit, ok := err.(*exec.ExitError); ok {
				t.Fatalf("%s's example under %s: %v\n%s%s", author, runtime, err, out, exit.Stderr)
			}
			if first == "" {
				first = string(out)
			} else if first != string(out) {
				t.Errorf("%s's example under %s:\n%s\nunder ours:\n%s", author, runtime, out, first)
			}
		}
	}
}

// The rootless example works for root as well.
func TestRootlessExample(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "")
	b.Spec = spec.Example(true)
	b.Process.Terminal = false
	b.Process.Args = []string{"sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map"}
	if out := b.output("run", "ID"); out != "0\n 0 0 1\n" {
		t.Errorf("printed %q", out)
	}
}

// output runs tare-runtime, which must not fail, and returns its standard
// output.
func (b *bundle) output(args ...string) string {
	b.t.Helper()
	cmd := b.command(args...)
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
