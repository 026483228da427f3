package testenv

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// missing ends the test because something it needs is not there: a failure
// where everything must be there, a skip on a developer's machine.
func missing(t testing.TB, what, remedy string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("TARE_TEST_STRICT") != "" {
		t.Fatalf("NOT TESTED: %s; %s", what, remedy)
	}
	t.Skipf("NOT TESTED: %s; %s", what, remedy)
}

// Root ends the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "this needs root", "run it with sudo or as root")
	}
}

// Images returns the directory that holds the test images, each an OCI image
// layout: small, medium, manyfiles, zstd and multiarch. They are read-only.
// What is in them is told at the top of test/images/make-images.sh.
func Images(t testing.TB) string {
	t.Helper()
	const remedy = "export TARE_TEST_IMAGES=$(test/images/make-images.sh), as root, or use test/run"
	dir := os.Getenv("TARE_TEST_IMAGES")
	if dir == "" {
		missing(t, "TARE_TEST_IMAGES is not set", remedy)
	}
	if _, err := os.Stat(filepath.Join(dir, "small", "index.json")); err != nil {
		missing(t, "no images: "+err.Error(), remedy)
	}
	return dir
}

// Tool returns the path of an installed command, such as skopeo.
func Tool(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, "no command "+name, "test/run installs the Debian package that has it")
	return ""
}

// Command returns the path of one of the module's own commands, "tare" or
// "tare-runtime": as built by test/run, or else built now.
func Command(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("TARE_TEST_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", out, "./cmd/"+name)
	cmd.Dir = moduleRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/%s: %v\n%s", name, err, b)
	}
	return out
}

// Run runs a command of the system to its end and returns what it wrote to
// stdout; when it fails the test fails with what it wrote to stderr.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(Tool(t, name), args...)
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr)
	}
	return string(out)
}

// moduleRoot returns the directory of this module's go.mod: tests run in their
// package's own, and some packages are modules below this one.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if text, _ := os.ReadFile(filepath.Join(dir, "go.mod")); bytes.HasPrefix(text, []byte("module github.com/tare-oci/tare\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod in any parent of the working directory")
		}
		dir = parent
	}
}

// GoBuild is the command that builds one of the modules below this one.
func GoBuild(t testing.TB, dir, out string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = filepath.Join(moduleRoot(t), dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
