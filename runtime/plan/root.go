package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

// rootPropagation is linux.rootfsPropagation, 0 where it is not set.
func (c *compiler) rootPropagation() uint64 {
	if p := linux.ParseMountOptions([]string{c.linux().RootfsPropagation}).Propagation; len(p) == 1 {
		return p[0]
	}
	return 0
}

// rootfs puts the root file system where the process can pivot to it.
//
// What becomes of the host's mounts decides about those that are bound from
// them: without a word on it they receive what is mounted on the host, and
// nothing goes back. Under a shared root they stay peers of the host's, unless
// those stay here too; then only "/" itself is made private, so that what is put
// there is not the host's.
func (c *compiler) rootfs(trees map[string]FD) {
	c.trees = trees
	const field = "linux.rootfsPropagation"
	if c.plan.OnHost {
		c.rootOnHost()
		return
	}
	switch p := c.rootPropagation(); {
	case p&linux.MS_SHARED != 0 && !c.facts.NoPivot:
		c.step(field, mountSetattr{Path: "/", Propagation: linux.MS_PRIVATE})
		if at := c.facts.RootMount; at != "" && at != "/" {
			c.step(field, mountSetattr{Path: at, Propagation: linux.MS_PRIVATE})
		}
	case p&(linux.MS_PRIVATE|linux.MS_UNBINDABLE) != 0:
		c.peerTrees()
		c.step(field, mountSetattr{Path: "/", Recursive: true, Propagation: linux.MS_PRIVATE})
	default:
		c.peerTrees()
		c.step(field, mountSetattr{Path: "/", Recursive: true, Propagation: linux.MS_SLAVE})
	}
	root, ok := trees["root.path"]
	if !ok {
		root = c.newFD("rootfs")
		c.step("root.path", openTree{c.absolute(c.spec.Root.Path), true, root})
	}
	c.root = root
	c.step("root.path", moveMount{Mount: root, Path: c.rootPlace(), Keep: true})
	if c.rootPropagation()&linux.MS_SLAVE == 0 {
		// What is mounted in its directory on the host later is not the container's.
		c.step(field, mountSetattr{Mount: root, Propagation: linux.MS_PRIVATE})
	}
	c.hostNull()
}

// hostNull opens what paths are masked with, unless the parent has done it.
func (c *compiler) hostNull() {
	if len(c.linux().MaskedPaths) > 0 && !c.nullsFromParent() {
		c.null = c.newFD("host null")
		c.step("", openPath{"/dev/null", c.null})
	}
}

// rootOnHost is rootfs in the host's mount namespace, where "/" is the host's
// own: the root file system lies on its directory, a mount of its own whose
// changes go nowhere, so that no mount of the container lies elsewhere.
func (c *compiler) rootOnHost() {
	c.peerTrees()
	dir := c.newFD("root directory")
	c.root = c.newFD("rootfs")
	path := c.absolute(c.spec.Root.Path)
	c.step("root.path", openPath{path, dir})
	c.step("root.path", openTree{path, true, c.root})
	c.step("linux.rootfsPropagation", mountSetattr{Mount: c.root, Recursive: true, Propagation: linux.MS_PRIVATE})
	c.step("root.path", moveMount{Mount: c.root, To: dir, Keep: true})
	c.hostNull()
}

// pivot makes the container's root the process's root.
func (c *compiler) pivot() {
	// The working directory may have to be made, while the root can be written.
	c.cwd = c.newFD("cwd")
	c.step("process.cwd", openTarget{Root: c.root, Path: path.Clean("/" + c.spec.Process.Cwd), Dir: true, Out: c.cwd})
	for _, l := range c.late {
		c.plan.Steps = append(c.plan.Steps, l.Step)
	}
	if c.spec.Root.Readonly {
		c.step("root.readonly", mountSetattr{Mount: c.root, Set: linux.MOUNT_ATTR_RDONLY})
	}
	for i, p := range c.linux().ReadonlyPaths {
		if isRoot(p) {
			c.step(fmt.Sprintf("linux.readonlyPaths[%d]", i), mountSetattr{Mount: c.root, Set: linux.MOUNT_ATTR_RDONLY})
		}
	}
	p := c.rootPropagation()
	switch {
	case c.plan.OnHost:
		c.step("root", changeRoot{c.root})
	case c.facts.NoPivot:
		c.leaveRoot()
	default:
		c.step("root", pivotRoot{c.root, p&linux.MS_SHARED != 0})
	}
	switch name := c.linux().RootfsPropagation; {
	case p == 0 && name != "":
		c.fail("linux.rootfsPropagation", "unknown propagation %q", name)
	case p != 0:
		c.step("linux.rootfsPropagation", mountSetattr{Path: "/", Recursive: p&linux.MS_REC != 0, Propagation: p &^ linux.MS_REC})
	}
}

// leaveRoot is pivot without pivot_root(2): the host's tree stays beneath the
// container's, out of sight.
func (c *compiler) leaveRoot() {
	if strings.HasSuffix(c.linux().RootfsPropagation, "private") {
		c.fail("linux.rootfsPropagation", "%s is not safe without pivot_root", c.linux().RootfsPropagation)
	}
	for i := len(c.facts.HostMounts) - 1; i >= 0; i-- {
		c.step("root", hideMount{c.facts.HostMounts[i]})
	}
	c.step("root", changeRoot{c.root})
}
