package plan

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// parentTrees adds the files of mounts that the parent copies, by the field
// they come from.
func (c *compiler) parentTrees() map[string]FD {
	trees := map[string]FD{}
	if !c.treesFromParent() {
		return trees
	}
	add := func(field, path string, recursive bool) {
		trees[field] = c.file("tree "+path, File{Kind: Tree, Path: path, Recursive: recursive, Field: field})
	}
	add("root.path", c.absolute(c.spec.Root.Path), true)
	for i, m := range c.spec.Mounts {
		if o := linux.ParseMountOptions(m.Options); isBind(m, o) {
			add(fmt.Sprintf("mounts[%d].source", i), c.absolute(m.Source), o.Recursive)
		}
	}
	return trees
}

func isBind(m specs.Mount, o linux.MountOptions) bool {
	return !o.Remount && (o.Bind || m.Type == "bind")
}

// rootfs puts the root file system where the process can pivot to it. Its own
// mount lies on "/", where no path leads to it: nothing on the host has to be
// looked up again.
func (c *compiler) rootfs(trees map[string]FD) {
	c.trees = trees
	// Mounts that are to stay peers of the host's are copied while they are.
	for i, m := range c.spec.Mounts {
		o := linux.ParseMountOptions(m.Options)
		field := fmt.Sprintf("mounts[%d].source", i)
		if _, have := trees[field]; have || !isBind(m, o) || !isShared(o) {
			continue
		}
		tree := c.newFD("tree " + m.Source)
		c.step(field, openTree{c.absolute(m.Source), o.Recursive, tree})
		trees[field] = tree
	}
	propagation := uint64(linux.MS_SLAVE)
	if p := c.linux().RootfsPropagation; strings.HasSuffix(p, "private") || strings.HasSuffix(p, "unbindable") {
		propagation = linux.MS_PRIVATE
	}
	c.step("linux.rootfsPropagation", mountSetattr{Path: "/", Recursive: true, Propagation: propagation})
	root, ok := trees["root.path"]
	if !ok {
		root = c.newFD("rootfs")
		c.step("root.path", openTree{c.absolute(c.spec.Root.Path), true, root})
	}
	c.root = root
	c.step("root.path", moveMount{Mount: root, Path: "/", Keep: true})
	c.null = c.newFD("host null")
	c.step("", openPath{"/dev/null", c.null})
}

func isShared(o linux.MountOptions) bool {
	for _, p := range o.Propagation {
		if p&linux.MS_SHARED != 0 {
			return true
		}
	}
	return false
}

func (c *compiler) mounts() {
	for i, m := range c.spec.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		o := linux.ParseMountOptions(m.Options)
		for _, r := range []struct {
			name string
			set  bool
		}{{"tmpcopyup", o.CopyUp}, {"idmap", o.IDMap || len(m.UIDMappings)+len(m.GIDMappings) > 0}} {
			if r.set {
				c.fail(field+".options", "%s is %w", r.name, errUnsupported)
			}
		}
		dest := c.destination(m.Destination)
		switch {
		case dest == "/":
			c.fail(field+".destination", "a mount on the container's root itself")
		case o.Remount:
			target := c.target(field, dest, true)
			c.attributes(field, target, o)
			c.step(field, closeFD{target})
		case isBind(m, o):
			c.bind(field, m, dest, o)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			c.cgroupMount(field, dest, o)
		default:
			c.newMount(field, m, dest, o)
		}
	}
}

// destination is where a mount really goes: clean, absolute, and past a
// symbolic link of the root file system that leads to what is not there yet.
func (c *compiler) destination(dest string) string {
	dest = path.Clean("/" + dest)
	if dest == "/proc" || dest == "/sys" {
		// A link here would put them where masked and read-only paths are not
		// looked for (CVE-2019-19921).
		return dest
	}
	if to, ok := c.facts.Mountpoints[dest]; ok {
		return path.Clean("/" + to)
	}
	return dest
}

func (c *compiler) target(field, dest string, dir bool) FD {
	target := c.newFD("target " + dest)
	c.step(field+".destination", openTarget{Root: c.root, Path: dest, Dir: dir, Out: target, NoLinks: dest == "/proc" || dest == "/sys"})
	return target
}

func (c *compiler) bind(field string, m specs.Mount, dest string, o linux.MountOptions) {
	source := c.absolute(m.Source)
	what := c.facts.Sources[source]
	if what.Missing || m.Source == "" {
		c.fail(field+".source", "bind mount source %q: no such file or directory", m.Source)
		return
	}
	tree, ok := c.trees[field+".source"]
	if !ok {
		tree = c.newFD("tree " + dest)
		c.step(field+".source", openTree{source, o.Recursive, tree})
	}
	c.attributes(field, tree, o)
	c.step(field, moveMount{Mount: tree, To: c.target(field, dest, what.Dir)})
}

// attributes sets what a mount's options say of an existing mount.
func (c *compiler) attributes(field string, mount FD, o linux.MountOptions) {
	field += ".options"
	if o.RecAttrSet|o.RecAttrClear != 0 {
		c.step(field, mountSetattr{Mount: mount, Recursive: true, Set: o.RecAttrSet, Clear: o.RecAttrClear})
	}
	if o.AttrSet|o.AttrClear != 0 {
		c.step(field, mountSetattr{Mount: mount, Set: o.AttrSet, Clear: o.AttrClear})
	}
	for _, p := range o.Propagation {
		c.step(field, mountSetattr{Mount: mount, Recursive: p&linux.MS_REC != 0, Propagation: p &^ linux.MS_REC})
	}
}

func (c *compiler) newMount(field string, m specs.Mount, dest string, o linux.MountOptions) {
	fs := mountFS{Type: m.Type, Source: m.Source, Data: o.Data, Attr: o.AttrSet | o.RecAttrSet, Out: c.newFD(m.Type + " " + dest)}
	if m.Type == "" {
		c.fail(field+".type", "missing, and the mount is no bind mount")
	}
	if !kernelFilesystem(m.Type) {
		fs.Flags = o.Super
	}
	readonly := fs.Attr & linux.MOUNT_ATTR_RDONLY
	if m.Type == "tmpfs" {
		// What is mounted below it, and devices, need places to be made in it.
		fs.Attr &^= readonly
	}
	c.step(field, fs)
	for _, p := range o.Propagation {
		c.step(field+".options", mountSetattr{Mount: fs.Out, Recursive: p&linux.MS_REC != 0, Propagation: p &^ linux.MS_REC})
	}
	late := m.Type == "tmpfs" && readonly != 0
	c.step(field, moveMount{Mount: fs.Out, To: c.target(field, dest, true), Keep: late})
	if late {
		c.late = append(c.late, Step{mountSetattr{Mount: fs.Out, Set: readonly}, field + ".options"})
	}
}

// kernelFilesystem: their superblocks are the kernel's, and shared, so only
// the mount can be read-only.
func kernelFilesystem(t string) bool {
	switch t {
	case "proc", "sysfs", "tmpfs", "devpts", "mqueue":
		return true
	}
	return false
}

// cgroupMount shows the container's own control group. It is bound from the
// host's mount, which has the same content as a new mount in a control group
// namespace and needs fewer calls.
func (c *compiler) cgroupMount(field, dest string, o linux.MountOptions) {
	if len(c.facts.Cgroups) == 0 {
		c.fail(field, "this container has no control group to show")
		return
	}
	o.Recursive = false
	if len(c.facts.Cgroups) == 1 && c.facts.Cgroups[0].Name == "" {
		tree := c.newFD("cgroup")
		c.step(field, openTree{c.facts.Cgroups[0].Path, false, tree})
		c.attributes(field, tree, o)
		c.step(field, moveMount{Mount: tree, To: c.target(field, dest, true)})
		return
	}
	readonly := o.AttrSet & linux.MOUNT_ATTR_RDONLY
	dir := c.newFD("cgroup directories")
	c.step(field, mountFS{Type: "tmpfs", Source: "tmpfs", Data: []string{"mode=755"}, Attr: o.AttrSet &^ readonly, Out: dir})
	c.step(field, moveMount{Mount: dir, To: c.target(field, dest, true), Keep: true})
	for _, g := range c.facts.Cgroups {
		tree := c.newFD("cgroup " + g.Name)
		c.step(field, openTree{g.Path, false, tree})
		if o.AttrSet|o.AttrClear != 0 {
			c.step(field, mountSetattr{Mount: tree, Set: o.AttrSet, Clear: o.AttrClear})
		}
		target := c.newFD("target " + g.Name)
		c.step(field, openTarget{Root: dir, Path: "/" + g.Name, Dir: true, Out: target})
		c.step(field, moveMount{Mount: tree, To: target})
		for _, alias := range g.Aliases {
			c.step(field, symlink{dir, alias, g.Name})
		}
	}
	if readonly != 0 {
		c.step(field, mountSetattr{Mount: dir, Set: readonly})
	}
	c.step(field, closeFD{dir})
}

// devices makes the devices and links of config-linux.md, "Default Devices",
// and those of linux.devices, unless the configuration brings a /dev.
func (c *compiler) devices() {
	if !c.ownDev() {
		return
	}
	// Nearly all of them lie in one directory: it is opened once.
	dev := c.target("linux.devices", "/dev", true)
	in := func(p string) (FD, string) {
		if dir, base := path.Split(p); dir == "/dev/" {
			return dev, base
		}
		return c.root, p
	}
	mode := uint32(0o666)
	for _, d := range []struct {
		name         string
		major, minor int64
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		c.device("", "/dev/"+d.name, mknod{dev, d.name, 'c', mode, d.major, d.minor, 0, 0})
	}
	for i, d := range c.linux().Devices {
		field := fmt.Sprintf("linux.devices[%d]", i)
		full := path.Clean("/" + d.Path)
		op := mknod{Mode: mode, Major: d.Major, Minor: d.Minor}
		op.Root, op.Path = in(full)
		switch d.Type {
		case "c", "u":
			op.Type = 'c'
		case "b", "p":
			op.Type = d.Type[0]
		default:
			c.fail(field+".type", "unknown device type %q", d.Type)
		}
		if d.FileMode != nil {
			op.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			op.UID = *d.UID
		}
		if d.GID != nil {
			op.GID = *d.GID
		}
		c.device(field, full, op)
	}
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}} {
		c.step("", symlink{dev, l[0], l[1]})
	}
	c.step("", closeFD{dev})
}

// device makes a device node. In a user namespace nobody may: the host's own
// node is bound instead.
func (c *compiler) device(field, full string, op mknod) {
	if !c.userNamespace() && !c.facts.Host.InUserNamespace || op.Type == 'p' {
		c.step(field, op)
		return
	}
	tree := c.newFD("device " + full)
	c.step(field, openTree{full, false, tree})
	c.step(field, moveMount{Mount: tree, To: c.target("linux.devices", full, false)})
}

func (c *compiler) ownDev() bool {
	for _, m := range c.spec.Mounts {
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
	c.step(field, bindTerminal{c.tty, c.target(field, "/dev/console", false)})
	c.step(field, sendTerminal{c.cons, master})
}

// terminal makes a terminal of the configured size.
func (c *compiler) terminal() (master FD) {
	p := c.spec.Process
	master = c.newFD("terminal master")
	c.tty = c.newFD("terminal")
	c.step("process.terminal", openTerminal{c.root, master, c.tty})
	if s := p.ConsoleSize; s != nil && s.Height|s.Width != 0 {
		if s.Height > 0xffff || s.Width > 0xffff {
			c.fail("process.consoleSize", "larger than 65535")
		}
		c.step("process.consoleSize", resizeTerminal{master, uint16(s.Height), uint16(s.Width)})
	}
	return master
}

// protect covers what config.json wants read-only or out of sight.
func (c *compiler) protect() {
	l := c.linux()
	for i, p := range l.ReadonlyPaths {
		c.step(fmt.Sprintf("linux.readonlyPaths[%d]", i), readonlyPath{c.root, path.Clean("/" + p)})
	}
	for i, p := range l.MaskedPaths {
		c.step(fmt.Sprintf("linux.maskedPaths[%d]", i), maskPath{c.root, path.Clean("/" + p), c.null})
	}
}
