package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// group is the container's cgroup in one hierarchy.
type group struct {
	controllers []string
	name        string // of a named hierarchy
	root        string // the hierarchy's mount point
	dir         string
}

// keys are the group's names in Paths.
func (g *group) keys() []string {
	if g.name != "" {
		return []string{"name=" + g.name}
	}
	return g.controllers
}

func (g *group) has(controller string) bool {
	for _, c := range g.controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// v1 manages version 1 hierarchies, and the unified one beside them, which in the hybrid layout has no limits of ours.
type v1 struct {
	groups       []group
	unified      *v2  // nil unless hybrid
	unprivileged bool // the kernel gives us no device that others keep from us, and may not let us say so
	theirs       bool // systemd makes what it knows of, and has put a process there
	begun        bool // the unified one is made
}

// all are the groups with the unified one.
func (m *v1) all() []group {
	if m.unified == nil {
		return m.groups
	}
	return append(slices.Clip(m.groups), group{root: m.unified.root, dir: m.unified.dir})
}

// dir returns the container's directory for a controller.
func (m *v1) dir(controller string) (string, error) {
	for i := range m.groups {
		if m.groups[i].has(controller) {
			return m.groups[i].dir, nil
		}
	}
	if m.unified != nil && m.unified.offers(controller) {
		if err := m.unified.enable(); err != nil {
			return "", err
		}
		return m.unified.controllerDir(controller)
	}
	return "", fmt.Errorf("no %s hierarchy is mounted, or none that is ours: %w", controller, ErrUnsupported)
}

// plan translates resources. A controller that is not mounted as version 1 may be in the unified hierarchy.
func (m *v1) plan(r *specs.LinuxResources) *plan {
	return planFor(r, func(file1, file2 string) bool {
		if m.unified == nil || file2 == "" {
			return false
		}
		if file1 != "" {
			for i := range m.groups {
				if m.groups[i].has(controllerOf(file1)) {
					return false
				}
			}
		}
		return m.unified.offers(controllerOf(file2))
	})
}

func (m *v1) Unit() string { return "" }

// check translates what r says.
func (m *v1) check(r *specs.LinuxResources) (*plan, []deviceRule, error) {
	plan := m.plan(r)
	if plan.err != nil {
		return nil, nil, plan.err
	}
	devices, err := m.deviceRules(r)
	return plan, devices, err
}

// Prepare makes the unified cgroup.
func (m *v1) Prepare(ctx context.Context, r *specs.LinuxResources) (made bool, err error) {
	if _, _, err := m.check(r); err != nil {
		return false, err
	}
	if m.unified == nil {
		return false, nil
	}
	here, err := m.createUnified()
	if err != nil {
		removeMade(here)
		return false, wrapped(err)
	}
	m.begun = true
	return true, nil
}

func (m *v1) createUnified() (made []string, err error) {
	made, err = mkdirAll(m.unified.root, m.unified.dir)
	if err == nil && len(made) == 0 {
		err = m.unified.takeOver()
	}
	return made, err
}

func (m *v1) Create(ctx context.Context, r *specs.LinuxResources, _ int) (err error) {
	plan, devices, err := m.check(r)
	if err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			removeMade(made)
			if m.begun {
				m.groups = nil // what is left to destroy is Prepare's
			}
			err = wrapped(err)
		}
	}()
	fresh := false // the devices cgroup
	for _, g := range m.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		here, err := m.create(&g)
		made = append(made, here...)
		if err != nil {
			return err
		}
		fresh = fresh || len(here) > 0 && g.has("devices")
	}
	if m.unified != nil && !m.begun {
		here, err := m.createUnified()
		made = append(made, here...)
		if err != nil {
			return err
		}
	}
	if err := m.setDevices(devices, fresh); err != nil {
		return err
	}
	return plan.apply(m.dir)
}

// create makes the container's cgroup in one hierarchy, or takes over the one that is there.
func (m *v1) create(g *group) (made []string, err error) {
	made, err = mkdirAll(g.root, g.dir)
	switch {
	case err != nil:
	case len(made) == 0:
		err = m.takeOver(g)
	case g.has("cpuset"):
		err = inheritCpuset(made)
	}
	return made, err
}

// denied reports whether an error means that cgroups are not ours to make.
func denied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// setDevices writes the rules for devices. A new cgroup has what its parent has, so that there is nothing to say when everything is allowed.
func (m *v1) setDevices(rules []deviceRule, fresh bool) error {
	if len(rules) == 0 || fresh && allowAll(rules) {
		return nil
	}
	dir, err := m.dir("devices")
	if err != nil && m.unprivileged {
		return nil
	}
	if err != nil {
		return fieldError("devices", err)
	}
	err = writeDevicesV1(dir, rules)
	if m.unprivileged && denied(err) {
		return nil
	}
	return err
}

// removeMade removes directories that were made in vain, inner ones first.
func removeMade(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		_ = unix.Rmdir(made[i]) // somebody else may use an outer one by now
	}
}

// takeOver checks that a cgroup that exists is fit for a new container.
func (m *v1) takeOver(g *group) error {
	if m.theirs {
		return nil
	}
	pids, err := allPids(g.dir)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("%s: %w: %v", g.dir, ErrNotEmpty, firstFew(pids))
	}
	if g.has("freezer") {
		state, err := readFile(g.dir + "/freezer.state")
		if err != nil {
			return err
		}
		if strings.TrimSpace(state) != "THAWED" {
			return fmt.Errorf("%s: %w", g.dir, ErrFrozen)
		}
	}
	return nil
}

// inheritCpuset gives new cgroups, outermost first, the CPUs and memory nodes of their parent: on version 1 they begin with
// none, and a process cannot join.
func inheritCpuset(made []string) error {
	parent := made[0][:strings.LastIndexByte(made[0], '/')]
	for _, file := range [...]string{"/cpuset.cpus", "/cpuset.mems"} {
		value, err := readFile(parent + file)
		if err != nil {
			return err
		}
		if value = strings.TrimSpace(value); value == "" {
			continue // with the mount option cpuset_v2_mode, empty means what the parent has
		}
		for _, dir := range made {
			if err := writeFile(dir+file, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *v1) deviceRules(r *specs.LinuxResources) ([]deviceRule, error) {
	var list []specs.LinuxDeviceCgroup
	if r != nil {
		list = r.Devices
	}
	rules, err := deviceRules(list)
	if err != nil {
		return nil, err
	}
	rules, err = exceptions(rules)
	if m.unprivileged && errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	return rules, err
}

func (m *v1) JoinFiles() ([]*os.File, error) {
	files := make([]*os.File, 0, len(m.groups))
	for i := range m.groups {
		f, err := openFile(m.groups[i].dir+"/tasks", unix.O_WRONLY)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

func (m *v1) Dir() (*os.File, error) {
	if m.unified == nil {
		return nil, nil
	}
	return openDir(m.unified.dir)
}

// openDir opens a cgroup for clone3.
func openDir(dir string) (*os.File, error) {
	f, err := openFile(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return f, nil
}

func (m *v1) Add(pid int) error {
	for _, g := range m.all() {
		if err := writeFile(g.dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

func (m *v1) Paths() map[string]string {
	paths := make(map[string]string, len(m.groups)+1)
	for i := range m.groups {
		for _, key := range m.groups[i].keys() {
			paths[key] = m.groups[i].dir
		}
	}
	if m.unified != nil {
		paths[""] = m.unified.dir
	}
	return paths
}

// main is the group whose processes stand for the container's: the freezer's, which must be able to stop them.
func (m *v1) main() (string, error) {
	for _, controller := range [...]string{"freezer", "devices", "pids", "memory"} {
		if dir, err := m.dir(controller); err == nil {
			return dir, nil
		}
	}
	if len(m.groups) == 0 {
		return "", errors.New("no hierarchy")
	}
	return m.groups[0].dir, nil
}

func (m *v1) Pids() ([]int, error) {
	dir, err := m.main()
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	pids, err := allPids(dir)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return pids, nil
}

// killRounds bounds how often Kill looks for processes that were forked while it signalled.
const killRounds = 100

func (m *v1) Kill(ctx context.Context, sig unix.Signal) error {
	dir, err := m.main()
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if sig != unix.SIGKILL {
		if _, err := signalAll(dir, sig); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		return nil
	}
	// In a freezing cgroup what is forked is born frozen, so a round misses only what was forked while it began; the next one finds that.
	for round := range killRounds {
		if err := m.freezerState("FROZEN"); err != nil && !gone(err) {
			return fmt.Errorf("cgroup: %w", err)
		}
		n, err := signalAll(dir, sig)
		if err := errors.Join(err, m.thaw()); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if n == 0 {
			return nil
		}
		if round > 0 {
			if err := m.release(); err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup: kill processes in %s: %w", dir, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil // they are exiting: Destroy waits for that
}

// release lets killed processes die that a thaw of their cgroup did not reach: version 1 does not deliver SIGKILL to the frozen. Those in nested
// cgroups may be frozen there, and those frozen from above only leaving sets free.
func (m *v1) release() error {
	for _, g := range m.groups {
		if !g.has("freezer") {
			continue
		}
		dirs, err := walk(g.dir)
		if err != nil {
			return err
		}
		for _, dir := range dirs[1:] {
			if err := writeFile(dir+"/freezer.state", "THAWED"); err != nil && !gone(err) {
				return err
			}
		}
		if state, err := readFile(g.dir + "/freezer.state"); err != nil || strings.TrimSpace(state) == "THAWED" {
			return nil
		}
		pids, err := allPids(g.dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = writeFile(g.root+"/cgroup.procs", strconv.Itoa(pid)) // it may have ended; the next round tells
		}
	}
	return nil
}

func (m *v1) OOMKilled() (bool, error) {
	dir, err := m.dir("memory")
	if err != nil {
		return false, nil // without the controller nothing is counted, and nothing killed on its account
	}
	n, err := counter(dir+"/memory.oom_control", "oom_kill")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cgroup: %w", err)
	}
	return n > 0, nil
}

func (m *v1) Destroy(ctx context.Context) error {
	dirs := make([]string, 0, len(m.groups)+1)
	for _, g := range m.all() {
		dirs = append(dirs, g.dir)
	}
	return destroy(ctx, m, dirs)
}
