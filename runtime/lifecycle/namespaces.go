package lifecycle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// settle brings the started process to the one that becomes the container's: it
// moves it to control groups that it cannot join by itself, gives a new user
// namespace its maps, and learns the child that goes on.
func (m *making) settle(ctx context.Context) error {
	if err := m.moveToUnit(ctx); err != nil {
		return err
	}
	if m.plan.Maps != nil {
		if err := m.expect(ctx, plan.SaysMaps); err != nil {
			return err
		}
		// Its files in /proc are still our user's.
		if err := m.oomScore(); err != nil {
			return err
		}
		if err := writeMaps(ctx, m.pid, m.plan.Maps); err != nil {
			return err
		}
		if err := m.release(); err != nil {
			return err
		}
	}
	if !m.plan.Forks() {
		return nil
	}
	child, early, err := m.adopt(ctx)
	if child == 0 && err == nil {
		m.early = early
		return m.expect(ctx, 0) // what it says is why
	}
	if err != nil {
		return err
	}
	first := m.pid
	m.pid, m.early = child, early
	if _, err = wait4(first); err != nil {
		return err
	}
	return m.lastLimits(ctx)
}

// adopt waits for a started process to report the child that goes on in its
// place (plan.Plan.Forks), which is then ours to wait for. The child may be faster
// and say something first, which is returned as well. Without a child what was
// said is the started process's failure, or nothing where it has died.
func (m *making) adopt(ctx context.Context) (pid int, early []byte, err error) {
	for {
		said, err := receive(ctx, m.family.sync, m.cgroup.Frozen)
		switch {
		case err != nil || len(said) == 0:
			return 0, early, err
		case len(said) == plan.PIDSize:
			return int(binary.LittleEndian.Uint64(said)), early, nil
		default:
			early = said
		}
	}
}

// end ends the process, and its child where it has made one that nobody has
// heard of yet.
func (m *making) end() {
	if m.family == nil || m.family.sync == nil {
		return
	}
	defer func() {
		m.family.close()
		m.family = nil
	}()
	for pid := m.pid; pid > 0; pid = m.unheard() {
		// Our own child, not reaped: the id is still its.
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		_, _ = wait4(pid)                // as it is ours
	}
}

// unheard is the child that an ended process has told of, 0 where it has not.
func (m *making) unheard() (pid int) {
	buf := make([]byte, 64)
	for {
		n, _, err := unix.Recvfrom(int(m.family.sync.Fd()), buf, unix.MSG_DONTWAIT)
		if n == plan.PIDSize && err == nil {
			return int(binary.LittleEndian.Uint64(buf))
		}
		if (n <= 0 || err != nil) && !errors.Is(err, unix.ECONNRESET) {
			return 0
		}
	}
}

// writeMaps gives the new user namespace of a process its id maps.
func writeMaps(ctx context.Context, pid int, m *plan.UserMaps) error {
	dir := "/proc/" + strconv.Itoa(pid)
	if m.DenySetgroups {
		err := writeFile(unix.AT_FDCWD, dir+"/setgroups", []byte("deny"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &plan.FieldError{Field: "linux.gidMappings", Err: err}
		}
	}
	for _, x := range []struct {
		field, file, tool string
		maps              []specs.LinuxIDMapping
		byTool            bool
	}{
		{"linux.gidMappings", "gid_map", "newgidmap", m.GID, m.GIDTool},
		{"linux.uidMappings", "uid_map", "newuidmap", m.UID, m.UIDTool},
	} {
		var err error
		if x.byTool {
			err = runMapTool(ctx, x.tool, pid, x.maps)
		} else {
			err = writeMap(dir+"/"+x.file, x.maps)
		}
		if err != nil {
			return &plan.FieldError{Field: x.field, Err: err}
		}
	}
	return nil
}

// writeMap writes a map at once, as the kernel wants it.
func writeMap(path string, maps []specs.LinuxIDMapping) error {
	var text []byte
	for _, m := range maps {
		text = fmt.Appendf(text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	if len(text) >= unix.Getpagesize() {
		return fmt.Errorf("%d entries are too long for the kernel: %d bytes, more than a page", len(maps), len(text))
	}
	return writeFile(unix.AT_FDCWD, path, text, 0)
}

// runMapTool has newuidmap or newgidmap write a map. They are setuid-root, or
// have the capability for it, and map what the administrator has given the user.
func runMapTool(ctx context.Context, name string, pid int, maps []specs.LinuxIDMapping) error {
	path, err := lookTool(name)
	if err != nil {
		return err
	}
	args := []string{strconv.Itoa(pid)}
	for _, m := range maps {
		for _, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lookTool finds a program in $PATH, or, as engines call us without one, where
// systems have it.
func lookTool(name string) (string, error) {
	search := os.Getenv("PATH")
	if search == "" {
		search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		if filepath.IsAbs(dir) && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w in %s: install it (Debian: uidmap), or map only your own id", name, exec.ErrNotFound, search)
}
