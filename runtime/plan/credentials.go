package plan

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// credentials compiles process.user and process.capabilities. The order is the
// kernel's: the bounding set while CAP_SETPCAP is there, then the user, then
// the sets themselves.
func (c *compiler) credentials() {
	p := c.spec.Process
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	known := ^uint64(0) >> (63 - c.facts.Host.LastCap)
	grantable := known
	if !c.userNamespace() {
		grantable &= c.facts.Host.Caps
	}
	set := func(name string, names []string, within uint64) uint64 {
		return c.capSet("process.capabilities."+name, names, within)
	}
	bounding := set("bounding", caps.Bounding, grantable)
	permitted := set("permitted", caps.Permitted, grantable)
	effective := set("effective", caps.Effective, permitted)
	// capset(2): what is in none of the inheritable and bounding sets cannot
	// become inheritable.
	inherit := bounding
	drop := known &^ bounding
	switch {
	case drop == 0:
	case c.userNamespace() || c.facts.Host.HasCap(linux.CAP_SETPCAP):
		c.step("process.capabilities.bounding", dropBounding{drop})
	default:
		inherit = grantable
		c.warn("process.capabilities.bounding", "cannot be reduced without CAP_SETPCAP")
	}
	inheritable := set("inheritable", caps.Inheritable, inherit)
	ambient := set("ambient", caps.Ambient, permitted&inheritable)
	c.step("process.user", setUser{p.User.UID, p.User.GID, p.User.AdditionalGids, c.noGroups()})
	c.step("process.capabilities", setCaps{effective, permitted, inheritable, ambient})
}

// noGroups: setgroups(2) is denied where an unprivileged user made the
// namespace (user_namespaces(7)).
func (c *compiler) noGroups() bool {
	denied := c.userNamespace() && !c.facts.Host.HasCap(linux.CAP_SETGID)
	if denied && len(c.spec.Process.User.AdditionalGids) > 0 {
		c.fail("process.user.additionalGids", "an unprivileged user cannot set them")
	}
	return denied
}

// capSet reads a set of capability names. What is unknown or cannot be granted
// is left out with a warning, as config.md wants it.
func (c *compiler) capSet(field string, names []string, within uint64) uint64 {
	var set uint64
	var unknown, refused []string
	for _, name := range names {
		n, ok := linux.Capability(name)
		switch {
		case !ok:
			unknown = append(unknown, name)
		case within&(1<<n) == 0:
			refused = append(refused, name)
		default:
			set |= 1 << n
		}
	}
	if unknown != nil {
		c.warn(field, "unknown: %s", strings.Join(unknown, ", "))
	}
	if refused != nil {
		c.warn(field, "cannot be granted: %s", strings.Join(refused, ", "))
	}
	return set
}
