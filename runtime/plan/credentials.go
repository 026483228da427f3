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
	c.supplementary()
	c.step("process.user", setUser{p.User.UID, p.User.GID})
	c.step("process.capabilities", setCaps{effective, permitted, inheritable, ambient})
}

// supplementary sets the user's further groups. Where a user namespace denies
// setgroups(2), none can be set, and those of the caller stay (user_namespaces(7)).
func (c *compiler) supplementary() {
	groups := c.spec.Process.User.AdditionalGids
	denied := c.plan.Maps != nil && c.plan.Maps.DenySetgroups
	if denied && len(groups) > 0 {
		c.fail("process.user.additionalGids", "an unprivileged user cannot set them")
	}
	if denied {
		return
	}
	c.step("process.user.additionalGids", setGroups{groups, c.userNamespace() || c.facts.Host.InUserNamespace})
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
