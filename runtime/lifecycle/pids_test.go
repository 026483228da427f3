package lifecycle_test

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// One process is enough for a container, also where another had to show it the
// way into its namespaces.
func TestOneProcess(t *testing.T) {
	for name, change := range map[string]func(*bundle){
		"as usual":            func(*bundle) {},
		"in a user namespace": (*bundle).userNamespace,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, "echo here; (true) 2>&1 || true")
			change(b)
			b.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](1)}}
			out, status := b.run()
			if status == 0 && out == "here" || out == "" {
				t.Errorf("printed %q, exit status %d: want a fork that fails", out, status)
			}
		})
	}
}
