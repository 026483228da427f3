package runtimecli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

// groff reads the manual page without a complaint, and every command is in it.
func TestManual(t *testing.T) {
	var page, complaints bytes.Buffer
	manual(&page)
	cmd := exec.Command(testenv.Tool(t, "groff"), "-man", "-Tascii", "-P-cbou", "-ww")
	cmd.Stdin, cmd.Stderr = &page, &complaints
	text, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("groff: %v\n%s", err, &complaints)
	}
	for _, c := range commands() {
		if !strings.Contains(strings.ReplaceAll(string(text), "\n", " \n"), "\n   "+c.name+" ") {
			t.Errorf("no %s in the page:\n%s", c.name, text)
		}
	}
}
