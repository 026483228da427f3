package engines

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/testenv"
)

// TestSystemd runs testdata/systemd.sh, Podman and Docker with systemd's control
// groups of version 2, in a machine.
func TestSystemd(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	runtime, image := testenv.Runtime(t), testenv.BaseImage(t)
	servers := filepath.Dir(filepath.Dir(filepath.Dir(testenv.Tool(t, "dockerd"))))
	vm := testenv.VM{Systemd: true, Timeout: 25 * time.Minute, Share: []string{dir, filepath.Dir(runtime), filepath.Dir(image), servers}}
	if out := vm.Run(t, "bash", filepath.Join(dir, "systemd.sh"), runtime, image, servers); !strings.HasSuffix(out, "passed\n") {
		t.Error(out)
	}
}
