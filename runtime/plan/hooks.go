package plan

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// createHooks compiles the hooks of create (config.md, "POSIX-platform Hooks"):
// the parent runs those of the runtime's namespace while the process waits, and
// then the process runs those of the container's, on the host's root still.
func (c *compiler) createHooks() {
	h := c.spec.Hooks
	if !hasHooks(h) {
		return
	}
	parents := parentHooks{Sync: c.sync}
	for _, hook := range slices.Concat(h.Prestart, h.CreateRuntime) { //nolint:staticcheck // Prestart is deprecated, not gone
		parents.Paths = append(parents.Paths, hook.Path)
	}
	c.step("hooks", parents)
	for i, hook := range h.CreateContainer {
		op := c.hook("createContainer", i, hook)
		op.State, op.Out, op.Err = c.hookState, c.hookOut, c.hookErr
		op.Dir, op.InDir = c.root, true
		c.step(op.field(), op)
	}
	for _, fd := range c.hookFiles() {
		c.step("", closeFD{fd})
	}
}

// startHooks compiles those that run in the container when start has been
// called. They come before the steps from first on, the last before the user's
// program, and go through the same: they run with what it will run with.
func (c *compiler) startHooks(first int) {
	if c.exec || c.spec.Hooks == nil || len(c.spec.Hooks.StartContainer) == 0 {
		return
	}
	tail := slices.Clone(c.plan.Steps[first:])
	c.plan.Steps = c.plan.Steps[:first]
	for i, hook := range c.spec.Hooks.StartContainer {
		op := c.hook("startContainer", i, hook)
		op.State, op.Out, op.Err = c.startState, c.hookNull, c.hookNull
		for _, s := range tail {
			op.Before = append(op.Before, s.Op) // a listener of its own among them
		}
		c.step(op.field(), op)
	}
	c.plan.Steps = append(c.plan.Steps, tail...)
}

func (c *compiler) hook(kind string, i int, h specs.Hook) runHook {
	op := runHook{Kind: kind, Index: i, Path: h.Path, Args: h.Args, Env: h.Env, Umask: c.mask()}
	if len(op.Args) == 0 {
		op.Args = []string{h.Path}
	}
	if h.Timeout != nil {
		// A wait of a century is as good as a longer one.
		op.TimeoutSeconds = uint32(min(*h.Timeout, 100*365*24*3600))
	}
	return op
}

// hasHooks says whether any hook runs while the container is created or
// started, which its process takes part in.
func hasHooks(h *specs.Hooks) bool {
	return h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+
		len(h.Prestart) > 0 //nolint:staticcheck // Prestart is deprecated, not gone
}

// hookDescriptors adds what hooks of the container's namespace read and write.
func (c *compiler) hookDescriptors() {
	h := c.spec.Hooks
	if c.exec || h == nil {
		return
	}
	if len(h.CreateContainer) > 0 {
		c.hookState = c.file("hook state", File{Kind: HookState, Index: 0, Field: "hooks.createContainer"})
		c.hookOut = c.file("hook output", File{Kind: HookOutput, Index: 1, Field: "hooks.createContainer"})
		c.hookErr = c.file("hook errors", File{Kind: HookOutput, Index: 2, Field: "hooks.createContainer"})
	}
	if len(h.StartContainer) > 0 {
		c.startState = c.file("hook state", File{Kind: HookState, Index: 1, Field: "hooks.startContainer"})
		c.hookNull = c.file("null", File{Kind: HookOutput, Index: 0, Field: "hooks.startContainer"})
	}
}

// hookFiles are those that no hook needs any more once create's have run.
func (c *compiler) hookFiles() []FD {
	if len(c.spec.Hooks.CreateContainer) == 0 {
		return nil
	}
	return []FD{c.hookState, c.hookOut, c.hookErr}
}

// rootPlace is where the root file system's mount is put. Hooks find it at its
// own path, as it is in the bundle; else it lies on "/", where no path leads to
// it and nothing on the host has to be looked up again.
func (c *compiler) rootPlace() string {
	if hasHooks(c.spec.Hooks) {
		return c.absolute(c.spec.Root.Path)
	}
	return "/"
}

// WaitsForHooks says whether the process waits for its parent to run hooks
// before it goes on.
func (p *Plan) WaitsForHooks() bool {
	for _, s := range p.Steps {
		if _, ok := s.Op.(parentHooks); ok {
			return true
		}
	}
	return false
}

// AwaitsCgroups says whether the process is started before its control groups
// are there, and waits for its parent to make them.
func (p *Plan) AwaitsCgroups() bool { return p.awaits }

// failed is how the failure of the hook is announced, as runc does.
func (o runHook) failed() string { return fmt.Sprintf("error running %s hook #%d", o.Kind, o.Index) }

func (o runHook) field() string { return fmt.Sprintf("hooks.%s[%d]", o.Kind, o.Index) }
