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

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/rdt"
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
	Version    int       `json:"version"`
	OCIVersion string    `json:"ociVersion"`
	ID         string    `json:"id"`
	PID        int       `json:"pid,omitempty"`
	StartTime  uint64    `json:"startTime,omitempty"` // of PID, clock ticks since boot (proc(5))
	Bundle     string    `json:"bundle"`
	Rootfs     string    `json:"rootfs"`
	Created    time.Time `json:"created"`
	UID        int       `json:"uid"`
	// Creating: hooks of create have not all run.
	Creating bool `json:"creating,omitempty"`
	// SharedPID: the container has no pid namespace of its own, so its processes
	// do not end with the first one.
	SharedPID   bool              `json:"sharedPid,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Cgroups are the directories of the control group, by controller.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	// HostRoot, in the host's mount namespace, is the id of the mount that the
	// root file system's own mount lies over.
	HostRoot uint64 `json:"hostRoot,omitempty"`
	// Unit is the systemd unit that goes with it.
	Unit string `json:"unit,omitempty"`
	// NoNewKeyring: the container has its creator's session keyring.
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
	// Resctrl is the container's class of service, and what measures it.
	Resctrl *rdt.Group `json:"resctrl,omitempty"`
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
type Store struct {
	Root string
	// Warn, where not nil, is called with what went wrong and stopped nothing.
	Warn func(message string)
}

func (s Store) warn(format string, args ...any) {
	if s.Warn != nil {
		s.Warn(fmt.Sprintf(format, args...))
	}
}

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
	return load(unix.AT_FDCWD, filepath.Join(dir, recordName), dir, id)
}

// readBounded reads a file that is not larger than a record may be. Its name is
// relative to an open directory.
func readBounded(dir int, path string) ([]byte, error) {
	fd, err := openQuietly(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readOpen(fd, path)
}

// openQuietly opens a file to be read, through no link, and waits for nobody to
// open the other end of what is a pipe.
func openQuietly(dir int, path string) (int, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func readOpen(fd int, path string) ([]byte, error) {
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

// readRecord reads a record that nobody but us or root can have written: it
// names hooks that we run, and what we end and remove.
func readRecord(dir int, path string) ([]byte, error) {
	fd, err := openQuietly(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s: not a regular file", path)
	case st.Nlink > 1:
		return nil, fmt.Errorf("%s: the file has other names", path)
	case st.Uid != 0 && int(st.Uid) != unix.Geteuid():
		return nil, fmt.Errorf("%s: the file belongs to user %d", path, st.Uid)
	}
	return readOpen(fd, path)
}

// List returns all containers, and warns of those whose record cannot be read.
func (s Store) List() ([]*Container, error) {
	entries, err := os.ReadDir(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []*Container
	for _, e := range entries {
		if checkID(e.Name()) != nil || !e.IsDir() {
			continue
		}
		switch c, err := s.Load(e.Name()); {
		case err == nil:
			all = append(all, c)
		case !errors.Is(err, ErrNotExist):
			s.warn("%v", err)
		}
	}
	return all, nil
}

const newRecordName = recordName + ".new"

// save writes the record under a temporary name and renames it, so that a
// reader sees the old one or the new one. The first one replaces none: after a
// deletion between the making of the directory and its locking, it may be another's.
func (c *Container) save(l *lock, first bool) error {
	data := c.appendJSON(nil)
	if len(data) > maxRecord {
		return fmt.Errorf("container %q: state of %d bytes, more than %d: too many annotations?", c.ID, len(data), maxRecord)
	}
	if err := writeFile(l.dir, newRecordName, data, 0o600); err != nil {
		return fmt.Errorf("container %q: write state: %w", c.ID, err)
	}
	flags := uint(0)
	if first {
		flags = unix.RENAME_NOREPLACE
	}
	err := unix.Renameat2(l.dir, newRecordName, l.dir, recordName, flags)
	if first && errors.Is(err, unix.EINVAL) { // not on every file system
		err = unix.Renameat2(l.dir, newRecordName, l.dir, recordName, 0)
	}
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("container %q: %w", c.ID, ErrExist)
	}
	if err != nil {
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

// writeFile makes or truncates a file, whose name is relative to an open
// directory, and writes it whole.
func writeFile(dir int, path string, data []byte, perm uint32) error {
	fd, err := unix.Openat(dir, path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, perm)
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
	switch {
	case c.Creating:
		return specs.StateCreating
	case c.waiting():
		return specs.StateCreated
	}
	return specs.StateRunning
}

// waiting says whether the container's process waits for start.
func (c *Container) waiting() bool {
	_, err := os.Lstat(filepath.Join(c.dir, gateName))
	return err == nil
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
	data, err := readBounded(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/stat")
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
