package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// CheckpointOptions are what Checkpoint and Restore do with CRIU.
type CheckpointOptions struct {
	// Images is the directory of the checkpoint, Work that of CRIU's log; empty is the same.
	Images, Work string
	// PreDump saves the memory only, and lets the container go on.
	PreDump bool
	// CRIU has the options that are CRIU's own business.
	CRIU criu.Options
}

// open opens the directories.
func (o *CheckpointOptions) open() (err error) {
	for _, d := range []struct {
		path string
		file **os.File
	}{{o.Images, &o.CRIU.Images}, {o.Work, &o.CRIU.Work}} {
		if d.path == "" {
			continue
		}
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			return err
		}
		path, err := filepath.Abs(d.path)
		if err != nil {
			return err
		}
		if *d.file, err = openFile(path, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
	}
	if parent := o.CRIU.Parent; parent != "" {
		if filepath.IsAbs(parent) {
			return errors.New("--parent-path must be relative")
		}
		if info, err := os.Stat(filepath.Join(o.Images, parent)); err != nil {
			return fmt.Errorf("invalid --parent-path: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("invalid --parent-path: %s: %w", parent, unix.ENOTDIR)
		}
		o.CRIU.TrackMem = true
	}
	return nil
}

func (o *CheckpointOptions) close() {
	for _, f := range []*os.File{o.CRIU.Images, o.CRIU.Work} {
		if f != nil {
			f.Close()
		}
	}
}

// common sets what a dump and a restore have in common: network interfaces are
// whoever made them's, and a terminal comes back as a new one.
func (o *CheckpointOptions) common(annotations map[string]string) {
	o.CRIU.EmptyNS, o.CRIU.OrphanPTSMaster = unix.CLONE_NEWNET, true
	config, ok := annotations[CRIUConfig]
	if !ok {
		config = "/etc/criu/runc.conf"
	}
	o.CRIU.ConfigFile = config
}

// CRIUConfig is the annotation that names CRIU's configuration file.
const CRIUConfig = "org.criu.config"

// checkpointName is the file beside CRIU's in which we keep what restore has to know.
const checkpointName = "tare-checkpoint.json"

// A checkpoint is what CRIU does not know of a container.
type checkpoint struct {
	Version int `json:"version"`
	// External are the mount points, in the container, of what is not the container's own.
	External []string `json:"external,omitempty"`
	// Stdio are the first descriptors where those are not the container's own.
	Stdio [3]outer `json:"stdio"`
}

// An outer is a descriptor that the container got from its creator.
type outer struct {
	Key string `json:"key,omitempty"` // CRIU's name
	// Null: it is the null device, which a restore opens itself. All else the
	// caller of restore has to bring, and of the same kind.
	Null bool `json:"null,omitempty"`
}

// Checkpoint saves a running container, and ends and deletes it unless it is
// to go on.
func (s Store) Checkpoint(ctx context.Context, id string, o CheckpointOptions) (err error) {
	c, l, err := s.hold(id, true)
	defer func() { l.release() }()
	if err != nil {
		return err
	}
	if status := c.phase(); status != specs.StateRunning {
		return fmt.Errorf("Container cannot be checkpointed in %s state", status) //nolint:staticcheck // runc's words
	}
	if err := o.open(); err != nil {
		return err
	}
	defer o.close()
	if err := c.dump(ctx, &o); err != nil {
		return fmt.Errorf("container %q: %w", id, err)
	}
	if o.PreDump || o.CRIU.LeaveRunning {
		return nil
	}
	if err := s.end(ctx, c, l); err != nil {
		s.warn("container %q: delete: %v", id, err) // as runc: it is saved, that counts
	}
	return nil
}

func (c *Container) dump(ctx context.Context, o *CheckpointOptions) error {
	config, err := spec.Load(filepath.Join(c.dir, configName))
	if err != nil {
		return err
	}
	if config.Linux == nil {
		config.Linux = &specs.Linux{}
	}
	table, err := mountTable(c.PID)
	if err != nil {
		return err
	}
	o.common(c.Annotations)
	op, x := criu.Dump, &o.CRIU
	x.Log, x.PID, x.Root = "dump.log", c.PID, c.Rootfs
	x.FreezeCgroup = freezer(c.Cgroups)
	if err := externalNamespaces(x, config.Linux.Namespaces); err != nil {
		return err
	}
	if o.PreDump {
		op, x.TrackMem = criu.PreDump, true
	} else {
		saved := checkpoint{Version: 1, External: externalMounts(config, table)}
		for _, at := range saved.External {
			x.External = append(x.External, "mnt["+at+"]:"+at)
		}
		if saved.Stdio, err = outerStdio(c.PID, table); err != nil {
			return err
		}
		for _, o := range saved.Stdio {
			if strings.HasPrefix(o.Key, "file[") {
				x.External = append(x.External, o.Key)
			}
		}
		if err := saved.write(int(x.Images.Fd())); err != nil {
			return err
		}
	}
	_, err = (&criu.Call{Operation: op, Options: *x}).Do(ctx)
	return err
}

func (k *checkpoint) write(dir int) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return writeFile(dir, checkpointName, data, 0o600)
}

func readCheckpoint(dir int) (k checkpoint, err error) {
	data, err := readBounded(dir, checkpointName)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(data, &k); err != nil {
		return k, fmt.Errorf("%s: %w", checkpointName, err)
	}
	if k.Version != 1 {
		return k, fmt.Errorf("%s: version %d, want 1", checkpointName, k.Version)
	}
	return k, nil
}

// freezer is the control group that stops the container's processes.
func freezer(paths map[string]string) string {
	if dir := paths["freezer"]; dir != "" {
		return dir
	}
	return paths[""]
}

// namespaceKey is CRIU's name of a namespace that is not the container's own.
func namespaceKey(t specs.LinuxNamespaceType) string {
	return map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "extRootNetNS", specs.PIDNamespace: "extRootPidNS"}[t]
}

// externalNamespaces leaves out of a dump the namespaces that the container has joined.
func externalNamespaces(x *criu.Options, namespaces []specs.LinuxNamespace) error {
	for _, ns := range namespaces {
		key := namespaceKey(ns.Type)
		if key == "" || ns.Path == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(ns.Path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: ns.Path, Err: err}
		}
		kind := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.PIDNamespace: "pid"}[ns.Type]
		x.External = append(x.External, fmt.Sprintf("%s[%d]:%s", kind, st.Ino, key))
	}
	return nil
}

// A mountEntry is a line of mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id     int
	root   string // what of the file system is mounted
	at     string // in the container
	fsType string
}

func mountTable(pid int) ([]mountEntry, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, err
	}
	var table []mountEntry
	for line := range strings.Lines(string(data)) {
		head, tail, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if len(fields) < 5 || len(rest) < 1 {
			return nil, fmt.Errorf("mountinfo: %q", line)
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %q: %w", line, err)
		}
		table = append(table, mountEntry{id, unescape(fields[3]), unescape(fields[4]), rest[0]})
	}
	return table, nil
}

// externalMounts lists the mounts that come from the host: bound directories
// and files with all that is mounted in them, devices, masks and control
// groups. CRIU makes all others anew.
func externalMounts(config *specs.Spec, table []mountEntry) (paths []string) {
	for _, m := range table {
		if m.at == "/" || m.root == "/" && masks(config, m.at) {
			continue // the root has an option of its own, and a masked directory is an empty file system
		}
		if m.fsType == "cgroup" || m.fsType == "cgroup2" || hostSource(config, m.at) != "" {
			paths = append(paths, m.at)
		}
	}
	return paths
}

// mountAt is the mount of the configuration that a place in the container
// belongs to: the last one over it is what is seen.
func mountAt(config *specs.Spec, at string) *specs.Mount {
	for i := len(config.Mounts) - 1; i >= 0; i-- {
		dest := cleanDestination(config.Mounts[i])
		if at == dest || strings.HasPrefix(at, strings.TrimSuffix(dest, "/")+"/") {
			return &config.Mounts[i]
		}
	}
	return nil
}

// hostSource is the host's path of what the configuration puts at a place in
// the container, empty where that is not the host's or is a control group.
func hostSource(config *specs.Spec, at string) string {
	if masks(config, at) {
		return "/dev/null"
	}
	if m := mountAt(config, at); m != nil && isBind(m) {
		return filepath.Join(m.Source, at[len(cleanDestination(*m)):])
	}
	for _, d := range config.Linux.Devices {
		if filepath.Clean(d.Path) == at {
			return at
		}
	}
	if strings.HasPrefix(at, "/dev/") && isDefaultDevice(at) {
		return at
	}
	return ""
}

func masks(config *specs.Spec, at string) bool {
	for _, masked := range config.Linux.MaskedPaths {
		if filepath.Clean(masked) == at {
			return true
		}
	}
	return false
}

func isDefaultDevice(path string) bool {
	switch path {
	case "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty":
		return true
	}
	return false
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

// cgroupSource is the host's directory of a control group that the container sees.
func cgroupSource(f host.Facts, paths map[string]string, namespace bool, at string) string {
	if f.CgroupMode == host.CgroupV2 {
		if !namespace && f.Unified != nil {
			return f.Unified.Mountpoint
		}
		return paths[""]
	}
	facts := plan.Facts{Host: f}
	CgroupFacts(&facts, paths)
	for _, d := range facts.Cgroups {
		if d.Name == filepath.Base(at) {
			return d.Path
		}
	}
	return ""
}

// outerStdio names the first descriptors of a process as CRIU does where they
// come from outside: pipes, and files on mounts that the container does not have.
func outerStdio(pid int, table []mountEntry) (stdio [3]outer, err error) {
	for i := range stdio {
		fd := fmt.Sprintf("/proc/%d/fd/%d", pid, i)
		name, err := os.Readlink(fd)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed
		}
		if err != nil {
			return stdio, err
		}
		if strings.HasPrefix(name, "pipe:") {
			stdio[i].Key = name
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(fd, &st); err != nil {
			return stdio, &os.PathError{Op: "stat", Path: fd, Err: err}
		}
		mount, err := mountOf(pid, i)
		if err != nil {
			return stdio, err
		}
		kind := st.Mode & unix.S_IFMT
		if (kind == unix.S_IFREG || kind == unix.S_IFCHR) && !hasMount(table, mount) {
			stdio[i] = outer{fmt.Sprintf("file[%x:%x]", mount, st.Ino), kind == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)}
		}
	}
	return stdio, nil
}

func hasMount(table []mountEntry, id int) bool {
	for _, m := range table {
		if m.id == id {
			return true
		}
	}
	return false
}

// mountOf is the mount that a descriptor of a process was opened on.
func mountOf(pid, fd int) (int, error) {
	path := fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, fmt.Errorf("%s: no mnt_id", path)
}

// cgroupRoots tells CRIU where in each hierarchy the restored processes belong.
func cgroupRoots(pid int) ([]criu.Pair, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	var roots []criu.Pair
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			return nil, fmt.Errorf("/proc/%d/cgroup: %q", pid, line)
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			roots = append(roots, criu.Pair{Key: controller, Value: parts[2]})
		}
	}
	return roots, nil
}
