package cgroup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v2 manages a cgroup of the unified hierarchy.
type v2 struct {
	root         string // the hierarchy's mount point
	dir          string
	unprivileged bool // the kernel gives us no device that others keep from us, and may not let us say so
	theirs       bool // systemd makes it, and has put a process there

	offered []string // controllers of the hierarchy, once known
	enabled []string // those of dir, once known
	failure error    // the first that enabling controllers met
}

func (m *v2) Unit() string { return "" }

func (m *v2) Create(ctx context.Context, r *specs.LinuxResources, _ int) (err error) {
	var devices []deviceRule
	plan := planFor(r, onV2)
	if err = plan.err; err == nil {
		devices, err = m.deviceRules(r)
	}
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return wrapped(err)
	}
	made, err := mkdirAll(m.root, m.dir)
	defer func() {
		if err != nil {
			removeMade(made)
			err = wrapped(err)
		}
	}()
	if err != nil {
		return err
	}
	if len(made) == 0 {
		err = m.takeOver()
	} else {
		err = m.checkThawed()
	}
	if err != nil {
		return err
	}
	if err := m.enable(); err != nil {
		return err
	}
	if len(devices) > 0 && !allowAll(devices) {
		if err := attachDevicesV2(m.dir, devices); err != nil && !(m.unprivileged && denied(err)) {
			return err
		}
	}
	return plan.apply(m.controllerDir)
}

// Prepare has nothing to make: a process is born in its cgroup, with all limits.
func (m *v2) Prepare(_ context.Context, r *specs.LinuxResources) (made bool, err error) {
	if _, err = m.deviceRules(r); err == nil {
		err = planFor(r, onV2).err
	}
	return false, err
}

func (m *v2) deviceRules(r *specs.LinuxResources) ([]deviceRule, error) {
	if r == nil {
		return deviceRules(nil)
	}
	return deviceRules(r.Devices)
}

// takeOver checks that a cgroup that exists is fit for a new container.
func (m *v2) takeOver() error {
	if m.theirs {
		return nil
	}
	pids, err := allPids(m.dir)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("%s: %w: %v", m.dir, ErrNotEmpty, firstFew(pids))
	}
	if err := detachDevicesV2(m.dir); err != nil && !(m.unprivileged && denied(err)) {
		return err
	}
	return m.checkThawed()
}

// checkThawed refuses a frozen cgroup: whoever starts a process in one waits for its exec as long as it is. A new one is when its
// parent is.
func (m *v2) checkThawed() error {
	frozen, err := m.Frozen()
	if err == nil && frozen {
		err = fmt.Errorf("%s: %w", m.dir, ErrFrozen)
	}
	return err
}

// enable makes every controller of the hierarchy available to the cgroup, top down, as far as that goes: stats and later updates
// want those for which there is no limit now. What could not be had is an error when a limit needs it.
func (m *v2) enable() error {
	if err := m.readOffered(); err != nil {
		return err
	}
	have, err := readFile(m.dir + "/cgroup.controllers")
	if err != nil {
		return err
	}
	all := m.offered[:len(m.offered)-1] // without the core
	if m.enabled = strings.Fields(have); len(m.enabled) == len(all) {
		return nil
	}
	for _, dir := range m.ancestors() {
		m.enableIn(dir, all)
	}
	if have, err = readFile(m.dir + "/cgroup.controllers"); err != nil {
		return err
	}
	m.enabled = strings.Fields(have)
	return nil
}

// readOffered reads the hierarchy's controllers.
func (m *v2) readOffered() error {
	if m.offered != nil {
		return nil
	}
	text, err := readFile(m.root + "/cgroup.controllers")
	m.offered = append(strings.Fields(text), "cgroup") // the core's own files ("cgroup.max.depth") need no controller
	return err
}

// offers reports whether the hierarchy has a controller.
func (m *v2) offers(controller string) bool {
	return m.readOffered() == nil && slices.Contains(m.offered, controller)
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

func (m *v2) Destroy(ctx context.Context) error { return destroy(ctx, m, []string{m.dir}) }
