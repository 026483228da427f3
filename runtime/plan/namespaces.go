package plan

import (
	"fmt"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// namespaces reads which namespaces are new, which are joined, and in which of
// two ways the process comes into them.
//
// Without a user namespace, and without a pid namespace to join, the process is
// cloned into the new ones: one clone makes them all, or only that of pids where there is
// an Opening. Else it is started on the host. It joins what it can only join as who it is there, makes or joins the
// user namespace, which needs maps from the parent, becomes root in it, and
// makes the others, which then belong to that user namespace. The last is a
// clone where there is a pid namespace, which is for children only.
func (c *compiler) namespaces() {
	for i, ns := range c.linux().Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		info, ok := linux.Namespace(ns.Type)
		switch {
		case !ok:
			c.fail(field+".type", "unknown namespace %q", ns.Type)
		case c.fresh&info.CloneFlag != 0 || c.joined[info.CloneFlag] != "":
			c.fail(field+".type", "%s is there twice", ns.Type)
		case ns.Path == "":
			c.fresh |= info.CloneFlag
		default:
			c.joined[info.CloneFlag] = ns.Path
		}
	}
	c.plan.OnHost = c.fresh&linux.CLONE_NEWNS == 0 && c.joined[linux.CLONE_NEWNS] == ""
	if c.plan.OnHost && c.userNamespace() {
		c.fail("linux.namespaces", "a user namespace needs a mount namespace: nobody in it may mount in the host's")
	}
	if c.fresh&linux.CLONE_NEWUSER != 0 {
		c.userMaps()
	}
	if !c.userNamespace() && !c.facts.Host.HasCap(linux.CAP_SYS_ADMIN) {
		c.fail("linux.namespaces", "an unprivileged user needs a user namespace")
	}
	c.plan.awaits = !c.exec && c.joinsBeside() || c.facts.AwaitCgroup
	switch {
	case c.opens(): // and makes the others beside its parent, which a clone would hold up
		c.plan.Namespaces = c.fresh & linux.CLONE_NEWPID
	case !c.fromHost():
		c.plan.Namespaces = c.fresh &^ ownCall
	}
}

// ownCall are the namespaces that no clone makes: the user namespace comes
// first, the control group namespace's root is the group the process is in when
// it is made, so the process must have joined its own, and a time namespace's
// clocks are set before anybody enters it.
const ownCall = linux.CLONE_NEWUSER | linux.CLONE_NEWCGROUP | linux.CLONE_NEWTIME

// fromHost says that the process is started on the host and makes its namespaces itself.
func (c *compiler) fromHost() bool { return c.userNamespace() || c.joined[linux.CLONE_NEWPID] != "" }

// userNamespace says that the container has a user namespace that is not the host's.
func (c *compiler) userNamespace() bool {
	return c.fresh&linux.CLONE_NEWUSER != 0 || c.joined[linux.CLONE_NEWUSER] != ""
}

// userMaps decides how a new user namespace gets its id maps.
func (c *compiler) userMaps() {
	l, h := c.linux(), &c.facts.Host
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		c.fail("linux.uidMappings", "a new user namespace needs mappings")
		return
	}
	own := func(maps []specs.LinuxIDMapping, id int) bool {
		return len(maps) == 1 && maps[0].Size == 1 && int(maps[0].HostID) == id
	}
	m := &UserMaps{UID: l.UIDMappings, GID: l.GIDMappings}
	m.UIDTool = !h.HasCap(linux.CAP_SETUID) && !own(m.UID, h.UID)
	if !h.HasCap(linux.CAP_SETGID) {
		m.GIDTool = !own(m.GID, h.GID)
		m.DenySetgroups = !m.GIDTool
	}
	c.plan.Maps = m
}

// settle brings the process into its namespaces.
func (c *compiler) settle(joins []Step) {
	const field = "linux.namespaces"
	for _, j := range joins {
		c.step(j.Field, j.Op)
	}
	if c.fresh&linux.CLONE_NEWUSER != 0 {
		c.step(field, unshare{linux.CLONE_NEWUSER})
	}
	if c.fresh&linux.CLONE_NEWTIME != 0 {
		c.step("linux.timeOffsets", newTime{c.self, c.timeOffsets()})
	}
	if c.fresh&linux.CLONE_NEWUSER != 0 {
		c.step("linux.uidMappings", awaitMaps{c.sync})
	}
	if c.userNamespace() {
		c.step("linux.uidMappings", c.someRoot())
	}
	rest := c.fresh &^ ownCall
	switch {
	case !c.fromHost():
	case c.fresh&linux.CLONE_NEWPID != 0 || c.joined[linux.CLONE_NEWPID] != "":
		c.step(field, fork{c.sync, rest})
	case rest != 0:
		c.step(field, unshare{rest})
	}
	if !c.joinsBeside() {
		c.ownCgroups()
	}
}

// someRoot is root of the container's user namespace, or the first of its users
// where it is made without root.
func (c *compiler) someRoot() (r becomeRoot) {
	first := func(maps []specs.LinuxIDMapping) uint32 {
		for _, m := range maps {
			if m.ContainerID == 0 {
				return 0
			}
		}
		return maps[0].ContainerID
	}
	if m := c.plan.Maps; m != nil {
		r = becomeRoot{first(m.UID), first(m.GID)}
	}
	return r
}

// dumpable says that files of the process in /proc are written by its own user,
// who is not root, on its way: id maps, or the clocks of its time namespace.
func (c *compiler) dumpable() bool {
	return c.fresh&linux.CLONE_NEWUSER != 0 || c.userNamespace() && c.fresh&linux.CLONE_NEWTIME != 0 && c.facts.Host.UID != 0
}

// joins makes the steps that join namespaces, in an order in which each is
// allowed. A privileged process joins the user namespace last: its rights reach
// into all others, while root of that user namespace may have none in them. An
// unprivileged one gets its rights from that user namespace.
func (c *compiler) joins() []Step {
	var steps []Step
	privileged := c.facts.Host.HasCap(linux.CAP_SYS_ADMIN)
	for _, info := range linux.Namespaces() {
		path := c.joined[info.CloneFlag]
		if path == "" {
			continue
		}
		field := c.namespaceField(info.Type) + ".path"
		fd := c.file(info.Proc+" namespace", File{Kind: Namespace, Path: path, Field: field})
		steps = append(steps, Step{setns{fd, info.CloneFlag}, field})
	}
	if privileged && c.joined[linux.CLONE_NEWUSER] != "" {
		steps = append(steps[1:], steps[0]) // it is the first of the table
	}
	return steps
}

// namespaceField is where in config.json a kind of namespace is.
func (c *compiler) namespaceField(t specs.LinuxNamespaceType) string {
	for i, ns := range c.linux().Namespaces {
		if ns.Type == t {
			return fmt.Sprintf("linux.namespaces[%d]", i)
		}
	}
	return "linux.namespaces"
}

// timeOffsets words linux.timeOffsets as the kernel reads them.
func (c *compiler) timeOffsets() string {
	var lines []string
	for clock, o := range c.linux().TimeOffsets {
		lines = append(lines, fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
