//go:build linux

package host

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// maxOwnCgroupBytes bounds /proc/self/cgroup: 20 hierarchies with paths of PATH_MAX each.
	maxOwnCgroupBytes = 128 << 10
	// maxMountinfoBytes bounds what is read of mountinfo: some 100,000 mounts, the kernel's default limit (fs.mount-max), of 160 bytes.
	maxMountinfoBytes = 16 << 20
)

// probeCgroups fills the cgroup fields.
func (f *Facts) probeCgroups() error {
	buf := make([]byte, 4096)
	own, err := readAll("/proc/self/cgroup", buf)
	if errors.Is(err, unix.ENOENT) {
		// No CONFIG_CGROUPS, or no /proc. The second makes every later step fail by name.
		f.CgroupMode = CgroupNone
		return nil
	}
	if err != nil {
		return err
	}
	hs, unified := parseOwnCgroups(own)
	var st unix.Statfs_t
	if unified != nil && unix.Statfs(cgroupRoot, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
		unified.Mountpoint, unified.MountRoot = cgroupRoot, "/"
		if unified.OwnPath == "/" || unix.Access(cgroupRoot+unified.OwnPath, unix.F_OK) == nil {
			f.CgroupMode, f.Unified = CgroupV2, unified
			return nil
		}
		// Only a subtree is mounted, as in a container without a cgroup namespace: mountinfo knows which.
		hs = nil
		unified.Mountpoint = ""
	}
	if err := findMounts("/proc/self/mountinfo", hs, unified, buf); err != nil {
		return err
	}
	f.setCgroups(hs, unified)
	return nil
}

// setCgroups keeps the hierarchies that are mounted and names the mode.
func (f *Facts) setCgroups(hs []Hierarchy, unified *Hierarchy) {
	for _, h := range hs {
		if h.Mountpoint != "" {
			f.Hierarchies = append(f.Hierarchies, h)
		}
	}
	if unified != nil && unified.Mountpoint != "" {
		f.Unified = unified
	}
	switch v1 := len(f.Hierarchies) > 0; {
	case v1 && f.Unified != nil:
		f.CgroupMode = CgroupHybrid
	case v1:
		f.CgroupMode = CgroupV1
	case f.Unified != nil:
		f.CgroupMode = CgroupV2
	default:
		f.CgroupMode = CgroupNone
	}
}

// readAll reads a whole small kernel file, into buf as far as that suffices.
func readAll(path string, buf []byte) ([]byte, error) {
	fd, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("host: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if n == len(buf) {
			if n >= maxOwnCgroupBytes {
				return nil, fmt.Errorf("host: %s: longer than %d bytes", path, maxOwnCgroupBytes)
			}
			buf = append(buf, make([]byte, n)...)
		}
		m, err := read(fd, buf[n:])
		if err != nil {
			return nil, fmt.Errorf("host: read %s: %w", path, err)
		}
		if m == 0 {
			return buf[:n], nil
		}
		n += m
	}
}

// parseOwnCgroups reads /proc/self/cgroup: lines of ID:CONTROLLERS:PATH, where the unified hierarchy has ID 0 and no controllers.
func parseOwnCgroups(data []byte) (hs []Hierarchy, unified *Hierarchy) {
	for len(data) > 0 {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		id, rest, ok := strings.Cut(string(line), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		h := Hierarchy{OwnPath: strings.TrimSuffix(path, " (deleted)")}
		switch name, named := strings.CutPrefix(controllers, "name="); {
		case controllers == "":
			if id == "0" {
				unified = &h
			}
			continue
		case named && name != "":
			h.Name = name
		default:
			h.Controllers = strings.Split(controllers, ",")
		}
		hs = append(hs, h)
	}
	return hs, unified
}

// findMounts gives each hierarchy its mount. It stops as soon as all have one below /sys/fs/cgroup, which on a usual host is
// within the first page of mountinfo, however many thousand mounts follow.
func findMounts(path string, hs []Hierarchy, unified *Hierarchy, buf []byte) error {
	fd, err := open(path)
	if err != nil {
		return fmt.Errorf("host: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	for have, total := 0, 0; ; {
		n, err := read(fd, buf[have:])
		if err != nil {
			return fmt.Errorf("host: read %s: %w", path, err)
		}
		if n == 0 {
			return nil
		}
		if total += n; total > maxMountinfoBytes {
			return fmt.Errorf("host: %s: longer than %d bytes", path, maxMountinfoBytes)
		}
		have += n
		end := bytes.LastIndexByte(buf[:have], '\n') + 1
		for lines := buf[:end]; len(lines) > 0; {
			var line []byte
			line, lines, _ = bytes.Cut(lines, []byte{'\n'})
			if m, ok := parseCgroupMount(line); ok {
				m.assign(hs, unified)
			}
		}
		if allFound(hs, unified) {
			return nil
		}
		copy(buf, buf[end:have])
		if have -= end; have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func allFound(hs []Hierarchy, unified *Hierarchy) bool {
	for i := range hs {
		if !strings.HasPrefix(hs[i].Mountpoint, cgroupRoot) {
			return false
		}
	}
	return unified == nil || strings.HasPrefix(unified.Mountpoint, cgroupRoot)
}

// cgroupMount is one mountinfo line of type cgroup or cgroup2.
type cgroupMount struct {
	root, mountpoint, options string
	v2                        bool
	superOptions              string
}

// parseCgroupMount reads a mountinfo line (proc_pid_mountinfo(5)) if it is a cgroup mount:
//
//	35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
func parseCgroupMount(line []byte) (cgroupMount, bool) {
	i := bytes.Index(line, []byte(" - cgroup"))
	if i < 0 {
		return cgroupMount{}, false
	}
	front := strings.Fields(string(line[:i]))
	back := strings.Fields(string(line[i+len(" - "):]))
	if len(front) < 6 || len(back) < 3 || back[0] != "cgroup" && back[0] != "cgroup2" {
		return cgroupMount{}, false
	}
	return cgroupMount{
		root: unescape(front[3]), mountpoint: unescape(front[4]), options: front[5],
		v2: back[0] == "cgroup2", superOptions: back[len(back)-1],
	}, true
}

// assign notes the mount in the hierarchy it shows. The first mount wins, but one below /sys/fs/cgroup wins over one elsewhere:
// hosts mount copies for containers.
func (m *cgroupMount) assign(hs []Hierarchy, unified *Hierarchy) {
	var h *Hierarchy
	if m.v2 {
		h = unified
	} else {
		for i := range hs {
			if m.shows(&hs[i]) {
				h = &hs[i]
			}
		}
	}
	if h == nil || h.Mountpoint != "" && (strings.HasPrefix(h.Mountpoint, cgroupRoot) || !strings.HasPrefix(m.mountpoint, cgroupRoot)) {
		return
	}
	h.Mountpoint, h.MountRoot, h.Options = m.mountpoint, m.root, m.options
}

// shows reports whether the mount's super block options name the hierarchy.
func (m *cgroupMount) shows(h *Hierarchy) bool {
	want := "name=" + h.Name
	if h.Name == "" {
		want = h.Controllers[0]
	}
	for rest := m.superOptions; rest != ""; {
		var opt string
		if opt, rest, _ = strings.Cut(rest, ","); opt == want {
			return true
		}
	}
	return false
}

// unescape undoes mountinfo's octal escapes (\040 for a space).
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func isOctal(b byte) bool { return b >= '0' && b <= '7' }
