package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

// A step of the tutorial is a command and what it shows below it.
type step struct {
	line    int // in the file
	command string
	want    []string
}

// tutorial reads the steps out of a page: in blocks of
//
//	```console
//	$ command that is run
//	output that it must have
//	```
//
// a command goes on in the next line after a backslash. In the output, … stands
// for any text in a line, and for any number of lines where it is alone.
func tutorial(t *testing.T, path string) (steps []step) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inside, continued := false, false
	for i, l := range strings.Split(string(text), "\n") {
		last := len(steps) - 1
		switch {
		case l == "```console":
			inside = true
		case l == "```":
			inside = false
		case !inside:
		case continued:
			steps[last].command += "\n" + l
		case strings.HasPrefix(l, "$ "):
			steps = append(steps, step{line: i + 1, command: l[2:]})
		case last < 0:
			t.Fatalf("%s:%d: output before any command", path, i+1)
		default:
			steps[last].want = append(steps[last].want, l)
		}
		continued = inside && strings.HasSuffix(l, `\`)
	}
	return steps
}

func TestTutorial(t *testing.T)   { runPage(t, "tutorial.md") }
func TestMutatePage(t *testing.T) { runPage(t, "mutate.md") }
func TestImagesPage(t *testing.T) { runPage(t, "images.md") }

// runPage runs a page of the documentation word for word, in one shell as a
// reader would, and compares what each command prints with what the page shows.
func runPage(t *testing.T, name string) {
	t.Helper()
	testenv.Root(t)
	testenv.Leaks(t)
	images := testenv.Images(t)
	registry := testenv.Registry(t)
	testenv.PushLayout(t, registry, filepath.Join(images, "small"), "latest", "busybox")
	for _, tool := range []string{"jq", "skopeo", "runc"} {
		testenv.Tool(t, tool)
	}
	page := filepath.Join("..", "..", "docs", name)
	steps := tutorial(t, page)
	dir := t.TempDir()
	for i, got := range shell(t, dir, registry, steps) {
		s := steps[i]
		// Pages name the registry as readers have it.
		lines := strings.Split(strings.TrimRight(strings.ReplaceAll(got, registry, tutorialRegistry), "\n"), "\n")
		if got == "" {
			lines = nil
		}
		if !sameOutput(lines, s.want) {
			t.Errorf("%s:%d: $ %s\nprints:\n%s\nthe page shows:\n%s", page, s.line, s.command, strings.Join(lines, "\n"), strings.Join(s.want, "\n"))
		}
	}
}

// tutorialRegistry is the registry on the page.
const tutorialRegistry = "localhost:5000"

// shell runs the steps in one shell and returns what each printed.
func shell(t *testing.T, dir, registry string, steps []step) []string {
	t.Helper()
	const mark = "--- end of step ---"
	var script strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&script, "%s\necho '%s'\n", strings.ReplaceAll(s.command, tutorialRegistry, registry), mark)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "TARE_") }),
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	parts := strings.Split(string(out), mark+"\n")
	if len(parts) != len(steps)+1 {
		t.Fatalf("the shell ended early: %v\n%s", err, out)
	}
	return parts[:len(steps)]
}

// sameOutput compares output with what a page shows of it.
func sameOutput(got, want []string) bool {
	for i, w := range want {
		if strings.TrimSpace(w) == "…" {
			for skip := 0; skip <= len(got)-i; skip++ {
				if sameOutput(got[i+skip:], want[i+1:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || !sameLine(got[i], w) {
			return false
		}
	}
	return len(got) == len(want)
}

// sameLine does not mind how wide the gaps are next to what varies.
func sameLine(got, want string) bool {
	if !strings.Contains(want, "…") {
		return got == want
	}
	parts := strings.Split(want, "…")
	for i, p := range parts {
		parts[i] = regexp.MustCompile(` +`).ReplaceAllString(regexp.QuoteMeta(p), ` +`)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

func TestSameOutput(t *testing.T) {
	lines := func(s string) []string { return strings.Split(s, "\n") }
	for _, c := range []struct {
		got, want string
		same      bool
	}{
		{"a\nb", "a\nb", true}, {"a\nb", "a", false}, {"a", "a\nb", false},
		{"took 12 ms", "took … ms", true}, {"took 12 s", "took … ms", false}, {"x   y", "x …y", true}, {"a.c", "a…", true}, {"abc", "a.c…", false},
		{"a\nb\nc\nd", "a\n…\nd", true}, {"a\nd", "a\n…\nd", true}, {"a\nb\nc", "a\n…\nd", false}, {"a\nb", "a\n…", true}, {"a\nb\nc", "…\nb\n…", true},
	} {
		if got := sameOutput(lines(c.got), lines(c.want)); got != c.same {
			t.Errorf("%q and %q: %t", c.got, c.want, got)
		}
	}
}
