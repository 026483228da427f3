package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/netdev"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/rdt"
)

// moveDevices moves linux.netDevices into the container's network namespace,
// while its process waits for them.
func (m *making) moveDevices(ctx context.Context) error {
	devices := m.spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	if err := m.expect(ctx, plan.SaysDevices); err != nil {
		return err
	}
	ns, err := openFile(fmt.Sprintf("/proc/%d/ns/net", m.pid), unix.O_RDONLY)
	if err != nil {
		return &plan.FieldError{Field: "linux.netDevices", Err: err}
	}
	defer ns.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		moved, err := netdev.Move(ns, name, devices[name].Name)
		if err != nil {
			return &plan.FieldError{Field: fmt.Sprintf("linux.netDevices[%q]", name), Err: err}
		}
		m.devices = append(m.devices, moved)
	}
	return m.release()
}

// settleDevices leaves the network devices to a container that has been made,
// or brings them back.
func (m *making) settleDevices(made bool) error {
	var errs []error
	for _, d := range slices.Backward(m.devices) {
		if made {
			d.Close()
		} else {
			errs = append(errs, d.Undo())
		}
	}
	m.devices = nil
	return errors.Join(errs...)
}

// findClass finds the container's place in resctrl, where it shall have one.
func (m *making) findClass(root string) (err error) {
	if c := m.spec.Linux.IntelRdt; c != nil {
		m.class, err = rdt.Find(root, m.options.ID, c)
	}
	return classError(err)
}

// makeClass makes what is missing of it.
func (m *making) makeClass() error {
	if m.class == nil {
		return nil
	}
	err := m.class.Create(m.spec.Linux.IntelRdt)
	m.classed = err == nil
	return classError(err)
}

// share changes the container's shares, where any are given.
func (c *Container) share(shares *specs.LinuxIntelRdt) error {
	switch {
	case shares.L3CacheSchema == "" && shares.MemBwSchema == "":
		return nil
	case c.Resctrl == nil:
		return errors.New("updating a non-existent Intel RDT configuration is not supported")
	}
	return c.Resctrl.Update(shares)
}

func classError(err error) error {
	var e *rdt.FieldError
	if errors.As(err, &e) {
		return &plan.FieldError{Field: "linux.intelRdt." + e.Field, Err: e.Err}
	}
	return err
}

// resctrl is where the resctrl file system is mounted, or nowhere.
func resctrl() (string, error) {
	root, err := rdt.Root()
	if errors.Is(err, rdt.ErrNotMounted) || errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return root, err
}
