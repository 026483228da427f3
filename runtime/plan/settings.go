package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// procfs opens the procfs that settings and labels are written through, where
// there are any: on the host where we may, else once the process has entered its
// namespaces, whose rights it then has.
func (c *compiler) procfs(entered bool) {
	if entered == c.facts.Host.HasCap(linux.CAP_SYS_ADMIN) {
		return
	}
	p := c.spec.Process
	for _, r := range []struct {
		field string
		set   bool
	}{
		{"process.selinuxLabel", p.SelinuxLabel != ""},
		{"process.apparmorProfile", p.ApparmorProfile != ""},
		{"linux.sysctl", len(c.linux().Sysctl) > 0 && !c.exec},
	} {
		if r.set {
			c.proc = c.newFD("proc")
			c.step(r.field, ownProcfs{c.proc, !c.exec && c.fresh&linux.CLONE_NEWNS != 0})
			return
		}
	}
}

// keyring gives the container a session keyring with the process's label.
func (c *compiler) keyring() {
	if c.facts.NoNewKeyring {
		return
	}
	context := c.spec.Process.SelinuxLabel
	if context != "" {
		c.step("process.selinuxLabel", label{c.proc, "keycreate", context})
	}
	ring := sessionKeyring{"_ses." + c.facts.ID, newKeyring | keySearchOwner}
	switch {
	case c.exec:
		ring.Permissions = 0
	case c.userNamespace():
		ring.Permissions = newKeyring | keySearchOthers
	}
	c.step("", ring)
	if context != "" {
		c.step("process.selinuxLabel", label{c.proc, "keycreate", ""})
	}
}

// settings are those of the new namespaces.
func (c *compiler) settings() {
	if c.fresh&linux.CLONE_NEWNET != 0 {
		c.step("linux.namespaces", loopbackUp{})
	}
	if c.spec.Hostname != "" {
		c.step("hostname", setName{"sethostname", c.spec.Hostname})
	}
	if c.spec.Domainname != "" {
		c.step("domainname", setName{"setdomainname", c.spec.Domainname})
	}
	c.sysctls()
}

// devicesOfParent waits for what only the parent can bring into the container,
// and refuses what it cannot.
func (c *compiler) devicesOfParent() {
	l, h := c.linux(), &c.facts.Host
	if len(l.NetDevices) == 0 {
		return
	}
	switch {
	case !c.own(specs.NetworkNamespace):
		c.fail("linux.netDevices", "the container has the host's network namespace")
	case !h.HasCap(linux.CAP_NET_ADMIN) || !h.HasCap(linux.CAP_SYS_ADMIN):
		c.fail("linux.netDevices", "a rootless container cannot have any: to move them takes CAP_NET_ADMIN and CAP_SYS_ADMIN")
	}
	c.step("linux.netDevices", awaitDevices{c.sync})
}

// sysctls sets kernel parameters, those of a namespace that is the container's
// own: anything else is the host's.
func (c *compiler) sysctls() {
	sysctl := c.linux().Sysctl
	for _, name := range slices.Sorted(maps.Keys(sysctl)) {
		field := fmt.Sprintf("linux.sysctl[%q]", name)
		path := linux.SysctlPath(name)
		ns, ok := linux.SysctlNamespace(path)
		switch {
		case path == nil:
			c.fail(field, "not the name of a kernel parameter")
		case !ok || !c.own(ns):
			c.fail(field, "not allowed: it is a parameter of the host's")
		default:
			c.step(field, writeSysctl{c.proc, strings.Join(path, "/"), sysctl[name]})
		}
	}
}

// own says whether the container has a namespace of a type that is not ours.
func (c *compiler) own(t specs.LinuxNamespaceType) bool {
	info, ok := linux.Namespace(t)
	joined := c.joined[info.CloneFlag]
	return ok && (c.fresh&info.CloneFlag != 0 || joined != "" && !slices.Contains(c.facts.OwnNamespaces, joined))
}

// labels asks the security modules to confine the user's program from its
// execve on. What they cannot do is told now, and not at start.
func (c *compiler) labels() {
	p := c.spec.Process
	if p.ApparmorProfile != "" {
		if !c.facts.Host.AppArmor {
			c.fail("process.apparmorProfile", "AppArmor is not enabled on this machine")
		}
		c.step("process.apparmorProfile", confine{c.proc, p.ApparmorProfile})
	}
	if p.SelinuxLabel != "" {
		if !c.facts.Host.SELinux {
			c.fail("process.selinuxLabel", "SELinux is not enabled on this machine")
		}
		c.step("process.selinuxLabel", label{c.proc, "exec", p.SelinuxLabel})
	}
	if c.proc.variable {
		c.step("", closeFD{c.proc})
	}
}
