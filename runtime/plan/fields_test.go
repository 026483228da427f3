package plan_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
)

// TestFields compiles small additions to a small configuration. In
// testdata/fields/*.txt each has a line with its name, the addition as a line of
// JSON, and then what it changes in the plan: lines that it adds, and after a
// minus those that it takes away; or the errors. A line "facts: …" before the JSON names what
// is different on the machine (see setFacts).
func TestFields(t *testing.T) {
	paths, err := filepath.Glob("testdata/fields/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for section := range strings.SplitSeq("\n"+strings.TrimSpace(string(data)), "\n== ") {
			if strings.TrimSpace(section) != "" {
				fieldSection(t, &out, section)
			}
		}
		golden(t, path, out.String())
	}
}

func fieldSection(t *testing.T, out *strings.Builder, section string) {
	t.Helper()
	lines := strings.Split(section, "\n")
	name, lines := lines[0], lines[1:]
	var words []string
	if list, ok := strings.CutPrefix(lines[0], "facts: "); ok {
		words, lines = strings.Fields(list), lines[1:]
	}
	base, ok := planLines(t, slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "no-pivot" }), "{}")
	if !ok {
		base, _ = planLines(t, nil, "{}") // on that machine it cannot be
	}
	changed, ok := planLines(t, words, lines[0])
	if !ok {
		base = nil // the errors alone are of interest
	}
	out.WriteString("== " + name + "\n")
	if words != nil {
		out.WriteString("facts: " + strings.Join(words, " ") + "\n")
	}
	out.WriteString(lines[0] + "\n")
	for _, line := range without(base, changed) {
		out.WriteString("- " + line + "\n")
	}
	for _, line := range without(changed, base) {
		out.WriteString("  " + line + "\n")
	}
	out.WriteString("\n")
}

// without returns the lines that are not among others, each as often as it is
// there more.
func without(lines, others []string) (rest []string) {
	others = slices.Clone(others)
	for _, line := range lines {
		if i := slices.Index(others, line); i >= 0 {
			others = slices.Delete(others, i, i+1)
		} else {
			rest = append(rest, line)
		}
	}
	return rest
}

// smallSpec is a configuration with little more than has to be in one.
func smallSpec() *specs.Spec {
	return &specs.Spec{Version: "1.3.0", Root: &specs.Root{Path: "rootfs"}, Process: &specs.Process{Args: []string{"/sh"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}}}
}

// planLines compiles a minimal configuration with an addition.
func planLines(t *testing.T, words []string, addition string) (lines []string, ok bool) {
	t.Helper()
	s := smallSpec()
	if err := json.Unmarshal([]byte(addition), s); err != nil {
		t.Fatalf("%s: %v", addition, err)
	}
	f := facts(s)
	for _, w := range words {
		setFacts(t, s, f, w)
	}
	p, err := plan.Compile(s, f)
	if err != nil {
		return strings.Split(err.Error(), "\n"), false
	}
	var out strings.Builder
	if err := errors.Join(p.Verify(), p.Print(&out, false)); err != nil {
		t.Fatal(err)
	}
	lines = strings.Split(strings.TrimSpace(out.String()), "\n")
	// How many descriptors there are is not of interest.
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "begin as ") }), true
}

func setFacts(t *testing.T, s *specs.Spec, f *plan.Facts, word string) {
	t.Helper()
	switch word {
	case "v1":
		version1(f)
	case "userns":
		newUser(s, specs.LinuxIDMapping{ContainerID: 0, HostID: 100000, Size: 65536})
	case "rootless": // without any capability
		unprivileged(f)
		newUser(s, specs.LinuxIDMapping{ContainerID: 0, HostID: 1000, Size: 1})
	case "unprivileged":
		unprivileged(f)
	case "inside": // a user namespace
		f.Host.InUserNamespace = true
	case "selinux", "no-selinux":
		f.Host.SELinux = word == "selinux"
	case "no-apparmor":
		f.Host.AppArmor = false
	case "few-capabilities":
		f.Host.Caps &^= 1<<linux.CAP_SETPCAP | 1<<24 // CAP_SYS_RESOURCE
	case "keyring": // stays the caller's
		f.NoNewKeyring = true
	case "foreground":
		f.Foreground = true
	case "own-net": // the namespace that is joined is ours
		f.OwnNamespaces = []string{"/ns/net"}
	case "resctrl":
		f.Resctrl = "/sys/fs/resctrl"
	case "copy": // what the first mount hides is there
		f.TmpfsModes, f.CopySources = map[int]uint32{0: 0o750}, map[int]plan.CopySource{0: {Root: "/bundle/rootfs", Name: "run"}}
	case "files": // of all kinds, in what the first mount hides
		f.CopySources[0] = plan.CopySource{Root: "/bundle/rootfs", Name: "run", Files: []plan.CopyFile{{Name: "a", Mode: 0o042750, GID: 5},
			{Name: "a/f", Mode: 0o104755, UID: 1, SizeBytes: 10}, {Name: "a/empty", Mode: 0o100600}, {Name: "a/l", Mode: 0o120777, Target: "/etc"},
			{Name: "p", Mode: 0o010600}}}
	case "no-pivot":
		f.NoPivot, f.HostMounts = true, []string{"/sys", "/proc"}
	case "node": // a file where /dev/z goes
		f.Nodes = map[string]plan.Node{"/dev/z": {Type: 'f'}}
	case "host-node": // the host's /dev/z is the null device
		f.HostNodes = map[string]plan.Node{"/dev/z": {Type: 'c', Major: 1, Minor: 3, Mode: 0o666}}
	case "procfs": // the sources of bind mounts are
		for name, source := range f.Sources {
			source.Proc = true
			f.Sources[name] = source
		}
	default:
		t.Fatalf("unknown fact %q", word)
	}
}

func unprivileged(f *plan.Facts) { f.Host.Caps, f.Host.UID, f.Host.GID = 0, 1000, 1000 }

// newUser gives the container a user namespace of its own.
func newUser(s *specs.Spec, m specs.LinuxIDMapping) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{m}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}
