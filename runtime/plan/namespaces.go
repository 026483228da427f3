package plan

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

func (c *compiler) namespaces() {
	for i, ns := range c.linux().Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		info, ok := linux.Namespace(ns.Type)
		switch {
		case !ok:
			c.fail(field+".type", "unknown namespace %q", ns.Type)
		case ns.Path == "" && ns.Type == specs.TimeNamespace:
			c.errs = append(c.errs, &FieldError{Field: field, Err: errUnsupported})
		case ns.Path == "":
			c.fresh |= info.CloneFlag
		case ns.Type == specs.UserNamespace || ns.Type == specs.PIDNamespace || ns.Type == specs.TimeNamespace || ns.Type == specs.MountNamespace:
			c.fail(field+".path", "joining a %s namespace is %w", ns.Type, errUnsupported)
		default:
			c.joined[info.CloneFlag] = ns.Path
		}
	}
	if c.fresh&linux.CLONE_NEWNS == 0 {
		c.fail("linux.namespaces", "a new mount namespace is needed")
	}
	// The control group namespace's root is the group the process is in when
	// it is made, so the process must have joined its own first.
	c.plan.Namespaces = c.fresh &^ linux.CLONE_NEWCGROUP
	if c.userNamespace() && len(c.linux().UIDMappings) == 0 {
		c.fail("linux.uidMappings", "a new user namespace needs mappings")
	}
}

func (c *compiler) userNamespace() bool { return c.fresh&linux.CLONE_NEWUSER != 0 }

func (c *compiler) joins() []Step {
	var steps []Step
	for i, ns := range c.linux().Namespaces {
		info, ok := linux.Namespace(ns.Type)
		if !ok || c.joined[info.CloneFlag] == "" {
			continue
		}
		field := fmt.Sprintf("linux.namespaces[%d].path", i)
		fd := c.file(info.Proc+" namespace", File{Kind: Namespace, Path: ns.Path, Field: field})
		steps = append(steps, Step{setns{fd, info.CloneFlag}, field})
	}
	return steps
}
