package cgroup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v2 manages a cgroup of the unified hierarchy.
type v2 struct {
	root        string // the hierarchy's mount point
	dir         string
	skipDevices bool // in a user namespace the kernel gives nobody a device anyway, and does not let us say so

	enabled []string // controllers of dir, once known
	failure error    // the first that enabling controllers met
}

func (m *v2) Create(ctx context.Context, r *specs.LinuxResources) (err error) {
	var devices []deviceRule
	plan := planV2(r)
	if err = plan.err; err == nil && !m.skipDevices {
		devices, err = m.deviceRules(r)
	}
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	made, err := mkdirAll(m.root, m.dir)
	defer func() {
		if err != nil {
			removeMade(made)
			err = fmt.Errorf("cgroup: %w", err)
		}
	}()
	if err != nil {
		return err
	}
	if len(made) == 0 {
		if err := m.takeOver(); err != nil {
			return err
		}
	}
	if err := m.enable(); err != nil {
		return err
	}
	if len(devices) > 0 && !allowAll(devices) {
		if err := attachDevicesV2(m.dir, devices); err != nil {
			return err
		}
	}
	return plan.apply(m.controllerDir)
}

func (m *v2) deviceRules(r *specs.LinuxResources) ([]deviceRule, error) {
	if r == nil {
		return deviceRules(nil)
	}
	return deviceRules(r.Devices)
}

// takeOver checks that a cgroup that exists is fit for a new container.
func (m *v2) takeOver() error {
	pids, err := allPids(m.dir)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("%s: %w: %v", m.dir, ErrNotEmpty, firstFew(pids))
	}
	state, err := readFile(m.dir + "/cgroup.freeze")
	if err != nil {
		return err
	}
	if strings.TrimSpace(state) != "0" {
		return fmt.Errorf("%s: %w", m.dir, ErrFrozen)
	}
	return nil
}

// enable makes every controller of the hierarchy available to the cgroup, top down, as far as that goes: stats and later updates
// want those for which there is no limit now. What could not be had is an error when a limit needs it.
func (m *v2) enable() error {
	offered, err := readFile(m.root + "/cgroup.controllers")
	if err != nil {
		return err
	}
	have, err := readFile(m.dir + "/cgroup.controllers")
	if err != nil {
		return err
	}
	if m.enabled = strings.Fields(have); have == offered {
		return nil
	}
	all := strings.Fields(offered)
	for _, dir := range m.ancestors() {
		m.enableIn(dir, all)
	}
	if have, err = readFile(m.dir + "/cgroup.controllers"); err != nil {
		return err
	}
	m.enabled = strings.Fields(have)
	return nil
}

// ancestors are the directories above the cgroup, from the mount point down.
func (m *v2) ancestors() []string {
	dirs := []string{m.root}
	for i := len(m.root) + 1; i < len(m.dir); i++ {
		if m.dir[i] == '/' {
			dirs = append(dirs, m.dir[:i])
		}
	}
	return dirs
}

// enableIn enables controllers for the children of dir: all with one write, or one by one if the kernel refuses that.
func (m *v2) enableIn(dir string, controllers []string) {
	file := dir + "/cgroup.subtree_control"
	if len(controllers) == 0 || writeFile(file, "+"+strings.Join(controllers, " +")) == nil {
		return
	}
	for _, c := range controllers {
		if err := writeFile(file, "+"+c); err != nil && m.failure == nil {
			m.failure = err
		}
	}
}

// controllerDir returns the cgroup's directory if the controller is enabled there.
func (m *v2) controllerDir(controller string) (string, error) {
	// The core's own files ("cgroup.max.depth") need no controller.
	if controller == "cgroup" || slices.Contains(m.enabled, controller) {
		return m.dir, nil
	}
	err := fmt.Errorf("the %s controller is not available in %s: %w", controller, m.dir, ErrUnsupported)
	if m.failure != nil {
		err = fmt.Errorf("%w (%w)", err, m.failure)
	}
	return "", err
}

// JoinFiles: on version 2 a process is born in its cgroup.
func (m *v2) JoinFiles() ([]*os.File, error) { return nil, nil }

func (m *v2) Dir() (*os.File, error) { return openDir(m.dir) }

func (m *v2) Add(pid int) error {
	if err := writeFile(m.dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

func (m *v2) Paths() map[string]string { return map[string]string{"": m.dir} }

func (m *v2) Pids() ([]int, error) {
	pids, err := allPids(m.dir)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return pids, nil
}

func (m *v2) Kill(_ context.Context, sig unix.Signal) error {
	var err error
	if sig == unix.SIGKILL {
		// Linux 5.14: kills nested and frozen ones, and no fork escapes it.
		err = writeFile(m.dir+"/cgroup.kill", "1")
	} else {
		_, err = signalAll(m.dir, sig)
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

func (m *v2) Set(ctx context.Context, r *specs.LinuxResources) error {
	err := ctx.Err()
	if err == nil {
		err = m.enable()
	}
	if err == nil {
		err = m.checkBeforeUpdate(r)
	}
	if err == nil {
		r, err = m.keepQuota(r)
	}
	if err == nil {
		err = planV2(r).apply(m.controllerDir)
	}
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// checkBeforeUpdate refuses a memory limit below what is in use, if the configuration asks for that: the kernel would reclaim, and
// then kill.
func (m *v2) checkBeforeUpdate(r *specs.LinuxResources) error {
	if r == nil || r.Memory == nil || r.Memory.CheckBeforeUpdate == nil || !*r.Memory.CheckBeforeUpdate || !set(r.Memory.Limit) || *r.Memory.Limit < 0 {
		return nil
	}
	text, err := readFile(m.dir + "/memory.current")
	if err != nil {
		return fmt.Errorf("linux.resources.memory.checkBeforeUpdate: %w", err)
	}
	usage, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("linux.resources.memory.checkBeforeUpdate: memory.current: %w", err)
	}
	if usage > *r.Memory.Limit {
		return fmt.Errorf("linux.resources.memory.limit: %d is below the %d in use", *r.Memory.Limit, usage)
	}
	return nil
}

// keepQuota completes an update of the period alone: cpu.max holds both, the quota first.
func (m *v2) keepQuota(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil || r.CPU == nil || !set(r.CPU.Period) || set(r.CPU.Quota) {
		return r, nil
	}
	text, err := readFile(m.dir + "/cpu.max")
	if err != nil {
		return nil, fmt.Errorf("linux.resources.cpu.period: %w", err)
	}
	quota, err := strconv.ParseInt(strings.Fields(text + " -")[0], 10, 64)
	if err != nil {
		return r, nil // "max"
	}
	full, cpu := *r, *r.CPU
	cpu.Quota = &quota
	full.CPU = &cpu
	return &full, nil
}

func (m *v2) OOMKilled() (bool, error) {
	n, err := counter(m.dir+"/memory.events", "oom_kill")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cgroup: %w", err)
	}
	return n > 0, nil
}

func (m *v2) Destroy(ctx context.Context) error {
	if err := removeTree(ctx, m.dir, time.Now().Add(destroyTimeout)); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}
