package plan_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// execSpec is what lifecycle makes of a container's configuration for exec.
func execSpec(container *specs.Spec, p *specs.Process) *specs.Spec {
	l := container.Linux
	return &specs.Spec{Version: container.Version, Process: p, Linux: &specs.Linux{
		Namespaces: l.Namespaces, UIDMappings: l.UIDMappings, GIDMappings: l.GIDMappings, Seccomp: l.Seccomp,
		Personality: l.Personality, MemoryPolicy: l.MemoryPolicy}}
}

// A second process in the container of each configuration: the recorded one of
// an engine, or the container's own.
func TestGoldenExec(t *testing.T) {
	for _, c := range []struct{ name, config, process string }{
		{"exec-default", "testdata/default.json", ""},
		{"exec-userns", "testdata/userns.json", ""},
		{"exec-v1", "testdata/v1-default.json", ""},
		{"exec-attributes", "testdata/default.json", "testdata/process/attributes.json"},
		{"exec-docker", "../../test/engines/configs/docker-first.json", "../../test/engines/configs/docker-exec-process.json"},
		{"exec-containerd", "../../test/engines/configs/containerd-first.json", "../../test/engines/configs/containerd-exec-process.json"},
		{"exec-containerd-cri", "../../test/engines/configs/containerd-cri-last.json", "../../test/engines/configs/containerd-cri-exec-process.json"},
		{"exec-podman", "../../test/engines/configs/podman-first.json", "../../test/engines/configs/podman-exec-process.json"},
		{"exec-podman-rootless", "../../test/engines/configs/podman-rootless-first.json", "../../test/engines/configs/podman-rootless-exec-process.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := os.ReadFile(c.config)
			if err != nil {
				t.Fatal(err)
			}
			container := decode(t, data)
			p := container.Process
			if c.process != "" {
				if p, err = spec.LoadProcess(c.process); err != nil {
					t.Fatal(err)
				}
			}
			s := execSpec(container, p)
			f := &plan.Facts{Host: machine(), ID: "test", Bundle: "/bundle", Home: "/root"}
			if c.name == "exec-v1" {
				f.Host.CgroupMode, f.Host.Unified, f.CgroupFiles = host.CgroupV1, nil, 2
			}
			var out strings.Builder
			compiled, err := plan.CompileExec(s, f)
			if err != nil {
				out.WriteString("error: " + err.Error() + "\n")
			} else if err := errors.Join(compiled.Verify(), compiled.Print(&out, false)); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+c.name+".plan", out.String())
		})
	}
}
