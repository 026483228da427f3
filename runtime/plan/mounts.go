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

// A mount is one of the configuration's mounts on its way through the compiler.
type mount struct {
	specs.Mount
	index   int
	field   string
	dest    string // where it really goes: clean and absolute in the container
	options linux.MountOptions
}

// readMounts reads the configuration's mounts once for all.
func (c *compiler) readMounts() {
	c.list = make([]mount, len(c.spec.Mounts))
	for i, m := range c.spec.Mounts {
		c.list[i] = mount{m, i, fmt.Sprintf("mounts[%d]", i), c.destination(m.Destination), linux.ParseMountOptions(m.Options)}
	}
}

func (c *compiler) mounts(list []mount) {
	for _, m := range list {
		if !c.placeAllowed(m) {
			continue
		}
		switch {
		case m.options.Remount:
			c.remount(m)
		case m.isBind():
			c.bind(m)
		case m.Type == "cgroup", m.Type == "cgroup2" && c.facts.Host.CgroupMode == host.CgroupV2:
			c.cgroupMount(m)
		case m.Type == "sysfs" && c.foreignNetwork():
			c.bindSysfs(m)
		default:
			if m.Type == "cgroup2" {
				c.joinCgroups() // its root is the group that we are in, or the namespace's
			}
			c.newMount(m)
		}
	}
}

// lateMounts is where in the list the mounts begin that come after the devices: those of
// control groups, where no other follows. They need the groups, which the parent makes
// meanwhile; and until the process has joined them, nothing limits which devices it makes.
func (c *compiler) lateMounts() int {
	n := len(c.list)
	for _, d := range c.linux().Devices {
		if !c.joinsBeside() || !strings.HasPrefix(path.Clean("/"+d.Path), "/dev/") {
			return n
		}
	}
	for n > 0 && c.joinsBeside() && c.list[n-1].Type == "cgroup" && !strings.HasPrefix(c.list[n-1].dest, "/dev") {
		n--
	}
	return n
}

func (m mount) isBind() bool { return isBind(m.Mount, m.options) }

func isBind(m specs.Mount, o linux.MountOptions) bool {
	return !o.Remount && (o.Bind || m.Type == "bind")
}

// destination is where a mount really goes: clean, absolute, and past a
// symbolic link of the root file system that leads to what is not there yet.
func (c *compiler) destination(dest string) string {
	dest = path.Clean("/" + dest)
	if isFixed(dest) {
		return dest
	}
	if to, ok := c.facts.Mountpoints[dest]; ok {
		return path.Clean("/" + to)
	}
	return dest
}

// isFixed says of a place that no link may lead to another: there masked and
// read-only paths would not be looked for (CVE-2019-19921).
func isFixed(dest string) bool { return dest == "/proc" || dest == "/sys" }

// lxcfs has substitutes for these files of /proc. Nothing else is mounted below
// /proc: what looks like the kernel's word has to be the kernel's
// (CVE-2019-16884).
func mayReplace(file string) bool {
	switch file {
	case "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
		"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled":
		return true
	}
	return false
}

func (c *compiler) placeAllowed(m mount) bool {
	field := m.field + ".destination"
	switch file, inProc := strings.CutPrefix(m.dest, "/proc/"); {
	case m.dest == "/":
		c.fail(field, "a mount on the container's root itself")
	case inProc && !mayReplace(file):
		c.fail(field, "%q is inside /proc", m.dest)
	case m.dest == "/proc" && !m.options.Remount && m.Type != "proc" &&
		(!m.isBind() || !c.facts.Sources[c.absolute(m.Source)].Proc):
		c.fail(field, "only a proc file system can be mounted on /proc")
	default:
		return true
	}
	return false
}

// refuseOptions names what would have no effect. Silence would be worse.
func (c *compiler) refuseOptions(m mount, what string, options ...string) {
	for _, o := range options {
		c.fail(m.field+".options", "%q has no effect on %s", o, what)
	}
}

// superFlags are the superblock flags among a mount's options, but for those
// that the mount has as well.
func superFlags(o linux.MountOptions) []string {
	var flags []string
	for _, f := range o.Super {
		if f != "ro" && f != "rw" {
			flags = append(flags, f)
		}
	}
	return flags
}

// onlyFor refuses the options that some kinds of mounts alone can have.
func (c *compiler) onlyFor(m mount, what string, copyUp, idMap bool) {
	if m.options.CopyUp && !copyUp {
		c.refuseOptions(m, what, "tmpcopyup")
	}
	if m.wantsIDMap() && !idMap {
		c.fail(m.field+".options", "only bind mounts can be idmapped, not %s", what)
	}
}

func (c *compiler) target(field, dest string, dir bool) FD {
	target := c.newFD("target " + dest)
	c.step(field, openTarget{Root: c.root, Path: dest, Dir: dir, Out: target, NoLinks: isFixed(dest)})
	return target
}

// place attaches a mount where it belongs, and makes it what its options say of
// propagation: a mount in a shared one becomes shared, whatever it was before.
func (c *compiler) place(m mount, tree, target FD, keep bool) {
	if !keep && c.guards(m) {
		if c.kernel == nil {
			c.kernel = map[string]FD{}
		}
		c.kernel[m.dest], keep = tree, true
	}
	c.step(m.field, moveMount{Mount: tree, To: target, Keep: keep || len(m.options.Propagation) > 0})
	c.propagate(m, tree, keep)
}

func (c *compiler) propagate(m mount, tree FD, keep bool) {
	for _, p := range m.options.Propagation {
		c.step(m.field+".options", mountSetattr{Mount: tree, Recursive: p&linux.MS_REC != 0, Propagation: p &^ linux.MS_REC})
	}
	if !keep && len(m.options.Propagation) > 0 {
		c.step(m.field+".options", closeFD{tree})
	}
}

// attributes sets what a mount's options say of an existing mount, except for
// the attributes in late.
func (c *compiler) attributes(m mount, tree FD, late uint64) {
	o, field := m.options, m.field+".options"
	if set := o.RecAttrSet &^ late; set|o.RecAttrClear != 0 {
		c.step(field, mountSetattr{Mount: tree, Recursive: true, Set: set, Clear: o.RecAttrClear})
	}
	if set := o.AttrSet &^ late; set|o.AttrClear != 0 {
		c.step(field, mountSetattr{Mount: tree, Set: set, Clear: o.AttrClear})
	}
}

// remount changes a mount that is there: its attributes, and with a plain
// remount, as mount(8) has it, the file system's flags and options as well.
func (c *compiler) remount(m mount) {
	o := m.options
	c.onlyFor(m, "a remount", false, false)
	late := uint64(0)
	if m.Type == "tmpfs" || m.dest == "/dev" {
		late = o.AttrSet & linux.MOUNT_ATTR_RDONLY // as when it was new
	}
	if late != 0 {
		o.Super = superFlags(o)
	}
	if (o.AttrClear|o.RecAttrClear)&linux.MOUNT_ATTR_RDONLY != 0 {
		c.late = slices.DeleteFunc(c.late, func(l lateMark) bool { return l.dest == m.dest })
	}
	tree := c.newFD("mount " + m.dest)
	c.step(m.field+".destination", openIn{c.root, m.dest, tree})
	if o.Bind || m.Type == "bind" {
		c.refuseOptions(m, "the remount of a bind mount", append(superFlags(o), o.Data...)...)
	} else if data := splitOptions(o.Data); len(o.Super)+len(data) > 0 {
		c.step(m.field+".options", reconfigure{tree, o.Super, data})
	}
	c.attributes(m, tree, late)
	c.propagate(m, tree, true)
	if late != 0 {
		c.readonlyLater(m, tree, late)
		return
	}
	c.step(m.field, closeFD{tree})
}
