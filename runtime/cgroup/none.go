package cgroup

import (
	"context"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// none manages nothing: the machine has no cgroups, or nobody wants any. A container can do without; its limits cannot.
type none struct {
	why string
	// anyDevice lets rules for devices pass that nobody enforces.
	anyDevice bool
}

func (m *none) Unit() string { return "" }

func (m *none) Create(_ context.Context, r *specs.LinuxResources, _ int) error {
	if r != nil && len(r.Devices) > 0 && !m.anyDevice {
		return fieldError("devices", fmt.Errorf("%s: %w", m.why, ErrUnsupported))
	}
	return planFor(r, onV2).none(m.why)
}

func (m *none) Prepare(ctx context.Context, r *specs.LinuxResources) (made bool, err error) {
	return false, m.Create(ctx, r, 0)
}

// none says why the plan's first setting cannot be had, if it has one that does something.
func (p *plan) none(why string) error {
	if p.err != nil {
		return p.err
	}
	for _, g := range p.groups {
		for _, s := range g {
			if !s.needless {
				return fieldError(s.field, fmt.Errorf("%s: %w", why, ErrUnsupported))
			}
		}
	}
	return nil
}

func (m *none) missing(what string) error { return fmt.Errorf("%s: %w: %s", what, ErrNone, m.why) }

func (m *none) JoinFiles() ([]*os.File, error) { return nil, nil }
func (m *none) Dir() (*os.File, error)         { return nil, nil }
func (m *none) Add(int) error                  { return nil }
func (m *none) Paths() map[string]string       { return nil }
func (m *none) Pids() ([]int, error)           { return nil, m.missing("list processes") }
func (m *none) Frozen() (bool, error)          { return false, nil }
func (m *none) OOMKilled() (bool, error)       { return false, nil }
func (m *none) Destroy(context.Context) error  { return nil }

func (m *none) Stats() (*Stats, error) { return nil, m.missing("statistics") }

func (m *none) OOMs(context.Context, func()) error { return m.missing("wait for the OOM killer") }

func (m *none) Kill(context.Context, unix.Signal) error { return m.missing("kill all processes") }

func (m *none) Freeze(context.Context, bool) error { return fmt.Errorf("%w: %s", ErrNone, m.why) }

func (m *none) Set(_ context.Context, r *specs.LinuxResources) error {
	return planFor(r, onV2).none(m.why)
}
