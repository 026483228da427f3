package plan

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// An IDMap maps the ids of the files of a mount.
type IDMap struct {
	// UID and GID are the maps, from the files' ids to those of the host.
	UID, GID []specs.LinuxIDMapping
	// Namespace is the path of a user namespace that has the maps instead.
	Namespace string
	// Recursive maps those of all mounts below, too.
	Recursive bool
}

// String prints the maps, each as CONTAINER:HOST:SIZE, after a comma.
func (m *IDMap) String() string {
	if m == nil {
		return ""
	}
	s := ", " + flag(m.Recursive, "r") + "idmap"
	if m.Namespace != "" {
		return fmt.Sprintf("%s of %q", s, m.Namespace)
	}
	for _, kind := range []struct {
		name string
		maps []specs.LinuxIDMapping
	}{{"uid", m.UID}, {"gid", m.GID}} {
		for _, r := range kind.maps {
			s += fmt.Sprintf(" %s %d:%d:%d", kind.name, r.ContainerID, r.HostID, r.Size)
		}
	}
	return s
}

// parentTrees adds the files of mounts that the parent makes, by the field
// they come from.
func (c *compiler) parentTrees() map[string]FD {
	trees := map[string]FD{}
	add := func(field string, f File) {
		f.Field = field
		trees[field] = c.file(f.name(), f)
	}
	fromParent := c.treesFromParent()
	if fromParent {
		add("root.path", File{Kind: Tree, Path: c.absolute(c.spec.Root.Path), Recursive: true})
	}
	for _, m := range c.list {
		o := m.options
		switch {
		case m.isBind() && (fromParent || m.fromParent()):
			add(m.field+".source", File{Kind: Tree, Path: c.absolute(m.Source), Recursive: o.Recursive, IDMap: c.idMap(m)})
		case m.fromParent():
			if fs := c.copyUp(m); fs != nil {
				add(fs.field, File{Kind: Copied, Path: fs.source.Name, Copy: &fs.CopyUp})
			}
		}
	}
	if c.nullsFromParent() {
		for i := range c.linux().MaskedPaths {
			add(maskedField(i), File{Kind: Tree, Path: "/dev/null"})
		}
	}
	return trees
}

// nullsFromParent says that each masked path has a copy of the null device from
// the parent: in a mount namespace that is joined, /dev/null is what those who
// are in it have put there.
func (c *compiler) nullsFromParent() bool {
	return c.joined[linux.CLONE_NEWNS] != "" && c.treesFromParent()
}

// fromParent says that the parent makes the mount, whatever the container's namespaces.
func (m mount) fromParent() bool {
	if m.isBind() {
		return m.wantsIDMap()
	}
	return m.Type == "tmpfs" && m.options.CopyUp && !m.options.Remount
}

func (m mount) wantsIDMap() bool { return m.options.IDMap || len(m.UIDMappings)+len(m.GIDMappings) > 0 }

// idMap is how a mount's ids are mapped: as it says itself, or else as the
// container's user namespace does.
func (c *compiler) idMap(m mount) *IDMap {
	if !m.wantsIDMap() {
		return nil
	}
	im := &IDMap{UID: m.UIDMappings, GID: m.GIDMappings, Recursive: m.options.RecIDMap}
	field := m.field + ".options"
	if !c.facts.Host.HasCap(linux.CAP_SYS_ADMIN) {
		c.fail(field, "an idmapped mount needs CAP_SYS_ADMIN")
	}
	if len(im.UID)+len(im.GID) > 0 {
		if len(im.UID) == 0 || len(im.GID) == 0 {
			c.fail(m.field, "uidMappings and gidMappings go together")
		}
		return im
	}
	if !c.userNamespace() {
		c.fail(field, "idmap without uidMappings needs a user namespace")
	}
	own := c.ownIDs()
	own.Recursive = im.Recursive
	return own
}

// ownIDs are the maps of the container's user namespace. What a configuration
// says of them where one is joined means nothing.
func (c *compiler) ownIDs() *IDMap {
	if path := c.joined[linux.CLONE_NEWUSER]; path != "" {
		return &IDMap{Namespace: path}
	}
	return &IDMap{UID: c.linux().UIDMappings, GID: c.linux().GIDMappings}
}

// peerTrees copies the mounts that are to stay peers of the host's while they
// are: before the process's own mounts cease to be.
func (c *compiler) peerTrees() {
	for _, m := range c.list {
		field := m.field + ".source"
		if _, have := c.trees[field]; have || !m.isBind() || !isShared(m.options) {
			continue
		}
		tree := c.newFD("tree " + m.Source)
		c.step(field, openTree{c.absolute(m.Source), m.options.Recursive, tree})
		c.trees[field] = tree
	}
}

func isShared(o linux.MountOptions) bool {
	for _, p := range o.Propagation {
		if p&linux.MS_SHARED != 0 {
			return true
		}
	}
	return false
}

func (c *compiler) bind(m mount) {
	o, source := m.options, c.absolute(m.Source)
	c.onlyFor(m, "a bind mount", false, true)
	c.refuseOptions(m, "a bind mount", append(superFlags(o), o.Data...)...)
	what := c.facts.Sources[source]
	if what.Missing || m.Source == "" {
		c.fail(m.field+".source", "bind mount source %q: no such file or directory", m.Source)
		return
	}
	tree, ok := c.trees[m.field+".source"]
	if !ok {
		tree = c.newFD("tree " + m.dest)
		c.step(m.field+".source", openTree{source, o.Recursive, tree})
	}
	late := uint64(0)
	if m.dest == "/dev" {
		late = (o.AttrSet | o.RecAttrSet) & linux.MOUNT_ATTR_RDONLY // the console needs a place in it
	}
	c.attributes(m, tree, late)
	c.place(m, tree, c.target(m.field+".destination", m.dest, what.Dir), late != 0)
	c.readonlyLater(m, tree, late)
}

// A lateMark makes a mount read-only once everything below it is mounted.
type lateMark struct {
	dest string
	Step
}

// readonlyLater makes a mount read-only once all is in it that has to be.
func (c *compiler) readonlyLater(m mount, tree FD, late uint64) {
	if late != 0 {
		recursive := m.isBind() && m.options.RecAttrSet&late != 0
		c.late = append(c.late, lateMark{m.dest, Step{mountSetattr{Mount: tree, Recursive: recursive, Set: late}, m.field + ".options"}})
	}
}

// foreignNetwork says that the container has a network namespace whose sysfs
// it may not mount, because that belongs to another user namespace.
func (c *compiler) foreignNetwork() bool {
	if c.fresh&linux.CLONE_NEWNET != 0 || !c.userNamespace() && !c.facts.Host.InUserNamespace {
		return false
	}
	return c.joined[linux.CLONE_NEWNET] == "" || c.fresh&linux.CLONE_NEWUSER != 0
}

// bindSysfs shows the host's /sys instead of a sysfs that only another may
// mount. What its options say holds for all of it: it has the host's control
// groups in it (CVE-2023-25809).
func (c *compiler) bindSysfs(m mount) {
	o := &m.options
	c.onlyFor(m, "a sysfs", false, false)
	c.refuseOptions(m, "a sysfs", append(superFlags(*o), o.Data...)...)
	o.RecAttrSet, o.AttrSet = o.RecAttrSet|o.AttrSet, 0
	o.RecAttrClear, o.AttrClear = 0, 0
	if o.RecAttrSet&linux.MOUNT_ATTR__ATIME != 0 {
		o.RecAttrClear = linux.MOUNT_ATTR__ATIME
	}
	tree := c.newFD("tree /sys")
	c.step(m.field, openTree{"/sys", true, tree})
	c.attributes(m, tree, 0)
	c.place(m, tree, c.target(m.field+".destination", m.dest, true), false)
}
