package plan

import (
	"path"

	"github.com/tare-oci/tare/runtime/linux"
)

// pivot makes the container's root the process's root.
func (c *compiler) pivot() {
	// The working directory may have to be made, while the root can be written.
	c.cwd = c.newFD("cwd")
	c.step("process.cwd", openTarget{Root: c.root, Path: path.Clean("/" + c.spec.Process.Cwd), Dir: true, Out: c.cwd})
	c.plan.Steps = append(c.plan.Steps, c.late...)
	if c.spec.Root.Readonly {
		c.step("root.readonly", mountSetattr{Mount: c.root, Set: linux.MOUNT_ATTR_RDONLY})
	}
	c.step("root", pivotRoot{c.root})
	if p := c.linux().RootfsPropagation; p != "" {
		if m := linux.ParseMountOptions([]string{p}); len(m.Propagation) == 1 {
			c.step("linux.rootfsPropagation", mountSetattr{Path: "/", Recursive: m.Propagation[0]&linux.MS_REC != 0,
				Propagation: m.Propagation[0] &^ linux.MS_REC})
		} else {
			c.fail("linux.rootfsPropagation", "unknown propagation %q", p)
		}
	}
}
