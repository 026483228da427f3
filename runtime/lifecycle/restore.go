package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/safepath"
)

// Restore brings back a container that Checkpoint saved: it makes what Create
// makes, and CRIU the processes and namespaces. The caller must Wait for the
// process and Close it.
func (s Store) Restore(ctx context.Context, o CreateOptions, from CheckpointOptions) (_ *Process, err error) {
	m := &making{options: o}
	if err := checkID(o.ID); err != nil {
		return nil, err
	}
	// Where nothing was saved, the directory would be made now.
	if _, err := os.Stat(from.Images); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	if err := m.compile(false); err != nil { // for what is wrong with the configuration
		return nil, err
	}
	if m.plan.OnHost || m.spec.Process == nil {
		return nil, errors.New("a container without a process or a mount namespace cannot be restored")
	}
	if o.Begin != nil {
		o.Begin()
	}
	if err := m.reserve(s.Root, false); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		if m.pid > 0 {
			_ = unix.Kill(m.pid, unix.SIGKILL) // our own child, which may have ended
			_, _ = wait4(m.pid)
		}
		err = m.undo(err)
	}()
	if err := m.makeCgroups(ctx); err != nil {
		return nil, err
	}
	if err := m.makeClass(); err != nil {
		return nil, err
	}
	if err := m.restore(ctx, &from); err != nil {
		return nil, err
	}
	if o.PIDFile != "" {
		if err := writePIDFile(o.PIDFile, m.pid); err != nil {
			return nil, err
		}
		m.told = true
	}
	lock := m.lock
	m.lock = nil
	p := &Process{PID: m.pid, container: m.container, cgroup: m.cgroup, lock: lock, warn: m.options.warn}
	return p, lock.unlock()
}

func (m *making) restore(ctx context.Context, from *CheckpointOptions) error {
	rootfs, err := filepath.EvalSymlinks(m.container.Rootfs)
	if err != nil {
		return err
	}
	if err := m.mountpoints(rootfs); err != nil {
		return err
	}
	err = inPrivateMounts(rootfs, func() error {
		if m.spec.Process.NoNewPrivileges {
			// CRIU before 3.18 neither saves nor restores it, but its processes inherit it.
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return &plan.FieldError{Field: "process.noNewPrivileges", Err: err}
			}
		}
		// CRIU mounts things in its directories, so they have to be of these mounts.
		if err := from.open(); err != nil {
			return err
		}
		defer from.close()
		return m.callCRIU(ctx, from, rootfs)
	})
	if err != nil {
		return err
	}
	return m.keep()
}

func (m *making) callCRIU(ctx context.Context, from *CheckpointOptions, rootfs string) error {
	saved, err := readCheckpoint(int(from.CRIU.Images.Fd()))
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", from.CRIU.Images.Name(), err)
	}
	from.common(m.spec.Annotations)
	x := &from.CRIU
	x.Log, x.Root, x.RestoreSibling, x.EvasiveDevices = "restore.log", rootfs, true, true
	if err := m.sources(x, saved.External); err != nil {
		return err
	}
	call := criu.Call{Operation: criu.Restore, Stdio: m.options.Stdio, Notice: func(n criu.Notice) error { return m.notice(ctx, n) }}
	defer func() {
		for _, f := range call.Extra {
			f.Close()
		}
	}()
	if call.Extra, err = joinNamespaces(x, m.spec.Linux.Namespaces); err != nil {
		return err
	}
	for i, o := range saved.Stdio {
		switch {
		case o.Key == "":
			continue
		case o.Null:
			null, err := openFile("/dev/null", unix.O_RDWR)
			if err != nil {
				return err
			}
			i = criu.FirstExtra + len(call.Extra)
			call.Extra = append(call.Extra, null)
		}
		x.Inherit = append(x.Inherit, criu.Inherited{Key: o.Key, FD: i})
	}
	call.Options = *x
	call.Started = func(pid int) (err error) {
		// What CRIU makes is where CRIU is.
		if err = m.cgroup.Add(pid); err == nil {
			call.Options.CgroupRoots, err = cgroupRoots(pid)
		}
		return err
	}
	pid, err := call.Do(ctx)
	if m.pid == 0 { // a CRIU that gives no notices
		m.pid = pid
	}
	return err
}

// keep records the restored process.
func (m *making) keep() (err error) {
	c := m.container
	c.PID, c.Created, c.Creating, c.Listener = m.pid, time.Now().UTC(), false, nil
	if c.StartTime, _, err = processStart(m.pid); err != nil {
		return err
	}
	if m.class != nil {
		if err := m.class.Add(m.pid); err != nil {
			return err
		}
	}
	if err := writeFile(m.lock.dir, configName, m.config, 0o600); err != nil {
		return fmt.Errorf("container %q: keep config.json: %w", c.ID, err)
	}
	return c.save(m.lock, false)
}

// notice does what CRIU leaves to us.
func (m *making) notice(ctx context.Context, n criu.Notice) error {
	debugger(m.options.Debug).printf("criu: %s %d", n.Script, n.PID)
	switch n.Script {
	case "setup-namespaces":
		h := m.spec.Hooks
		if h == nil {
			return nil
		}
		m.hooked = true
		s := m.container.State()
		s.Status, s.Pid = specs.StateCreating, n.PID
		state, err := appendState(nil, &s), make(chan error)
		go func() { // in another thread, which has the host's mounts
			//nolint:staticcheck // Prestart is deprecated, not gone
			first := runHooks(ctx, "prestart", h.Prestart, state)
			if first == nil {
				first = runHooks(ctx, "createRuntime", h.CreateRuntime, state)
			}
			err <- first
		}()
		return <-err
	case "post-restore":
		m.pid = n.PID
	case "orphan-pts-master":
		if n.File == nil {
			return errors.New("no terminal")
		}
		console, err := m.console()
		if err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		if m.options.ConsoleSocket != "" {
			defer console.Close()
		}
		return unix.Sendmsg(int(console.Fd()), []byte("/dev/ptmx"), unix.UnixRights(int(n.File.Fd())), nil, 0)
	}
	return nil
}

// sources says where on this machine the mounts are that were not the
// container's own.
func (m *making) sources(x *criu.Options, mounts []string) error {
	namespace := false
	for _, ns := range m.spec.Linux.Namespaces {
		namespace = namespace || ns.Type == specs.CgroupNamespace
	}
	for _, at := range mounts {
		source := hostSource(m.spec, at)
		if c := mountAt(m.spec, at); source == "" && c != nil && strings.HasPrefix(c.Type, "cgroup") {
			source = cgroupSource(m.facts, m.cgroup.Paths(), namespace, at)
		}
		if source == "" {
			return fmt.Errorf("the checkpoint has something mounted at %s, which config.json does not name", at)
		}
		x.External = append(x.External, "mnt["+at+"]:"+absolute(m.options.Bundle, source))
	}
	return nil
}

// joinNamespaces has the processes restored in namespaces that are there:
// CRIU gets their files.
func joinNamespaces(x *criu.Options, namespaces []specs.LinuxNamespace) (files []*os.File, err error) {
	for _, ns := range namespaces {
		if ns.Path == "" {
			continue
		}
		if key := namespaceKey(ns.Type); key != "" {
			f, err := openNamespace(ns.Path)
			if err != nil {
				return files, err
			}
			x.Inherit = append(x.Inherit, criu.Inherited{Key: key, FD: criu.FirstExtra + len(files)})
			files = append(files, f)
			continue
		}
		kinds := map[specs.LinuxNamespaceType]string{specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
			specs.UserNamespace: "user", specs.MountNamespace: "mnt"}
		kind, ok := kinds[ns.Type]
		if !ok {
			return files, fmt.Errorf("CRIU cannot join a %s namespace", ns.Type)
		}
		x.Join = append(x.Join, criu.Pair{Key: kind, Value: ns.Path})
	}
	return files, nil
}

// mountpoints makes what mounts need in the root file system and is not there,
// as in one that an engine has made anew.
func (m *making) mountpoints(rootfs string) error {
	root, err := safepath.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	places := destinations(m.spec)
	for i := range m.spec.Mounts {
		mount := &m.spec.Mounts[i]
		name := strings.TrimPrefix(places[i], "/")
		if name == "" || liesInAny(places[i], places[:i]) {
			continue // its place comes with the mount that it lies in
		}
		var st unix.Stat_t
		if isBind(mount) && unix.Stat(absolute(m.options.Bundle, mount.Source), &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := makeFile(root, name); err != nil {
				return err
			}
			continue
		}
		dir, err := root.MkdirAll(name, 0o755)
		if err != nil {
			return err
		}
		dir.Close()
	}
	return nil
}

func makeFile(root *safepath.Root, name string) error {
	if f, err := root.Open(name, unix.O_PATH, 0); err == nil {
		return f.Close()
	}
	dir, base := safepath.SplitBase(name)
	parent, err := root.MkdirAll(dir, 0o755)
	if err != nil {
		return err
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	return unix.Close(fd)
}

// inPrivateMounts calls f in a thread whose mount namespace is its own, and in
// which the root file system is a mount, as CRIU wants it. The host never sees
// that mount, and nobody has to remove it.
func inPrivateMounts(rootfs string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		result <- privateMounts(rootfs, f)
	}()
	return <-result
}

func privateMounts(rootfs string, f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("new mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(rootfs, rootfs, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind", Path: rootfs, Err: err}
	}
	return f()
}
