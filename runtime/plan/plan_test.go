package plan_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine is a made-up host with everything a container may want.
func machine() host.Facts {
	return host.Facts{Arch: "amd64", Kernel: host.Version{Major: 6, Minor: 1}, LastCap: 40, Caps: 1<<41 - 1, AppArmor: true, SELinux: true,
		CgroupMode: host.CgroupV2, Unified: &host.Hierarchy{Mountpoint: "/sys/fs/cgroup", MountRoot: "/", OwnPath: "/"}}
}

// facts are what a parent would find out for s, where every source of a bind
// mount is a directory.
func facts(s *specs.Spec) *plan.Facts {
	f := &plan.Facts{Host: machine(), ID: "test", Bundle: "/bundle", Wait: true, Home: "/root", Kcore: true,
		Cgroups: []plan.CgroupDir{{Path: "/sys/fs/cgroup/test"}}, Sources: map[string]plan.Source{}}
	for _, m := range s.Mounts {
		f.Sources[m.Source] = plan.Source{Dir: !strings.HasPrefix(m.Destination, "/etc/")}
	}
	return f
}

func decode(t testing.TB, data []byte) *specs.Spec {
	t.Helper()
	s, err := spec.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each testdata/NAME.json compiles to testdata/NAME.plan, or to the error in it.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no input: %v", err)
	}
	engines, err := filepath.Glob("../../test/engines/configs/*st.json") // the first and the last of each
	if err != nil || len(engines) == 0 {
		t.Fatalf("no recorded configurations: %v", err)
	}
	for _, path := range append(inputs, engines...) {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := decode(t, data)
			f := facts(s)
			if strings.HasPrefix(name, "v1-") {
				version1(f)
			}
			var out strings.Builder
			p, err := plan.Compile(s, f)
			if err != nil {
				out.WriteString("error: " + err.Error() + "\n")
			} else if err := errors.Join(p.Verify(), p.Print(&out, false)); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".plan", out.String())
		})
	}
}

// version1 gives the container control groups of version 1.
func version1(f *plan.Facts) {
	f.Host.CgroupMode, f.Host.Unified = host.CgroupV1, nil
	f.CgroupFiles, f.CgroupsBeside, f.Cgroups = 2, true, []plan.CgroupDir{
		{Name: "cpu,cpuacct", Aliases: []string{"cpu", "cpuacct"}, Path: "/sys/fs/cgroup/cpu,cpuacct/test", Joins: true},
		{Name: "memory", Path: "/sys/fs/cgroup/memory/test", Joins: true},
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		is, was := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		t.Errorf("%s is out of date; after a look at the difference: go test ./runtime/plan -update\n-%s\n+%s", path,
			strings.Join(without(was, is), "\n-"), strings.Join(without(is, was), "\n+"))
	}
}

// The plan is the same for both architectures but for the numbers.
func TestBothArchitectures(t *testing.T) {
	s := spec.Example(false)
	s.Process.Terminal = false
	for _, arch := range []string{"amd64", "arm64"} {
		f := facts(s)
		f.Host.Arch = arch
		p, err := plan.Compile(s, f)
		if err != nil {
			t.Fatal(err)
		}
		im, err := p.Program()
		if err != nil {
			t.Fatal(err)
		}
		if len(im.ELF) > 40<<10 {
			t.Errorf("%s: image of %d bytes", arch, len(im.ELF))
		}
	}
}

func TestJSON(t *testing.T) {
	s := spec.Example(false)
	p, err := plan.Compile(s, facts(s))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Namespaces []string
		Steps      []struct {
			Op, Text, Field string
			Calls           []string
		}
	}
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	last := back.Steps[len(back.Steps)-1]
	if last.Op != "execve" || last.Field != "process.args" || len(last.Calls) == 0 {
		t.Errorf("last step: %+v", last)
	}
}

// Whatever is asked for and not done is an error that names the field.
func TestErrorsNameTheField(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"process.args: no command":                    func(s *specs.Spec) { s.Process.Args = nil },
		`"nope": executable file not found in $PATH`:  func(s *specs.Spec) { s.Process.Args, s.Process.Env = []string{"nope"}, nil },
		"process.rlimits[0].type: unknown":            func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"process.apparmorProfile: AppArmor is not":    func(s *specs.Spec) { s.Process.ApparmorProfile = "p" },
		"process.selinuxLabel: SELinux is not":        func(s *specs.Spec) { s.Process.SelinuxLabel = "l" },
		"process.scheduler.policy: unknown":           func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_X"} },
		"process.ioPriority.class: unknown":           func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} },
		"linux.personality.domain: unknown":           func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "X"} },
		"linux.memoryPolicy.nodes":                    func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "x"} },
		`linux.sysctl["kernel.pid_max"]: not allowed`: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.pid_max": "9"} },
		`linux.sysctl["net.a"]: not allowed`: func(s *specs.Spec) {
			s.Linux.Namespaces[1].Path = "/host/net"
			s.Linux.Sysctl = map[string]string{"net.a": "1"}
		},
		"linux.namespaces[0].type: unknown": func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "x" },
		"linux.rootfsPropagation: unknown":  func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" },
		"linux.uidMappings: a new user namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		},
		"mounts[0].source: bind mount source":                     func(s *specs.Spec) { s.Mounts[0] = specs.Mount{Destination: "/x", Source: "/missing", Type: "bind"} },
		"mounts[1].destination: a mount on":                       func(s *specs.Spec) { s.Mounts[1].Destination = "/" },
		`mounts[5].options: "tmpcopyup" has no effect on a sysfs`: func(s *specs.Spec) { s.Mounts[5].Options = []string{"tmpcopyup"} },
		`linux.devices[1].path: "/dev/x" is that of another device, of linux.devices[0]`: func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}, {Path: "//dev/./x", Type: "c", Major: 1, Minor: 5}}
		},
		"linux.devices[0].type: unknown": func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} },
		"linux.seccomp":                  func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_WHAT"} },
	} {
		s := spec.Example(false)
		change(s)
		f := facts(s)
		f.Sources["/missing"] = plan.Source{Missing: true}
		f.Host.AppArmor, f.Host.SELinux, f.OwnNamespaces = false, false, []string{"/host/net"}
		_, err := plan.Compile(s, f)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// One device twice is there once, as the first says.
func TestDeviceTwice(t *testing.T) {
	s := spec.Example(false)
	mode := os.FileMode(0o600)
	d := specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}
	s.Linux.Devices = []specs.LinuxDevice{d, d, {Path: "/dev/x", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
	p, err := plan.Compile(s, facts(s))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Warnings, "; "); got != `linux.devices[2]: left out: mode and owner of "/dev/x" are those of linux.devices[0]` {
		t.Errorf("warnings: %s", got)
	}
	var text strings.Builder
	if err := p.Print(&text, false); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), `"x" c 0666 1:3`); n != 1 {
		t.Errorf("made %d times:\n%s", n, &text)
	}
}

// What cannot be granted is left out with a warning (config.md, capabilities).
func TestUngrantableCapabilities(t *testing.T) {
	s := spec.Example(false)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_SYS_RESOURCE", "CAP_MADE_UP"}}
	f := facts(s)
	f.Host.Caps &^= 1 << 24 // CAP_SYS_RESOURCE
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Warnings, "; "); got !=
		"process.capabilities.bounding: unknown: CAP_MADE_UP; process.capabilities.bounding: cannot be granted: CAP_SYS_RESOURCE" {
		t.Errorf("warnings: %s", got)
	}
}

// Any configuration is an error or a plan that verifies.
func FuzzCompile(f *testing.F) {
	for _, glob := range []string{"testdata/*.json", "../../test/engines/configs/*-first.json"} {
		paths, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := spec.Decode(data)
		if err != nil || spec.Validate(s) != nil {
			return
		}
		p, err := plan.Compile(s, facts(s))
		check(t, p, err)
	})
}
