package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
)

// rootless says whether control groups may not be ours to make.
func (m *making) rootless() bool {
	if m.options.Rootless != nil {
		return *m.options.Rootless
	}
	return m.facts.UID != 0 || m.facts.InUserNamespace
}

func (m *making) newCgroup() (err error) {
	m.cgroup, err = cgroup.New(m.facts, cgroup.Options{Path: m.spec.Linux.CgroupsPath, ID: m.options.ID,
		Driver: m.options.CgroupManager, Optional: m.rootless(), Annotations: m.spec.Annotations})
	return err
}

// confine makes the control groups before the process, or as much of them as
// has to be there where the rest is made beside it.
func (m *making) confine(ctx context.Context) (err error) {
	if m.plan.AwaitsCgroups() {
		m.made, err = m.cgroup.Prepare(ctx, m.firstLimits())
		return err
	}
	return m.makeCgroups(ctx)
}

func (m *making) makeCgroups(ctx context.Context) error {
	err := m.cgroup.Create(ctx, m.firstLimits(), m.pid)
	if err == nil {
		m.made = true // else Create has removed what it made, and the rest is another's
	}
	return err
}

// firstLimits are those that hold from the beginning: all, but for a limit of one
// process where the container's is forked by one that shows the way. That limit
// comes when there is but one.
func (m *making) firstLimits() *specs.LinuxResources {
	r := m.spec.Linux.Resources
	if !m.lateLimit() {
		return r
	}
	first := *r
	first.Pids = nil
	return &first
}

func (m *making) lateLimit() bool {
	r := m.spec.Linux.Resources
	return m.plan.Forks() && r != nil && r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit == 1
}

// lastLimits sets what firstLimits has left out.
func (m *making) lastLimits(ctx context.Context) error {
	if !m.lateLimit() {
		return nil
	}
	return m.cgroup.Set(ctx, &specs.LinuxResources{Pids: m.spec.Linux.Resources.Pids})
}

// moveToUnit has systemd make a control group around the process, which waits
// for that before it does anything.
func (m *making) moveToUnit(ctx context.Context) error {
	if m.cgroup.Unit() == "" {
		return nil
	}
	if err := m.expect(ctx, plan.SaysBegun); err != nil {
		return err
	}
	return m.admit(ctx)
}

// equip gives the process what it waits for, in the order in which it does:
// network devices, and control groups.
func (m *making) equip(ctx context.Context) error {
	if err := m.moveDevices(ctx); err != nil {
		return err
	}
	return m.confineBeside(ctx)
}

// confineBeside makes the control groups that the process joins when it is
// ready for them. It has so much to do until then that it seldom waits.
func (m *making) confineBeside(ctx context.Context) error {
	if m.cgroup.Unit() != "" || !m.plan.AwaitsCgroups() {
		return nil
	}
	return m.admit(ctx)
}

func (m *making) admit(ctx context.Context) error {
	if err := m.makeCgroups(ctx); err != nil {
		return err
	}
	return m.release()
}

// cgroupPlan says how the process comes into its control groups.
func (m *making) cgroupPlan(f *plan.Facts) {
	CgroupFacts(f, m.cgroup.Paths())
	if m.cgroup.Unit() != "" {
		f.CgroupFiles, f.AwaitCgroup = 0, true
	}
}

// cgroupEntrance opens the ways into the control groups: files to write to, and
// a directory to be born in.
func (m *making) cgroupEntrance() (files []*os.File, dir *os.File, err error) {
	if m.cgroup.Unit() != "" {
		return nil, nil, nil
	}
	if !m.plan.AwaitsCgroups() {
		if files, err = m.cgroup.JoinFiles(); err != nil {
			return nil, nil, err
		}
	}
	dir, err = m.cgroup.Dir()
	return files, dir, err
}

// ending says how the process ended that should not have.
func (m *making) ending() string {
	if oom, err := m.cgroup.OOMKilled(); err == nil && oom {
		return ": killed for exceeding linux.resources.memory.limit"
	}
	return ""
}

// CgroupFacts says which version 1 hierarchies a container's process joins, and
// which directories are its control group, for the paths of one. Where it has
// none it stays in ours.
func CgroupFacts(f *plan.Facts, paths map[string]string) {
	var own map[string]string
	dirOf := func(key string) string {
		if paths[key] != "" {
			return paths[key]
		}
		if own == nil {
			own = cgroup.Own(f.Host)
		}
		return own[key]
	}
	if f.Host.CgroupMode == host.CgroupV2 {
		f.Cgroups = []plan.CgroupDir{{Path: dirOf("")}}
		return
	}
	f.CgroupsBeside = true
	for _, h := range f.Host.Hierarchies {
		d, key := plan.CgroupDir{Name: path.Base(h.Mountpoint)}, "name="+h.Name
		for _, c := range h.Controllers {
			key = c
			if c != d.Name {
				d.Aliases = append(d.Aliases, c)
			}
		}
		if d.Joins = paths[key] != ""; d.Joins {
			f.CgroupFiles++
		}
		d.Path = dirOf(key)
		f.Cgroups = append(f.Cgroups, d)
	}
}

// Update changes the limits of a container that has not stopped, and its shares
// of caches and memory bandwidth where it has any.
func (s Store) Update(ctx context.Context, id string, r *specs.LinuxResources, shares *specs.LinuxIntelRdt) error {
	c, l, err := s.hold(id, false)
	defer func() { l.release() }()
	if err != nil {
		return err
	}
	if l == nil || c.phase() == specs.StateStopped {
		return fmt.Errorf("container %q: %w", id, ErrNotRunning)
	}
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	var field *plan.FieldError
	if err = m.Set(ctx, r); errors.As(err, &field) {
		err = fmt.Errorf("%s: %w", field.Field, field.Err) // of what the caller wants, not of config.json
	}
	if err == nil {
		err = c.share(shares)
	}
	if err != nil {
		return fmt.Errorf("container %q: update: %w", id, err)
	}
	return nil
}

// cgroups returns the container's control groups, also where it has none.
func (c *Container) cgroups() (cgroup.Manager, error) {
	f, err := host.Probe()
	if err != nil {
		return nil, err
	}
	return cgroup.Load(f, c.Cgroups, c.Unit)
}
