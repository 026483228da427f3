package plan

import (
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/linux"
)

// joinsBeside says that the process runs before its control groups are there. Its
// own mount namespace shows them where the host's does, and it has the rights to
// join them as long as it is in the host's user namespace.
func (c *compiler) joinsBeside() bool {
	return c.facts.CgroupsBeside && c.facts.CgroupFiles > 0 && !c.fromHost() && c.joined[linux.CLONE_NEWNS] == ""
}

// cgroupFiles is how many groups the process joins through descriptors that it
// is started with.
func (c *compiler) cgroupFiles() int {
	if !c.exec && c.joinsBeside() {
		return 0
	}
	return c.facts.CgroupFiles
}

// joinCgroups brings the process into control groups that were made beside it,
// as late as can be: before they are to be seen, and before anything runs that
// is not ours.
func (c *compiler) joinCgroups() {
	if c.isIn || !c.joinsBeside() {
		return
	}
	c.isIn = true
	const field = "linux.cgroupsPath"
	c.step(field, awaitCgroup{c.sync, false})
	for _, g := range c.facts.Cgroups {
		if g.Joins {
			c.step(field, joinCgroup{Path: g.Path})
		}
	}
	c.ownCgroups()
}

// ownCgroups makes the control group namespace, whose root is the group that
// the process is in by now.
func (c *compiler) ownCgroups() {
	if c.fresh&linux.CLONE_NEWCGROUP != 0 {
		c.step("linux.namespaces", unshare{linux.CLONE_NEWCGROUP})
	}
}

// cgroupMount shows control groups. They are bound from the host's mounts,
// which have the same content as new ones and need fewer calls; and a new mount
// of version 2 would change the options of the host's (nsdelegate and its like
// are the hierarchy's, kernel/cgroup/cgroup.c, apply_cgroup_root_flags).
func (c *compiler) cgroupMount(m mount) {
	c.onlyFor(m, "a cgroup", false, false)
	c.refuseOptions(m, "a cgroup", superFlags(m.options)...)
	if c.facts.Host.CgroupMode == host.CgroupV2 {
		c.cgroup2(m)
		return
	}
	c.refuseOptions(m, "a cgroup of version 1", m.options.Data...)
	if len(c.facts.Cgroups) == 0 {
		c.fail(m.field, "this container has no control group to show")
		return
	}
	c.cgroup1(m)
}

// cgroup2 shows the container's own group as the root of the hierarchy where it
// has a namespace for that, else the whole of it.
func (c *compiler) cgroup2(m mount) {
	o := &m.options
	if len(o.Data) > 0 {
		m.Type = "cgroup2"
		o.Super = nil // the superblock is the host's
		c.newMount(m)
		return
	}
	u := c.facts.Host.Unified
	var dir string
	switch {
	case c.fresh&linux.CLONE_NEWCGROUP == 0 && u != nil:
		dir = u.Mountpoint
	case len(c.facts.Cgroups) > 0:
		dir = c.facts.Cgroups[0].Path
	default:
		c.fail(m.field, "this machine has no control groups to show")
		return
	}
	tree := c.newFD("cgroup")
	c.step(m.field, openTree{dir, false, tree})
	c.attributes(m, tree, 0)
	c.place(m, tree, c.target(m.field+".destination", m.dest, true), false)
}

// cgroup1 shows the container's own groups, each hierarchy in a directory of
// its own.
func (c *compiler) cgroup1(m mount) {
	o := m.options
	attr := o.RecAttrSet&^o.AttrClear | o.AttrSet
	readonly := attr & linux.MOUNT_ATTR_RDONLY
	dir := c.newFD("cgroup directories")
	c.step(m.field, mountFS{Type: "tmpfs", Source: "tmpfs", Data: []string{"mode=755"}, Label: c.contextOf("tmpfs"),
		Attr: attr &^ readonly, Out: dir})
	c.step(m.field, moveMount{Mount: dir, To: c.target(m.field+".destination", m.dest, true), Keep: true})
	c.joinCgroups()
	for _, g := range c.facts.Cgroups {
		tree := c.newFD("cgroup " + g.Name)
		c.step(m.field, openTree{g.Path, false, tree})
		c.attributes(m, tree, 0)
		target := c.newFD("target " + g.Name)
		c.step(m.field, openTarget{Root: dir, Path: "/" + g.Name, Dir: true, Out: target})
		c.step(m.field, moveMount{Mount: tree, To: target})
		for _, alias := range g.Aliases {
			c.step(m.field, symlink{Root: dir, Path: alias, Target: g.Name})
		}
	}
	for i := range m.options.Propagation {
		m.options.Propagation[i] |= linux.MS_REC // one call for all of them
	}
	c.propagate(m, dir, true)
	if readonly != 0 {
		c.step(m.field, mountSetattr{Mount: dir, Set: readonly})
	}
	c.step(m.field, closeFD{dir})
}
