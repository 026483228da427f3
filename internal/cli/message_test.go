package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What registries want people to know is printed once, at the end, and not too much
// of it.
func TestRegistryWarnings(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		out, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		a := &app{stdout: out, stderr: out, getenv: os.Getenv, logFormat: "text", quiet: quiet}
		for i := range 2 * maxRegistryWarnings {
			a.warnings.add("registry.example.com", "moving")
			a.warnings.add("registry.example.com", fmt.Sprint("number ", i))
		}
		if status := a.finish(&cobra.Command{}, nil); status != 0 {
			t.Error(status)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		lines, want := strings.Split(string(text), "\n"), "warning: registry registry.example.com: moving"
		if quiet && len(text) > 0 || !quiet && (len(lines) != maxRegistryWarnings+1 || lines[0] != want) {
			t.Errorf("%s", text)
		}
	}
}
