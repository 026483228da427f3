package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup/internal/dbus"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/spec"
)

// systemd manages a cgroup that systemd makes for a scope unit, and knows about: it neither removes nor changes it behind our back. All that
// systemd cannot do, and what it did, we then write to the cgroup's files ourselves.
type systemd struct {
	Manager    // of the files
	machine    host.Facts
	slice      string
	unit       string
	user       bool // the user's own systemd
	properties []property
}

// newSystemd returns the manager for linux.cgroupsPath "slice:prefix:name".
func newSystemd(facts host.Facts, o Options) (Manager, error) {
	user := o.Optional
	if user && facts.CgroupMode != host.CgroupV2 {
		return nil, fmt.Errorf("cgroup: the user's systemd manages cgroup v2 only: %w", ErrUnsupported)
	}
	if st, err := os.Stat("/run/systemd/system"); err != nil || !st.IsDir() { // sd_booted(3)
		return nil, fmt.Errorf("cgroup: systemd does not run here: %w", ErrUnsupported)
	}
	m := &systemd{machine: facts, user: user}
	var err error
	if m.slice, m.unit, err = parseUnit(o.Path, o.ID, user); err != nil {
		return nil, &spec.FieldError{Field: "linux.cgroupsPath", Err: err}
	}
	if m.properties, err = annotated(o.Annotations); err != nil {
		return nil, err
	}
	dir, err := expandSlice(m.slice)
	if err != nil {
		return nil, &spec.FieldError{Field: "linux.cgroupsPath", Err: err}
	}
	root := "/"
	if user {
		if root, err = m.ownRoot(); err != nil {
			return nil, wrapped(err)
		}
	}
	m.Manager, err = newFiles(facts, path.Join(root, dir, m.unit), o, true)
	return m, err
}

// loadSystemd returns the manager for the unit that a container was created in.
func loadSystemd(facts host.Facts, files Manager, unit string) Manager {
	return &systemd{Manager: files, machine: facts, unit: unit, user: facts.UID != 0 || facts.InUserNamespace}
}

// parseUnit reads linux.cgroupsPath. The defaults are runc's, where tools look for them.
func parseUnit(cgroupsPath, id string, user bool) (slice, unit string, err error) {
	slice = "system.slice"
	if user {
		slice = "user.slice"
	}
	prefix, name := "runc", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return "", "", fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", cgroupsPath)
		}
		if parts[0] != "" {
			slice = parts[0]
		}
		prefix, name = parts[1], parts[2]
	}
	unit = prefix + "-" + name + ".scope"
	switch {
	case strings.HasSuffix(name, ".slice"):
		return "", "", fmt.Errorf("%q: a container's process cannot be in a slice itself", cgroupsPath)
	case name == "" || len(unit) > 255 || strings.ContainsAny(unit, "/\x00\n"):
		return "", "", fmt.Errorf("%q is no name of a unit", unit)
	}
	return slice, unit, nil
}

// expandSlice returns the path of a slice: a-b.slice is in a.slice.
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || len(name) > 240 || strings.ContainsAny(name, "/\x00\n") {
		return "", fmt.Errorf("invalid slice name: %q", slice)
	}
	if name == "-" {
		return "/", nil
	}
	dir, prefix := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("invalid slice name: %q", slice)
		}
		prefix += part
		dir += "/" + prefix + ".slice"
		prefix += "-"
	}
	return dir, nil
}

func (m *systemd) Unit() string { return m.unit }

// Create has systemd make a scope with the process in it, and then sets what is left in its files.
func (m *systemd) Create(ctx context.Context, r *specs.LinuxResources, pid int) (err error) {
	limits, err := m.limits(r, true)
	if err != nil {
		return err
	}
	bus, err := dialSystemd(m.user)
	if err != nil {
		return wrapped(err)
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	properties := []property{
		text("Description", "container "+strings.TrimSuffix(m.unit, ".scope")),
		text("Slice", m.slice),
		flag("Delegate", true),
		{"PIDs", dbus.Variant{Signature: "au", Value: []any{uint32(pid)}}},
		flag("MemoryAccounting", true), flag("CPUAccounting", true), flag("TasksAccounting", true), flag(m.ioAccounting(), true),
		flag("DefaultDependencies", false), // it is not to end early when the machine is shut down: its engine sees to that
	}
	properties = append(append(properties, limits...), m.properties...)
	if err := bus.start(m.unit, properties); err != nil {
		return wrapped(err)
	}
	if err = m.Manager.Create(ctx, r, pid); err == nil && m.machine.CgroupMode != host.CgroupV2 {
		err = m.Manager.Add(pid) // into what systemd does not know
	}
	if err != nil {
		err = errors.Join(err, bus.stop(m.unit))
	}
	return err
}

// Prepare has nothing to make: systemd makes a cgroup around a process.
func (m *systemd) Prepare(_ context.Context, r *specs.LinuxResources) (made bool, err error) {
	_, err = m.limits(r, true)
	return false, err
}

// ioAccounting is the name of a property that systemd renamed with version 2.
func (m *systemd) ioAccounting() string {
	if m.machine.CgroupMode == host.CgroupV2 {
		return "IOAccounting"
	}
	return "BlockIOAccounting"
}

// Add moves a process in. A user's own cgroups can be out of our reach, but not of systemd's.
func (m *systemd) Add(pid int) error {
	if !m.user {
		return m.Manager.Add(pid)
	}
	bus, err := dialSystemd(true)
	if err != nil {
		return wrapped(err)
	}
	_, err = bus.Call(managerMethod("AttachProcessesToUnit"), "ssau", m.unit, "/", []any{uint32(pid)})
	return wrapped(errors.Join(err, bus.Close()))
}

// Set tells systemd of new limits, which would else put back the old ones some day, and sets them.
func (m *systemd) Set(ctx context.Context, r *specs.LinuxResources) (err error) {
	if v2, ok := m.Manager.(*v2); ok {
		if err := checkBeforeUpdate(r, v2.dir+"/memory.current"); err != nil {
			return err
		}
		if r, err = v2.complete(r); err != nil {
			return err
		}
	}
	properties, err := m.limits(r, false)
	if err != nil {
		return err
	}
	// First as a trial, which leaves no limit changed that systemd would not know of; systemd may round what it sets.
	if err := m.Manager.Set(ctx, r); err != nil || len(properties) == 0 {
		return err
	}
	if err := m.setProperties(ctx, properties); err != nil {
		return wrapped(err)
	}
	return m.Manager.Set(ctx, r)
}

// setProperties changes the unit. On version 1 systemd takes all devices away for a moment, of which nobody sees anything while frozen.
func (m *systemd) setProperties(ctx context.Context, properties []property) (err error) {
	bus, err := dialSystemd(m.user)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	if _, ok := m.Manager.(*v1); ok {
		frozen, err := m.Frozen()
		if err != nil {
			return err
		}
		if !frozen {
			if err := m.Freeze(ctx, true); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.Freeze(ctx, false)) }()
		}
	}
	_, err = bus.Call(managerMethod("SetUnitProperties"), "sba(sv)", m.unit, true, encoded(properties))
	return err
}

// Destroy ends what is left and has systemd forget the unit; what systemd does not know of, we remove.
func (m *systemd) Destroy(ctx context.Context) error {
	errs := []error{m.Manager.Kill(ctx, unix.SIGKILL)}
	bus, err := dialSystemd(m.user)
	if err == nil {
		err = errors.Join(bus.stop(m.unit), bus.Close())
	}
	return errors.Join(append(errs, wrapped(err), m.Manager.Destroy(ctx))...)
}

// ownRoot is the cgroup of the user's systemd, below which its units are.
func (m *systemd) ownRoot() (string, error) {
	bus, err := dialSystemd(true)
	if err != nil {
		return "", err
	}
	root, err := bus.managerProperty("ControlGroup")
	if err = errors.Join(err, bus.Close()); err != nil {
		return "", err
	}
	if !path.IsAbs(root) || path.Clean(root) != root {
		return "", fmt.Errorf("systemd says its cgroup is %q", root)
	}
	return root, nil
}

// systemdTimeout bounds all talk with systemd in one operation.
const systemdTimeout = 30 * time.Second

// bus is a connection to systemd.
type bus struct {
	*dbus.Conn
	systemd string // its name on a shared bus, where anybody can send us a signal; "" where nobody else can, and systemd may call itself anything
}

// dialSystemd connects to systemd. Root's own socket needs no bus between, and is there where no bus runs.
func dialSystemd(user bool) (*bus, error) {
	private, shared := "", os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if shared == "" {
		shared = "unix:path=/run/dbus/system_bus_socket"
	}
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case user:
		if shared = os.Getenv("DBUS_SESSION_BUS_ADDRESS"); shared == "" {
			shared = "unix:path=" + dir + "/bus"
		}
		if dir != "" {
			private = "unix:path=" + dir + "/systemd/private"
		}
	case os.Geteuid() == 0:
		private = "unix:path=/run/systemd/private"
	}
	if private != "" {
		if c, err := dbus.Dial(private, systemdTimeout); err == nil {
			return &bus{c, ""}, nil
		}
	}
	c, err := dbus.Dial(shared, systemdTimeout)
	if err != nil {
		return nil, err
	}
	for _, call := range []struct {
		method dbus.Method
		sig    string
		args   []any
	}{
		{busMethod("Hello"), "", nil},
		{busMethod("AddMatch"), "s", []any{"type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"}},
		{managerMethod("Subscribe"), "", nil},
	} {
		if _, err := c.Call(call.method, call.sig, call.args...); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	owner, err := c.Call(busMethod("GetNameOwner"), "s", systemdName)
	if err != nil || len(owner) != 1 || !isText(owner[0]) {
		return nil, errors.Join(fmt.Errorf("who is %s: %v: %w", systemdName, owner, err), c.Close())
	}
	return &bus{c, owner[0].(string)}, nil
}

const systemdName = "org.freedesktop.systemd1"

func busMethod(member string) dbus.Method {
	return dbus.Method{Destination: "org.freedesktop.DBus", Path: "/org/freedesktop/DBus", Interface: "org.freedesktop.DBus", Member: member}
}

func managerMethod(member string) dbus.Method {
	return dbus.Method{Destination: systemdName, Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.systemd1.Manager", Member: member}
}

// managerProperty reads a property of systemd itself, which is a string.
func (b *bus) managerProperty(name string) (string, error) {
	method := managerMethod("Get")
	method.Interface = "org.freedesktop.DBus.Properties"
	got, err := b.Call(method, "ss", "org.freedesktop.systemd1.Manager", name)
	if err != nil {
		return "", err
	}
	if len(got) == 1 {
		if v, ok := got[0].(dbus.Variant); ok {
			if s, ok := v.Value.(string); ok {
				return s, nil
			}
		}
	}
	return "", fmt.Errorf("systemd: property %s: %v", name, got)
}

// start starts a transient unit. One of that name that failed some time ago makes place.
func (b *bus) start(unit string, properties []property) error {
	run := func() error {
		return b.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", encoded(properties), []any{})
	}
	err := run()
	if named(err, "org.freedesktop.systemd1.UnitExists") {
		if rerr := b.forget(unit); rerr != nil {
			return errors.Join(err, rerr)
		}
		err = run()
	}
	if err != nil {
		return fmt.Errorf("start unit %s: %w", unit, err)
	}
	return nil
}

// stop stops a unit, and forgets it if it has failed. It is no error that there is none.
func (b *bus) stop(unit string) error {
	err := b.job("StopUnit", "ss", unit, "replace")
	if named(err, noSuchUnit) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("stop unit %s: %w", unit, err)
	}
	return errors.Join(err, b.forget(unit))
}

const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// forget lets systemd remove a unit that has failed.
func (b *bus) forget(unit string) error {
	_, err := b.Call(managerMethod("ResetFailedUnit"), "s", unit)
	if named(err, noSuchUnit) {
		return nil
	}
	return err
}

// named reports whether systemd gave an error of that name.
func named(err error, name string) bool {
	var e *dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// job calls a method that begins a job, and waits until that is done.
func (b *bus) job(member, sig string, args ...any) error {
	got, err := b.Call(managerMethod(member), sig, args...)
	if err != nil {
		return err
	}
	if len(got) != 1 || !isText(got[0]) { // what is no text may not even be comparable
		return fmt.Errorf("systemd's answer to %s: %v", member, got)
	}
	for {
		s, err := b.Wait()
		if err != nil {
			return err
		}
		if b.systemd != "" && s.Sender != b.systemd || s.Member != "JobRemoved" || len(s.Args) != 4 || s.Args[1] != got[0] {
			continue
		}
		if s.Args[3] != "done" {
			return fmt.Errorf("systemd's job ended as %q", s.Args[3])
		}
		return nil
	}
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}
