package house

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

const fileSizeBytes = 1 << 20

// TestFilesBelongHere reads everything that is in the repository.
func TestFilesBelongHere(t *testing.T) {
	// A path below somebody's home, or of a workplace, means that something
	// works on one machine only. The homes of invented users may appear.
	machine := regexp.MustCompile(`/(home|Users)/[a-z]\w*|/work/\w+|/tmp/t/|/root/\.`)
	invented := regexp.MustCompile(`^/home/(alice|app|bob|gopher|test|u|user)$`)
	for _, name := range committed(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > fileSizeBytes {
			t.Errorf("%s has %d bytes; a clone is for reading: make it when needed, or keep it elsewhere.", name, len(text))
		}
		if name == "internal/house/files_test.go" || bytes.IndexByte(text, 0) >= 0 {
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			for _, path := range machine.FindAll(line, -1) {
				if !invented.Match(path) {
					t.Errorf("%s:%d: %s is a path of one machine.", name, i+1, path)
				}
			}
		}
	}
}
