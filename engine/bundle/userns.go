package bundle

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setUserNamespace gives the container a user namespace, and leaves out what
// cannot be had in it.
func setUserNamespace(s *specs.Spec, o Options) {
	if len(o.UIDMappings) == 0 {
		return
	}
	l := s.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings, l.GIDMappings = o.UIDMappings, o.GIDMappings
	for i := range s.Mounts {
		m := &s.Mounts[i]
		m.Options = slices.DeleteFunc(m.Options, func(option string) bool {
			gid, ok := strings.CutPrefix(option, "gid=")
			return ok && !isMapped(o.GIDMappings, gid)
		})
	}
	if !o.Rootless {
		return
	}
	// The caller is the namespace's root, and its only user. Control groups are
	// not the caller's to set.
	l.Resources = nil
	s.Process.User = specs.User{}
	caps := s.Process.Capabilities
	caps.Effective, caps.Permitted = caps.Bounding, caps.Bounding
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

// isMapped says whether the mappings have a group, of those that default mounts
// name: numbers below ten.
func isMapped(mappings []specs.LinuxIDMapping, id string) bool {
	return len(id) == 1 && slices.ContainsFunc(mappings, func(m specs.LinuxIDMapping) bool {
		n := uint32(id[0] - '0')
		return n >= m.ContainerID && n-m.ContainerID < m.Size
	})
}
