package validation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/testenv"
)

// patience is for one program; the slowest takes 12 seconds.
const patience = 3 * time.Minute

func TestValidation(t *testing.T) {
	testenv.Root(t)
	programs := build(t)
	command := wrapper(t)
	known := readKnown(t, groups(t))
	entries, err := filepath.Glob(filepath.Join(programs, "*"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, program := range entries {
		name := filepath.Base(program)
		if name == "runtimetest" || strings.HasPrefix(name, "rootfs-") {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			// These use control groups of fixed names.
			if !strings.Contains(name, "cgroups") && !strings.HasPrefix(name, "delete") {
				t.Parallel()
			}
			judge(t, known[name], failures(t, program, command))
		})
	}
	if ran < 58 {
		t.Errorf("%d programs in %s, want 58", ran, programs)
	}
}

// build returns the directory with the programs and what they need beside them:
// as test/run has built them, or built now.
func build(t *testing.T) string {
	if dir := os.Getenv("TARE_TEST_BIN"); dir != "" {
		return filepath.Join(dir, "validation")
	}
	dir := t.TempDir()
	if out, err := exec.Command("./build", dir).CombinedOutput(); err != nil {
		t.Fatalf("./build: %v\n%s", err, out)
	}
	return dir
}

// wrapper returns a command for the programs to call, which know no flags
// before the verb.
func wrapper(t *testing.T) string {
	path, state := filepath.Join(t.TempDir(), "runtime"), filepath.Join(t.TempDir(), "state")
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", testenv.Command(t, "tare-runtime"), state)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // some programs leave what a test of theirs has failed on
		left, _ := os.ReadDir(state) // it may never have been made
		for _, c := range left {
			if out, err := exec.Command(path, "delete", "--force", c.Name()).CombinedOutput(); err != nil {
				t.Errorf("delete --force %s: %v\n%s", c.Name(), err, out)
			}
		}
	})
	return path
}

// failures runs a program and returns the assertions that failed.
func failures(t *testing.T, program, command string) []string {
	cmd := exec.Command(program)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), "RUNTIME="+command, "TMPDIR="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer stop.Stop()
	var failed []string
	if err := cmd.Wait(); err != nil {
		failed = append(failed, "exit: "+err.Error())
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	asserted, said := false, []string(nil)
	for line := range strings.Lines(stdout.String()) {
		asserted = asserted || strings.HasPrefix(line, "ok ")
		if rest, ok := strings.CutPrefix(line, "not ok "); ok {
			_, text, _ := strings.Cut(rest, " - ")
			failed, asserted = append(failed, strings.TrimSpace(text)), true
		}
		if _, text, ok := strings.Cut(line, `"error": "`); ok {
			said = append(said, text)
		}
	}
	if !asserted { // some say nothing when all is well, and what is wrong in a remark
		failed = append(failed, said...)
	}
	if len(failed) > 0 {
		t.Logf("%s", tail(stderr.String()))
	}
	return failed
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// An exception is a line of known.txt.
type exception struct {
	line    string
	pattern *regexp.Regexp
	maybe   bool // it does not always fail
}

// judge compares what failed with what is known to.
func judge(t *testing.T, known []exception, failed []string) {
	met := map[string]bool{}
	for _, text := range failed {
		found := false
		for _, k := range known {
			if k.pattern.MatchString(text) {
				found, met[k.line] = true, true
			}
		}
		if !found {
			t.Errorf("failed: %s", text)
		}
	}
	for _, k := range known {
		if !met[k.line] && !k.maybe {
			t.Errorf("known.txt is out of date, this did not fail: %s", k.line)
		}
	}
}

// readKnown reads known.txt, what concerns this machine.
func readKnown(t *testing.T, where string) map[string][]exception {
	data, err := os.ReadFile("known.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]exception{}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		head, reason, ok := strings.Cut(strings.TrimSpace(line), " # ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 3 || reason == "" {
			t.Fatalf("known.txt: %q: want PROGRAM WHERE PATTERN # reason", line)
		}
		pattern, err := regexp.Compile(strings.Join(fields[2:], " "))
		if err != nil {
			t.Fatalf("known.txt: %q: %v", line, err)
		}
		at, maybe := strings.CutSuffix(fields[1], "?")
		if at == "any" || at == where {
			known[fields[0]] = append(known[fields[0]], exception{head, pattern, maybe})
		}
	}
	return known
}

// groups is the version of this machine's control groups.
func groups(t *testing.T) string {
	if runtime.GOARCH != "amd64" {
		t.Fatalf("the programs' root file system is for amd64, this is %s", runtime.GOARCH)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "v2"
	}
	return "v1"
}
