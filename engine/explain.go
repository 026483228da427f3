package engine

import (
	"context"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// Explain compiles what would be run, without running it: for a bundle (a
// directory with a config.json), or for an image, with the options of Run.
func (e *Engine) Explain(ctx context.Context, target string, o RunOptions) (p *plan.Plan, err error) {
	if exists(filepath.Join(target, "config.json")) {
		return explainBundle(target, "explained")
	}
	o.Image = target
	ctx, _, stop := interruptible(ctx)
	defer stop()
	err = e.withContainer(ctx, o, func(c *container, o RunOptions) error {
		p, err = explainBundle(c.bundle, c.id)
		return err
	})
	return p, err
}

// explainBundle compiles the configuration of a bundle as the runtime does.
func explainBundle(dir, id string) (*plan.Plan, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := spec.Load(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(s); err != nil {
		return nil, err
	}
	machine, err := host.Probe()
	if err != nil {
		return nil, err
	}
	f, err := lifecycle.Facts(s, machine, dir, id)
	if err != nil {
		return nil, err
	}
	if machine.CgroupMode != host.CgroupNone {
		if s.Linux == nil {
			s.Linux = &specs.Linux{}
		}
		m, err := cgroup.New(machine, cgroup.Options{Path: s.Linux.CgroupsPath, ID: id})
		if err != nil {
			return nil, err
		}
		lifecycle.CgroupFacts(f, m.Paths())
	}
	return plan.Compile(s, f)
}
