package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/linux"
)

// A Node is a file that lies at a device's path already.
type Node struct {
	// Type is c, b, p or another letter of find(1)'s -type.
	Type         byte
	Major, Minor int64
	Mode         uint32 // permissions
	UID, GID     uint32
}

// defaultDevices are those of config-linux.md, "Default Devices".
func defaultDevices() []mknod {
	d := make([]mknod, 0, 6)
	for _, n := range []struct {
		name         string
		major, minor int64
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		d = append(d, mknod{Path: "/dev/" + n.name, Type: 'c', Mode: 0o666, Major: n.major, Minor: n.minor})
	}
	return d
}

// devices makes the devices and links of config-linux.md, and those of
// linux.devices, unless the configuration brings a /dev of the host's.
func (c *compiler) devices() {
	if !c.ownDev() {
		if len(c.linux().Devices) > 0 {
			c.warn("linux.devices", "left out, because /dev is bound")
		}
		return
	}
	// Nearly all of them lie in one directory: it is opened once.
	dev := c.dev
	if dev == (FD{}) {
		dev = c.target("linux.devices", "/dev", true)
	}
	configured := map[string]string{} // the field of each path
	for i, d := range slices.Backward(c.linux().Devices) {
		configured[path.Clean("/"+d.Path)] = fmt.Sprintf("linux.devices[%d]", i)
	}
	for _, d := range defaultDevices() {
		if configured[d.Path] == "" {
			c.device("", d.Path, dev, d)
		}
	}
	made := map[string]mknod{}
	for i, d := range c.linux().Devices {
		full := path.Clean("/" + d.Path)
		if full == "/dev/ptmx" {
			continue // always that of the container's own devpts, as below
		}
		field := fmt.Sprintf("linux.devices[%d]", i)
		op, ok := c.deviceNode(field, d)
		if !ok {
			continue
		}
		if first, twice := made[full]; twice {
			switch {
			case first.Type != op.Type || first.Major != op.Major || first.Minor != op.Minor:
				c.fail(field+".path", "%q is that of another device, of %s", full, configured[full])
			case first != op:
				c.warn(field, "left out: mode and owner of %q are those of %s", full, configured[full])
			}
			continue
		}
		made[full] = op
		c.device(field, full, dev, op)
		if n, bound := c.facts.HostNodes[full]; bound && (d.FileMode != nil && n.Mode != op.Mode || op.UID|op.GID != 0) {
			c.warn(field, "the host's %s is bound: its mode is %#o, its owner %d:%d", full, n.Mode, n.UID, n.GID)
		}
	}
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}} {
		c.step("", symlink{Root: dev, Path: l[0], Target: l[1]})
	}
	if c.facts.Kcore {
		c.step("", symlink{Root: dev, Path: "core", Target: "/proc/kcore"})
	}
	c.step("", symlink{Root: dev, Path: "ptmx", Target: "pts/ptmx", Replace: true})
	if !c.devLate {
		c.step("", closeFD{dev})
	}
}

// deviceNode is a device of the configuration as mknod(2) wants it.
func (c *compiler) deviceNode(field string, d specs.LinuxDevice) (op mknod, ok bool) {
	op = mknod{Mode: 0o666, Major: d.Major, Minor: d.Minor}
	switch d.Type {
	case "c", "u":
		op.Type = 'c'
	case "b":
		op.Type = 'b'
	case "p":
		op.Type, op.Major, op.Minor = 'p', 0, 0
	default:
		c.fail(field+".type", "unknown device type %q", d.Type)
		return op, false
	}
	// The kernel's numbers have 12 and 20 bits (include/linux/kdev_t.h).
	for _, n := range []struct {
		name       string
		value, max int64
	}{{"major", op.Major, 1<<12 - 1}, {"minor", op.Minor, 1<<20 - 1}} {
		if n.value < 0 || n.value > n.max {
			c.fail(field+"."+n.name, "%d is not between 0 and %d", n.value, n.max)
			return op, false
		}
	}
	if d.FileMode != nil {
		op.Mode = uint32(*d.FileMode) & 0o7777 // a plain number, not Go's idea of a mode
	}
	if d.UID != nil {
		op.UID = *d.UID
	}
	if d.GID != nil {
		op.GID = *d.GID
	}
	return op, true
}

// device makes a device node. Where nobody may, the host's own node is bound
// instead.
func (c *compiler) device(field, full string, dev FD, op mknod) {
	if n, ok := c.facts.Nodes[full]; ok && field != "" && !n.is(op) {
		c.fail(field+".path", "%q is another file", full)
		return
	}
	if op.Type == 'p' || MayMknod(c.spec, c.facts.Host) {
		op.Root, op.Path = c.root, full
		if dir, base := path.Split(full); dir == "/dev/" {
			op.Root, op.Path = dev, base
		}
		c.step(field, op)
		return
	}
	if n, ok := c.facts.HostNodes[full]; ok && field != "" {
		if !n.is(op) {
			c.fail(field+".path", "cannot be made here, and the host's %q is another file", full)
			return
		}
	}
	tree := c.newFD("device " + full)
	c.step(field, openTree{full, false, tree})
	c.step(field, moveMount{Mount: tree, To: c.target("linux.devices", full, false)})
}

func (n Node) is(op mknod) bool {
	return n.Type == op.Type && (n.Type == 'p' || n.Major == op.Major && n.Minor == op.Minor)
}

// MayMknod says that device nodes can be made for a container: in the initial
// user namespace alone, and with CAP_MKNOD.
func MayMknod(s *specs.Spec, machine host.Facts) bool {
	if s.Linux == nil {
		return !machine.InUserNamespace && machine.HasCap(linux.CAP_MKNOD)
	}
	if machine.InUserNamespace || !machine.HasCap(linux.CAP_MKNOD) {
		return false
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return false
		}
	}
	return true
}

// ownDev says that the container's /dev is its own, and ours to fill.
func (c *compiler) ownDev() bool { return OwnDev(c.spec.Mounts) }

// OwnDev says that no mount binds a /dev.
func OwnDev(mounts []specs.Mount) bool {
	for _, m := range mounts {
		if path.Clean("/"+m.Destination) == "/dev" && isBind(m, linux.ParseMountOptions(m.Options)) {
			return false
		}
	}
	return true
}

func (c *compiler) console() {
	p := c.spec.Process
	if !p.Terminal {
		return
	}
	const field = "process.terminal"
	master := c.terminal()
	target := c.newFD("target /dev/console")
	// A link here would be followed nowhere but in the root; it still has no
	// business where the terminal goes (CVE-2025-52565).
	c.step(field, openTarget{Root: c.root, Path: "/dev/console", Out: target, NoLinks: true})
	c.step(field, bindTerminal{c.tty, target})
	c.step(field, sendTerminal{c.cons, master})
}

// terminal makes a terminal of the configured size.
func (c *compiler) terminal() (master FD) {
	p := c.spec.Process
	master = c.newFD("terminal master")
	c.tty = c.newFD("terminal")
	c.step("process.terminal", openTerminal{c.root, master, c.tty})
	if c.facts.Foreground {
		c.step("process.terminal", plainLines{c.tty})
	}
	if s := p.ConsoleSize; s != nil && s.Height|s.Width != 0 {
		if s.Height > 0xffff || s.Width > 0xffff {
			c.fail("process.consoleSize", "larger than 65535")
		}
		c.step("process.consoleSize", resizeTerminal{master, uint16(s.Height), uint16(s.Width)})
	}
	return master
}

// protect covers what config.json wants read-only or out of sight. What lies in
// /proc and /sys is found from their own mounts: a process that shares the root
// file system could swap those places for links on the way, and what is not
// there is not protected (CVE-2019-19921, CVE-2023-27561).
func (c *compiler) protect() {
	l := c.linux()
	for i, p := range l.ReadonlyPaths {
		if isRoot(p) {
			continue // what lies on top of the root hides nothing of it: pivot changes its own mount
		}
		c.step(fmt.Sprintf("linux.readonlyPaths[%d]", i), readonlyPath{c.from(p)})
	}
	for i, p := range l.MaskedPaths {
		if isRoot(p) {
			c.fail(maskedField(i), "the container's root itself")
		}
		mask := maskPath{c.from(p), c.null, false, l.MountLabel}
		if tree, ok := c.trees[maskedField(i)]; ok {
			mask.Null, mask.Own = tree, true
		}
		c.step(maskedField(i), mask)
	}
	for _, dest := range [...]string{"/proc", "/sys"} {
		if tree, ok := c.kernel[dest]; ok {
			c.step("", closeFD{tree})
		}
	}
}

// isRoot says whether a path is that of the container's root.
func isRoot(name string) bool { return path.Clean("/"+name) == "/" }

func maskedField(i int) string { return fmt.Sprintf("linux.maskedPaths[%d]", i) }

// from says where to look for a path of the container.
func (c *compiler) from(name string) location {
	name = path.Clean("/" + name)
	for dest, tree := range c.kernel {
		if below, ok := strings.CutPrefix(name, dest+"/"); ok {
			return location{tree, below, name}
		}
	}
	return location{c.root, rel(name), name}
}

// guards says that a mount stays open for protect.
func (c *compiler) guards(m mount) bool {
	if !isFixed(m.dest) || m.index != c.lastAt(m.dest) {
		return false
	}
	for _, list := range [][]string{c.linux().ReadonlyPaths, c.linux().MaskedPaths} {
		for _, p := range list {
			if strings.HasPrefix(path.Clean("/"+p), m.dest+"/") {
				return true
			}
		}
	}
	return false
}
