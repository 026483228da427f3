package plan

import (
	"sort"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

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
	sysctl := c.linux().Sysctl
	if len(sysctl) == 0 {
		return
	}
	proc := c.newFD("proc")
	c.step("linux.sysctl", mountFS{Type: "proc", Source: "proc", Out: proc})
	keys := make([]string, 0, len(sysctl))
	for k := range sysctl {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if strings.Contains("/"+sysctlPath(k)+"/", "/../") {
			c.fail("linux.sysctl."+k, "not the name of a kernel parameter")
		}
		c.step("linux.sysctl."+k, writeSysctl{proc, k, sysctl[k]})
	}
	c.step("linux.sysctl", closeFD{proc})
}
