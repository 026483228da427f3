package spec

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
)

// TestExampleIsRuncs compares with "runc spec". Its version of the specification, its host name and, where the host has
// cgroup v2 alone, its cgroup namespace differ on purpose. So do the ambient capabilities: without inheritable ones, which runc's
// example has not had since CVE-2022-29162, the kernel refuses them.
func TestExampleIsRuncs(t *testing.T) {
	runc := testenv.Tool(t, "runc")
	for _, rootless := range []bool{false, true} {
		dir := t.TempDir()
		cmd := exec.Command(runc, "spec", "--bundle", dir)
		if rootless {
			cmd.Args = append(cmd.Args, "--rootless")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want, err := Load(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		got := Example(rootless)
		got.Version, got.Hostname = want.Version, want.Hostname
		want.Process.Capabilities.Ambient = nil
		want.Linux.Namespaces = slices.DeleteFunc(want.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.CgroupNamespace })
		if !reflect.DeepEqual(got, want) {
			t.Errorf("rootless %v:\ngot  %+v\nwant %+v", rootless, got, want)
		}
	}
}
