package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// begin compiles the opening of the plan, if it has one. A process that needs nothing of the
// container is started with it at once: it makes namespaces, and nothing that would stay, and
// it ends when we do.
func (m *making) begin(root string, wait bool) (err error) {
	if wait {
		if m.gate, err = newGate(); err != nil {
			return err
		}
	}
	f := &plan.Facts{Host: m.facts, ID: m.options.ID, Bundle: m.options.Bundle}
	if err := m.callersFacts(f, wait); err != nil {
		return err
	}
	opening := plan.Opening(m.spec, f)
	if opening == nil {
		return nil
	}
	m.plan, m.opening = opening, true
	if m.image, err = opening.Program(); err != nil || m.needsContainer() {
		return err
	}
	return m.launch(root)
}

// needsContainer says that something has to be there before the process: the control group that
// it is born in, the container that a terminal belongs to, or what lies with its state and is mounted.
func (m *making) needsContainer() bool {
	return m.cgroup.Unit() == "" && m.cgroup.Paths()[""] != "" || m.process().Terminal || m.options.NotifySocket != ""
}

// prepare makes the plan before there is anything that a failure would have to remove; but that
// of a process which needs the container, and can begin while we make it, comes later. What a
// process that has begun makes before it waits for us is in its own namespaces, or as empty as a
// mount point: it goes on before the container has its name.
func (m *making) prepare(root string, wait bool) error {
	if m.opening && m.pid == 0 {
		return nil
	}
	if err := m.compile(wait); err != nil || m.pid == 0 {
		return err
	}
	if _, err := os.Lstat(filepath.Join(root, m.options.ID)); err == nil {
		return fmt.Errorf("container %q: %w", m.options.ID, ErrExist)
	}
	return m.handOver()
}

// start runs the program, or lets the process that has begun go on with it.
func (m *making) start(wait bool) error {
	dir := m.container.dir
	if m.gate != nil {
		if err := listen(m.gate, dir); err != nil {
			return err
		}
	}
	if m.opening {
		if err := m.launch(dir); err != nil {
			return err
		}
		if err := m.planLate(wait); err != nil {
			return err
		}
	}
	if err := m.makeClass(); err != nil {
		return err
	}
	switch {
	case m.loaded:
		return nil
	case m.pid > 0:
		return m.handOver()
	}
	if err := m.ownStdio(); err != nil {
		return err
	}
	return m.launch(dir)
}

// planLate makes the plan of a container that is on record.
func (m *making) planLate(wait bool) error {
	if err := m.compile(wait); err != nil {
		return err
	}
	m.describe(m.container, wait)
	if m.class == nil {
		return nil
	}
	return m.container.save(m.lock, false)
}

// handOver gives the process that has begun the program that it waits for.
func (m *making) handOver() error {
	m.loaded = true
	if err := m.ownStdio(); err != nil {
		return err
	}
	if m.plan.Listener != nil {
		if err := tellSender(m.family.sync); err != nil {
			return err
		}
	}
	if err := m.image.LoadInto(m.family.program); err != nil {
		return err
	}
	return m.release()
}

// launch starts the process, with the whole of its program or the opening. Dir is for that, where
// anonymous memory may not be executed.
func (m *making) launch(programDir string) (err error) {
	src := sources{stdio: m.options.Stdio, gate: m.gate, dir: programDir}
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	var group *os.File
	src.cgroups, group, err = m.cgroupEntrance()
	opened = append(opened, src.cgroups...)
	if err != nil {
		return err
	}
	if group != nil {
		opened = append(opened, group)
	}
	if m.process().Terminal {
		if src.console, err = m.console(); err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		if m.options.ConsoleSocket != "" {
			opened = append(opened, src.console)
		}
	}
	if m.family, err = assemble(m.plan, src); err != nil {
		return err
	}
	defer m.family.closeOpened()
	m.pid, err = m.image.Start(program.Start{
		Files: m.family.files, Cloneflags: uintptr(m.plan.Namespaces), CgroupDir: group, Dir: programDir,
	})
	if r := m.spec.Linux.Resources; errors.Is(err, unix.ENOMEM) && r != nil && r.Memory != nil && r.Memory.Limit != nil {
		return &plan.FieldError{Field: "linux.resources.memory.limit", Err: err}
	}
	return err
}

// closeGate closes our end of it: the process has its own.
func (m *making) closeGate() {
	if m.gate != nil {
		m.gate.Close()
	}
}

// ownStdio gives the caller's pipes to the container's user.
func (m *making) ownStdio() error {
	p := m.process()
	if p.User.UID == 0 || p.Terminal {
		return nil
	}
	dir := ""
	if m.container != nil {
		dir = m.container.dir
	}
	uid, gid, err := containerMaps(m.spec, dir)
	if err == nil {
		ownStdio(m.options.Stdio, hostID(p.User.UID, uid), hostID(p.User.GID, gid))
	}
	return err
}

// process is the configuration's, or none: then the container waits for ever.
func (m *making) process() *specs.Process {
	if m.spec.Process == nil {
		return &specs.Process{}
	}
	return m.spec.Process
}

func (m *making) console() (*os.File, error) {
	if m.options.ConsoleSocket != "" {
		return connect(m.options.ConsoleSocket)
	}
	return m.options.Console()
}
