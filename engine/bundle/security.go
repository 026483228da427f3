package bundle

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/seccomp/defaultprofile"
)

// defaultCapabilities are docker's.
func defaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

func setSecurity(s *specs.Spec, o Options) error {
	caps, err := capabilities(o.CapAdd, o.CapDrop)
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if s.Process.User.UID == 0 {
		// Another user has none to begin with, as after any execve; inheritable
		// ones would come to life in files (CVE-2022-24769).
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = caps, caps
	}
	return setSecurityOpts(s, caps, o.SecurityOpts)
}

// capabilities are the default ones with what the user adds and drops, sorted.
func capabilities(add, drop []string) ([]string, error) {
	all := func() []string {
		var names []string
		for n := 0; n <= linux.CapabilityLast; n++ {
			names = append(names, linux.CapabilityName(n))
		}
		return names
	}
	caps := defaultCapabilities()
	expand := func(flag string, names []string) ([]string, error) {
		var out []string
		for _, name := range names {
			name = strings.ToUpper(name)
			if name == "ALL" {
				out = append(out, all()...)
				continue
			}
			if !strings.HasPrefix(name, "CAP_") {
				name = "CAP_" + name
			}
			if _, ok := linux.Capability(name); !ok {
				return nil, fmt.Errorf("%s capability: unknown capability %.100q", flag, name)
			}
			out = append(out, name)
		}
		return out, nil
	}
	add, err := expand("add", add)
	if err != nil {
		return nil, err
	}
	dropAll := slices.ContainsFunc(drop, func(d string) bool { return strings.EqualFold(d, "all") })
	if drop, err = expand("drop", drop); err != nil {
		return nil, err
	}
	// "Drop all, add one" gives that one; otherwise what is dropped is gone.
	if dropAll {
		caps, drop = nil, nil
	}
	caps = slices.DeleteFunc(append(caps, add...), func(c string) bool { return slices.Contains(drop, c) })
	slices.Sort(caps)
	return slices.Compact(caps), nil
}

func setSecurityOpts(s *specs.Spec, caps []string, opts []string) error {
	native, ok := linux.NativeArch(runtime.GOARCH)
	if !ok {
		return fmt.Errorf("unknown architecture %s", runtime.GOARCH)
	}
	s.Linux.Seccomp = defaultprofile.New(native, caps)
	for _, opt := range opts {
		name, value, _ := strings.Cut(opt, "=")
		if value == "" {
			// docker's old way to write it
			name, value, _ = strings.Cut(opt, ":")
		}
		switch {
		case name == "no-new-privileges" && (value == "" || value == "true"):
			s.Process.NoNewPrivileges = true
		case name == "no-new-privileges" && value == "false":
			s.Process.NoNewPrivileges = false
		case name == "seccomp" && value == "unconfined":
			s.Linux.Seccomp = nil
		case name == "seccomp" && value != "":
			profile, err := loadProfile(value, caps)
			if err != nil {
				return fmt.Errorf("seccomp profile: %w", err)
			}
			s.Linux.Seccomp = profile
		default:
			return fmt.Errorf("security option %.300q: it must be no-new-privileges, seccomp=unconfined or seccomp=FILE", opt)
		}
	}
	return nil
}

const maxProfileBytes = 4 << 20

// loadProfile reads a seccomp profile: docker's format, which is that of
// config.json with conditions, or that of config.json itself.
func loadProfile(path string, caps []string) (*specs.LinuxSeccomp, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxProfileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxProfileBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxProfileBytes)
	}
	profile, err := parseProfile(data, caps)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return profile, nil
}

// dockerProfile is docker's format of seccomp profiles.
type dockerProfile struct {
	specs.LinuxSeccomp
	ArchMap []struct {
		Arch     specs.Arch   `json:"architecture"`
		SubArchs []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []struct {
		specs.LinuxSyscall
		Name     string          `json:"name"`
		Includes dockerCondition `json:"includes"`
		Excludes dockerCondition `json:"excludes"`
	} `json:"syscalls"`
}

// dockerCondition is what a rule depends on. Conditions on the kernel are about
// versions older than any we run on.
type dockerCondition struct {
	Caps   []string `json:"caps"`
	Arches []string `json:"arches"`
}

func parseProfile(data []byte, caps []string) (*specs.LinuxSeccomp, error) {
	var d dockerProfile
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	if d.DefaultAction == "" {
		return nil, fmt.Errorf("defaultAction: missing")
	}
	native, _ := linux.NativeArch(runtime.GOARCH)
	p := d.LinuxSeccomp
	for _, m := range d.ArchMap {
		if m.Arch == native.Spec() {
			p.Architectures = append(append(p.Architectures, m.Arch), m.SubArchs...)
		}
	}
	has := func(c string) bool { return slices.Contains(caps, c) }
	here := func(a string) bool { return a == runtime.GOARCH }
	for _, rule := range d.Syscalls {
		in, out := rule.Includes, rule.Excludes
		if len(in.Arches) > 0 && !slices.ContainsFunc(in.Arches, here) || slices.ContainsFunc(out.Arches, here) ||
			slices.ContainsFunc(in.Caps, func(c string) bool { return !has(c) }) || slices.ContainsFunc(out.Caps, has) {
			continue
		}
		if rule.Name != "" {
			rule.Names = append(rule.Names, rule.Name)
		}
		p.Syscalls = append(p.Syscalls, rule.LinuxSyscall)
	}
	return &p, nil
}
