package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/safepath"
)

// execSpec is what CompileExec wants: the container's configuration, as far as
// it concerns any of its processes, and the new process.
func (c *Container) execSpec(process func(*specs.Process) (*specs.Process, error)) (*specs.Spec, error) {
	own, err := spec.Load(filepath.Join(c.dir, configName))
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", c.ID, err)
	}
	s := &specs.Spec{Version: own.Version, Linux: &specs.Linux{}}
	if l := own.Linux; l != nil {
		s.Linux = &specs.Linux{Namespaces: l.Namespaces, UIDMappings: l.UIDMappings, GIDMappings: l.GIDMappings,
			Seccomp: l.Seccomp, Personality: l.Personality, MemoryPolicy: l.MemoryPolicy}
	}
	if own.Process == nil {
		own.Process = &specs.Process{Cwd: "/"}
	}
	defaults := *own.Process
	if s.Process, err = process(own.Process); err != nil {
		return nil, err
	}
	if err := spec.ValidateProcess(s.Process); err != nil {
		return nil, err
	}
	inherit(s.Process, &defaults)
	return s, nil
}

// inherit fills in what a process does not say of itself and its container's
// own process does: the rules are runc's (newInitConfig).
func inherit(p, own *specs.Process) {
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = own.ApparmorProfile
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = own.SelinuxLabel
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = own.OOMScoreAdj
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
	if p.User.Umask == nil {
		p.User.Umask = own.User.Umask
	}
}

// otherNamespaces are the container's namespaces less a user namespace that is
// also ours, which nobody can enter again (setns(2)).
func (x *execution) otherNamespaces() ([]specs.LinuxNamespace, error) {
	all := x.spec.Linux.Namespaces
	for i, ns := range all {
		if ns.Type != specs.UserNamespace || ns.Path == "" {
			continue // a new one is not ours
		}
		var ours, theirs unix.Stat_t
		if err := unix.Stat("/proc/self/ns/user", &ours); err != nil {
			return nil, &os.PathError{Op: "stat", Path: "/proc/self/ns/user", Err: err}
		}
		name := fmt.Sprintf("/proc/%d/ns/user", x.container.PID)
		if err := unix.Stat(name, &theirs); err != nil {
			return nil, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if ours.Dev == theirs.Dev && ours.Ino == theirs.Ino {
			return append(all[:i:i], all[i+1:]...), nil
		}
	}
	return all, nil
}

// home reads a user's home directory from the running container's /etc/passwd.
func (c *Container) home(uid uint32) string {
	root, err := safepath.OpenRoot(fmt.Sprintf("/proc/%d/root", c.PID))
	if err != nil {
		return "" // without it the process begins in a home of "/"
	}
	defer root.Close()
	return homeOf(root, uid)
}

// frozen says whether there is no use in waiting for the process.
func (x *execution) frozen() (bool, error) {
	if x.options.IgnorePaused || x.cgroup == nil {
		return false, nil
	}
	return x.cgroup.Frozen()
}

// unprivileged says that control groups may be out of our reach.
func (x *execution) unprivileged() bool { return x.machine.UID != 0 || x.machine.InUserNamespace }

func (x *execution) warn(format string, args ...any) {
	if x.options.Warn != nil {
		x.options.Warn(fmt.Sprintf(format, args...))
	}
}

// ownGroup is our own version 2 control group, for messages.
func ownGroup() string {
	data, err := readBounded(unix.AT_FDCWD, "/proc/self/cgroup")
	_, group, ok := strings.Cut(string(data), "0::")
	if err != nil || !ok {
		return "which is not known"
	}
	return strings.TrimSpace(group)
}

// attached says that the user's systemd has to move the process: its control
// groups can be out of our own reach.
func (x *execution) attached() bool {
	return x.container.Unit != "" && len(x.options.Cgroups) == 0 && x.unprivileged()
}

// answer does what the process waits for.
func (x *execution) answer(question byte) error {
	if question != plan.SaysBegun {
		return x.classify()
	}
	m, err := x.container.cgroups()
	if err == nil {
		err = m.Add(x.scout)
	}
	if err == nil {
		err = x.release()
	}
	if err == nil && x.container.Resctrl == nil {
		err = x.release() // it may go on as soon as it is ready, too
	}
	return err
}

// chooseCgroup finds the control groups to run in, and refuses frozen ones.
func (x *execution) chooseCgroup() (err error) {
	paths := x.container.Cgroups
	if len(paths) == 0 {
		if len(x.options.Cgroups) > 0 {
			return errors.New("--cgroup: the container has no control group")
		}
		return nil
	}
	own, err := cgroup.Load(x.machine, paths, "")
	if err != nil {
		return err
	}
	frozen, err := own.Frozen()
	if err != nil {
		return err
	}
	if frozen && !x.options.IgnorePaused {
		return errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	x.cgroup, x.joinsItself = own, frozen && x.machine.CgroupMode == host.CgroupV2
	if len(x.options.Cgroups) > 0 {
		if paths, err = subCgroups(x.machine, paths, x.options.Cgroups); err != nil {
			return err
		}
		x.cgroup, err = cgroup.Load(x.machine, paths, "")
		return err
	}
	if x.machine.CgroupMode == host.CgroupV2 {
		if _, err := os.Lstat(paths[""]); errors.Is(err, fs.ErrNotExist) {
			x.cgroup, err = x.cgroupOfInit()
			return err
		}
	}
	return nil
}

// subCgroups are the directories of control groups below those at paths.
func subCgroups(machine host.Facts, paths, subs map[string]string) (map[string]string, error) {
	out := maps.Clone(paths)
	for controller, sub := range subs {
		keys := []string{controller}
		switch {
		case controller == "" && machine.CgroupMode != host.CgroupV2:
			keys = keys[:0]
			for key := range paths {
				keys = append(keys, key)
			}
		case paths[controller] == "":
			return nil, fmt.Errorf("--cgroup: the container has no control group of controller %q", controller)
		default:
			// Controllers of one hierarchy share their directory.
			if h := machine.Hierarchy(controller); h != nil {
				keys = h.Controllers
			}
		}
		for _, key := range keys {
			dir := path.Join(paths[key], sub)
			if dir != paths[key] && !strings.HasPrefix(dir, paths[key]+"/") {
				return nil, fmt.Errorf("--cgroup %q: bad sub cgroup path: it leads out of the container's control group", sub)
			}
			out[key] = dir
		}
	}
	return out, nil
}

// cgroupOfInit is the version 2 control group that the container's first
// process has moved to: into one below its own, which then takes no processes
// itself ("no internal processes", cgroup-v2.rst), or to any other.
func (x *execution) cgroupOfInit() (cgroup.Manager, error) {
	data, err := readBounded(unix.AT_FDCWD, "/proc/"+strconv.Itoa(x.container.PID)+"/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		where, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		u := x.machine.Unified
		where = strings.TrimPrefix(where, strings.TrimSuffix(u.MountRoot, "/"))
		return cgroup.Load(x.machine, map[string]string{"": path.Join(u.Mountpoint, where)}, "")
	}
	return nil, fmt.Errorf("/proc/%d/cgroup: no version 2 control group", x.container.PID)
}

// cgroupFiles opens what the process joins its control groups through: files to
// write to, and on version 2 the directory to be cloned into. A clone into a
// frozen group would freeze on its way, and us with it, as we wait for its
// execve; so there the process joins by itself, too, and we can be interrupted.
func (x *execution) cgroupFiles() (files []*os.File, dir *os.File, err error) {
	if x.joinsItself {
		file, err := openFile(x.cgroup.Paths()[""]+"/cgroup.procs", unix.O_WRONLY)
		return []*os.File{file}, nil, err
	}
	if files, err = x.cgroup.JoinFiles(); err == nil {
		dir, err = x.cgroup.Dir()
	}
	return files, dir, err
}

// startElsewhere starts the program where the container's own control group does
// not take it.
func (x *execution) startElsewhere(s program.Start, why error) (pid int, err error) {
	switch {
	case errors.Is(why, unix.EBUSY):
		return x.startBesideInit(s)
	case errors.Is(why, unix.EACCES) && x.unprivileged():
		x.warn("exec: the process stays out of the container's control group, and of its limits: we may not move a process there from ours (%s)", ownGroup())
		s.CgroupDir, x.cgroup = nil, nil
		return x.image.Start(s)
	}
	return 0, why
}

// startBesideInit starts the program in the first process's control group,
// where the container's own takes none.
func (x *execution) startBesideInit(s program.Start) (pid int, err error) {
	if len(x.options.Cgroups) > 0 || x.machine.CgroupMode != host.CgroupV2 {
		return 0, fmt.Errorf("join control group: %w", unix.EBUSY)
	}
	if x.cgroup, err = x.cgroupOfInit(); err != nil {
		return 0, err
	}
	if s.CgroupDir, err = x.cgroup.Dir(); err != nil {
		return 0, err
	}
	defer s.CgroupDir.Close()
	return x.image.Start(s)
}
