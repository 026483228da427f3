package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/spec"
)

// Sentinels that errors of this package wrap.
var (
	// ErrNotEmpty: the cgroup has processes, and Create needs it empty; or Destroy could not end them.
	ErrNotEmpty = errors.New("cgroup has processes")
	// ErrNone: the container has no cgroup, and the operation needs one.
	ErrNone = errors.New("no cgroup")
	// ErrFrozen: Create found the cgroup frozen; a process in it would never run.
	ErrFrozen = errors.New("cgroup is frozen")
	// ErrUnsupported: this machine's cgroups have no such limit. It comes in a *spec.FieldError.
	ErrUnsupported = errors.New("not supported here")
)

// Manager is one container's cgroups. It is for one goroutine at a time.
type Manager interface {
	// Create makes the cgroups and sets the limits; r may be nil. Cgroups that exist are taken over if they are empty (ErrNotEmpty) and not frozen
	// (ErrFrozen). After an error nothing that Create made is left. What is wrong with a field of config.json is a *spec.FieldError.
	// pid is the container's process where there is a Unit, else 0.
	Create(ctx context.Context, r *specs.LinuxResources, pid int) error
	// Prepare may come before, where the process is to join cgroups that Create makes beside it. It makes the cgroup that the process is born
	// in, if there is one and it needs no other (Dir), and finds what is wrong with r. Destroy removes what Prepare made, also when Create
	// has failed.
	Prepare(ctx context.Context, r *specs.LinuxResources) (made bool, err error)
	// Unit is the systemd unit that goes with the cgroups, or "". systemd makes none without a process: the container's begins outside, and
	// waits for Create to move it, instead of joining through JoinFiles and Dir.
	Unit() string
	// JoinFiles opens, write-only and close-on-exec, the files through which the new process joins: it writes "0" to each. There are none on
	// v2. A thread that moves itself needs no global lock, one moved by its parent waits for an RCU grace period per hierarchy.
	JoinFiles() ([]*os.File, error)
	// Dir opens the directory for CLONE_INTO_CGROUP; nil on v1.
	Dir() (*os.File, error)
	// Add moves process pid in. JoinFiles and Dir are faster.
	Add(pid int) error
	// Paths are the cgroups' directories by controller: "memory", "name=systemd", and "" for the unified hierarchy, as in runc's state. There are
	// fewer where Options.Optional lets the container do without.
	Paths() map[string]string
	// Pids are the processes in the cgroups, nested ones included, without those that our pid namespace cannot see. None if
	// the cgroups are gone.
	Pids() ([]int, error)
	// Kill signals every process. After SIGKILL none survives, even if they fork or are frozen; they may still be exiting.
	Kill(ctx context.Context, sig unix.Signal) error
	// Freeze stops every process or lets it run again, and waits until it is so.
	Freeze(ctx context.Context, frozen bool) error
	// Frozen reports whether the cgroups are frozen.
	Frozen() (bool, error)
	// Set changes limits that r names. It leaves devices alone, as runc's update does, and after an error what it has changed is as it was.
	Set(ctx context.Context, r *specs.LinuxResources) error
	// Stats reads what the container uses.
	Stats() (*Stats, error)
	// OOMs calls f each time the kernel's OOM killer strikes, until the cgroups are removed, on version 2 until they are empty, or ctx ends.
	OOMs(ctx context.Context, f func()) error
	// OOMKilled reports whether the kernel's OOM killer has struck.
	OOMKilled() (bool, error)
	// Destroy ends what runs in the cgroups, if anything does, and removes them with all nested ones. It waits a bounded time for exiting
	// processes (ErrNotEmpty). It is no error that they are gone.
	Destroy(ctx context.Context) error
}

// A Driver is who makes cgroups.
type Driver string

// The drivers: we ourselves, systemd, or nobody.
const (
	Cgroupfs Driver = "cgroupfs" // the same as ""
	Systemd  Driver = "systemd"
	Disabled Driver = "disabled"
)

// Options say which cgroups a container gets.
type Options struct {
	// Path is linux.cgroupsPath. An absolute one starts at the hierarchies' mount points; a relative one at our own cgroup (v1), or beside it
	// (v2, where a cgroup that has processes cannot have limited children). That is runc's convention. "slice:prefix:name" is for
	// systemd, and else a relative path like any other.
	Path string
	// ID is the container's name, which an empty path stands for.
	ID string
	// Driver is who makes the cgroups.
	Driver Driver
	// Optional lets a container that names no path do without cgroups that we may not make, as long as it asks for no limit that would
	// need them; devices are then left to the kernel's rules for user namespaces. It has systemd be the user's.
	Optional bool
	// Annotations are the configuration's: org.systemd.property.NAME are for systemd.
	Annotations map[string]string
}

// Drivers lists the drivers that New knows, whatever this machine has.
func Drivers() []Driver { return []Driver{Cgroupfs, Systemd, Disabled} }

// PropertyPrefix begins the annotations that set properties of systemd's unit.
const PropertyPrefix = "org.systemd.property."

// New returns the manager for a container.
func New(facts host.Facts, o Options) (Manager, error) {
	cgroupsPath := o.Path
	if cgroupsPath == "" {
		cgroupsPath = o.ID
	}
	if err := checkPath(cgroupsPath); err != nil && o.Driver != Systemd {
		return nil, &spec.FieldError{Field: "linux.cgroupsPath", Err: fmt.Errorf("%q: %w", cgroupsPath, err)}
	}
	switch o.Driver {
	case Disabled:
		return &none{why: "the cgroup manager is disabled", anyDevice: true}, nil
	case Cgroupfs, "":
		return newFiles(facts, cgroupsPath, o, false)
	case Systemd:
		return newSystemd(facts, o)
	}
	return nil, fmt.Errorf("cgroup: manager %q: %w", o.Driver, ErrUnsupported)
}

// newFiles returns the manager of cgroups by their files; theirs says that systemd makes them.
func newFiles(facts host.Facts, cgroupsPath string, o Options, theirs bool) (Manager, error) {
	optional, unprivileged := o.Optional && o.Path == "" && !theirs, o.Optional || facts.InUserNamespace
	denied := &none{why: "no permission to make a cgroup", anyDevice: true}
	switch facts.CgroupMode {
	case host.CgroupV2:
		u := facts.Unified
		m := &v2{root: u.Mountpoint, dir: resolve(u, path.Dir(u.OwnPath), cgroupsPath), unprivileged: unprivileged, theirs: theirs}
		if optional && !mayMake(m.root, m.dir) {
			return denied, nil
		}
		return m, nil
	case host.CgroupV1, host.CgroupHybrid:
		m := &v1{unprivileged: unprivileged, theirs: theirs}
		for i := range facts.Hierarchies {
			h := &facts.Hierarchies[i]
			dir := resolve(h, h.OwnPath, cgroupsPath)
			if !optional || mayMake(h.Mountpoint, dir) {
				m.groups = append(m.groups, group{controllers: h.Controllers, name: h.Name, root: h.Mountpoint, dir: dir})
			}
		}
		if u := facts.Unified; u != nil {
			dir := resolve(u, u.OwnPath, cgroupsPath)
			if !optional || mayMake(u.Mountpoint, dir) {
				m.unified = &v2{root: u.Mountpoint, dir: dir, theirs: theirs}
			}
		}
		if len(m.groups) == 0 && m.unified == nil {
			return denied, nil
		}
		return m, nil
	}
	return &none{why: "no cgroup hierarchy is mounted", anyDevice: facts.InUserNamespace}, nil
}

// mayMake reports whether we may make the cgroup dir and move processes there, as far as permissions tell.
func mayMake(root, dir string) bool {
	for len(dir) > len(root) {
		dir = path.Dir(dir)
		err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if err == nil {
			err = unix.Faccessat(unix.AT_FDCWD, dir+"/cgroup.procs", unix.W_OK, unix.AT_EACCESS)
		}
		if err != unix.ENOENT {
			return err == nil
		}
	}
	return false
}

// checkPath refuses what would leave the hierarchy, mean all of it, or be no path at all.
func checkPath(p string) error {
	switch {
	case len(p) > unix.PathMax/2:
		return errors.New("too long")
	case strings.ContainsAny(p, "\x00\n"):
		return errors.New("has a NUL or newline")
	}
	named := false
	for elem := range strings.SplitSeq(p, "/") {
		if elem == ".." {
			return errors.New(`has ".."`)
		}
		named = named || elem != "" && elem != "."
	}
	if !named {
		return errors.New("names no cgroup")
	}
	return nil
}

// resolve returns the directory for cgroupsPath; a relative one is below parent, a path as /proc/self/cgroup has it. Where only a
// subtree is mounted, parent is shown below that subtree's root.
func resolve(h *host.Hierarchy, parent, cgroupsPath string) string {
	if path.IsAbs(cgroupsPath) {
		return path.Join(h.Mountpoint, cgroupsPath)
	}
	if root := h.MountRoot; root != "/" {
		if rest, ok := strings.CutPrefix(parent+"/", root+"/"); ok {
			parent = rest
		} else {
			parent = "/"
		}
	}
	return path.Join(h.Mountpoint, path.Join("/", parent), cgroupsPath)
}

// Own returns the directories of our own cgroups, as Paths has them.
func Own(facts host.Facts) map[string]string {
	own := map[string]string{}
	for i := range facts.Hierarchies {
		h := &facts.Hierarchies[i]
		g := group{controllers: h.Controllers, name: h.Name}
		for _, key := range g.keys() {
			own[key] = resolve(h, h.OwnPath, "")
		}
	}
	if u := facts.Unified; u != nil {
		own[""] = resolve(u, u.OwnPath, "")
	}
	return own
}

// Load returns the manager for the cgroups that Paths, and Unit, named when the container was created.
func Load(facts host.Facts, paths map[string]string, unit string) (Manager, error) {
	files, err := loadFiles(facts, paths)
	if unit == "" || err != nil {
		return files, err
	}
	return loadSystemd(facts, files, unit), nil
}

func loadFiles(facts host.Facts, paths map[string]string) (Manager, error) {
	for controller, dir := range paths {
		if !path.IsAbs(dir) || path.Clean(dir) != dir {
			return nil, fmt.Errorf("cgroup: state: path of %q: %q is not a clean absolute path", controller, dir)
		}
	}
	if len(paths) == 0 {
		return &none{why: "the container was made without cgroups"}, nil
	}
	unified, hasUnified := paths[""]
	switch facts.CgroupMode {
	case host.CgroupV2:
		if !hasUnified || !below(unified, facts.Unified.Mountpoint) {
			return nil, fmt.Errorf("cgroup: state: no path below %s", facts.Unified.Mountpoint)
		}
		return &v2{root: facts.Unified.Mountpoint, dir: unified, unprivileged: facts.InUserNamespace}, nil
	case host.CgroupV1, host.CgroupHybrid:
		m := &v1{unprivileged: facts.InUserNamespace}
		for i := range facts.Hierarchies {
			g := group{controllers: facts.Hierarchies[i].Controllers, name: facts.Hierarchies[i].Name, root: facts.Hierarchies[i].Mountpoint}
			if g.dir = paths[g.keys()[0]]; g.dir == "" {
				continue // mounted since, or not ours to make
			}
			if !below(g.dir, g.root) {
				return nil, fmt.Errorf("cgroup: state: %s is not below %s", g.dir, g.root)
			}
			m.groups = append(m.groups, g)
		}
		if u := facts.Unified; u != nil && hasUnified && below(unified, u.Mountpoint) {
			m.unified = &v2{root: u.Mountpoint, dir: unified}
		}
		return m, nil
	}
	return nil, fmt.Errorf("cgroup: no hierarchy is mounted: %w", ErrUnsupported)
}

// below reports whether dir is a proper descendant of root.
func below(dir, root string) bool {
	return len(dir) > len(root)+1 && strings.HasPrefix(dir, root) && dir[len(root)] == '/'
}
