package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/quickjson"
	"github.com/tare-oci/tare/runtime/plan"
)

const (
	recordVersion = 1
	recordName    = "state.json"
	gateName      = "start.sock"
	configName    = "config.json"
	maxRecord     = 1 << 20 // bytes of a state.json
)

// A Record is what is kept of a container on disk.
type Record struct {
	// Version is that of the record's format.
	Version     int               `json:"version"`
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid,omitempty"`
	StartTime   uint64            `json:"startTime,omitempty"` // of PID, clock ticks since boot (proc(5))
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	UID         int               `json:"uid"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Cgroups are the directories of the control group, by controller.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	// NoNewKeyring: the container has its creator's session keyring.
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
	// Listener is where the listener of the container's filter goes at start.
	Listener *plan.Listener `json:"seccompListener,omitempty"`
	// Tail words what fails once start has been called.
	Tail plan.Tail `json:"tail,omitempty"`
	// Poststart and Poststop are the hooks that run when the process that has
	// read the configuration is gone, and maybe the bundle as well.
	Poststart []specs.Hook `json:"poststart,omitempty"`
	Poststop  []specs.Hook `json:"poststop,omitempty"`
}

// A Container is a container on disk.
type Container struct {
	Record
	dir string
}

// A Store is the directory that containers' state is kept in.
type Store struct{ Root string }

// checkID holds names to what is safe as a file name. It is runc's rule.
func checkID(id string) error {
	valid := id != "" && id != "." && id != ".." && len(id) <= 255
	for _, r := range id {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}
	if !valid {
		return fmt.Errorf("container %q: invalid container ID: letters, digits and _+-. only", id)
	}
	return nil
}

// Load reads a container's record.
func (s Store) Load(id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Root, id)
	data, err := readBounded(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %q: %w", id, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	record, err := quickjson.Decode(filepath.Join(dir, recordName), data, decodeRecord)
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	c := &Container{Record: *record, dir: dir}
	if c.Version != recordVersion || c.ID != id {
		return nil, fmt.Errorf("container %q: %s: version %d of container %q, want version %d of this one",
			id, filepath.Join(dir, recordName), c.Version, c.ID, recordVersion)
	}
	return c, nil
}

func readBounded(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var data []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		if data = append(data, buf[:n]...); len(data) > maxRecord {
			return nil, fmt.Errorf("%s: larger than %d bytes", path, maxRecord)
		}
	}
}

// List returns all containers, those whose record cannot be read as errors.
func (s Store) List() ([]*Container, error) {
	entries, err := os.ReadDir(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []*Container
	var errs []error
	for _, e := range entries {
		if checkID(e.Name()) != nil || !e.IsDir() {
			continue
		}
		switch c, err := s.Load(e.Name()); {
		case err == nil:
			all = append(all, c)
		case !errors.Is(err, ErrNotExist):
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

const newRecordName = recordName + ".new"

// save writes the record under a temporary name and renames it, so that a
// reader sees the old one or the new one.
func (c *Container) save() error {
	data := c.appendJSON(nil)
	if len(data) > maxRecord {
		return fmt.Errorf("container %q: state of %d bytes, more than %d: too many annotations?", c.ID, len(data), maxRecord)
	}
	if err := writeFile(filepath.Join(c.dir, newRecordName), data, 0o600); err != nil {
		return fmt.Errorf("container %q: write state: %w", c.ID, err)
	}
	// os.Rename would look first whether a directory is in the way.
	if err := unix.Rename(filepath.Join(c.dir, newRecordName), filepath.Join(c.dir, recordName)); err != nil {
		return fmt.Errorf("container %q: write state: %w", c.ID, err)
	}
	return nil
}

// forget removes the container's directory. It holds only files of known
// names, which takes fewer calls than to read it.
func (c *Container) forget() error {
	for _, name := range []string{gateName, configName, newRecordName, recordName} {
		// What can't be removed shows in the removal of the directory.
		_ = unix.Unlink(filepath.Join(c.dir, name))
	}
	if err := unix.Rmdir(c.dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return os.RemoveAll(c.dir)
	}
	return nil
}

// writeFile makes or truncates a file and writes it whole.
func writeFile(path string, data []byte, perm uint32) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, perm)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	for len(data) > 0 && err == nil {
		var n int
		n, err = unix.Write(fd, data)
		data = data[max(n, 0):]
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// Status is the container's state now, one of runtime.md's or StatePaused.
func (c *Container) Status() specs.ContainerState {
	phase := c.phase()
	if (phase == specs.StateCreated || phase == specs.StateRunning) && c.paused() {
		return StatePaused
	}
	return phase
}

// phase is the state for who need not know whether the container is paused.
func (c *Container) phase() specs.ContainerState {
	if c.PID == 0 {
		return specs.StateCreating
	}
	if !c.alive() {
		return specs.StateStopped
	}
	if _, err := os.Lstat(filepath.Join(c.dir, gateName)); err == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// alive says whether the container's process is still that process and has not
// ended; a process that ended and was not reaped has.
func (c *Container) alive() bool {
	start, ended, err := processStart(c.PID)
	return err == nil && start == c.StartTime && !ended
}

// processStart reads when a process began, in clock ticks since boot, and
// whether it has ended: proc_pid_stat(5), fields 22 and 3.
func processStart(pid int) (ticks uint64, ended bool, err error) {
	data, err := readBounded("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The name in field 2 is in parentheses and may contain anything.
	_, rest, ok := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat: %q", pid, data)
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0] == "Z" || fields[0] == "X", err
}

// State is what the state operation prints.
func (c *Container) State() specs.State {
	s := specs.State{Version: c.OCIVersion, ID: c.ID, Status: c.Status(), Bundle: c.Bundle, Annotations: c.Annotations}
	if s.Status != specs.StateStopped {
		s.Pid = c.PID
	}
	return s
}
