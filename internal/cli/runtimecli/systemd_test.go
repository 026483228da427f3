package runtimecli_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/testenv"
)

// TestSystemd runs testdata/systemd.sh where systemd is, with either version of cgroups.
func TestSystemd(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	runtime := testenv.Command(t, "tare-runtime")
	for _, v1 := range []bool{false, true} {
		vm := testenv.VM{Systemd: true, CgroupV1: v1, Timeout: 15 * time.Minute, Share: []string{dir, filepath.Dir(runtime)}}
		if out := vm.Run(t, "bash", filepath.Join(dir, "systemd.sh"), runtime); !strings.HasSuffix(out, "passed\n") {
			t.Errorf("cgroup v1 %v:\n%s", v1, out)
		}
	}
}
