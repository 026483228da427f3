package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/safepath"
)

// A surveyor finds out what lies at the places that a configuration names. What
// it says of the root file system may have changed when the container is made:
// nothing that has to hold depends on it.
type surveyor struct {
	spec   *specs.Spec
	bundle string
	root   *safepath.Root
	facts  *plan.Facts
	// Of each mount: where it goes, clean and past links once mountpoints has
	// found them, and its options.
	places  []string
	options []linux.MountOptions
}

func newSurveyor(s *specs.Spec, bundle string, f *plan.Facts) *surveyor {
	v := &surveyor{spec: s, bundle: bundle, facts: f, places: destinations(s), options: make([]linux.MountOptions, len(s.Mounts))}
	for i, m := range s.Mounts {
		v.options[i] = linux.ParseMountOptions(m.Options)
	}
	return v
}

// destinations are those of all mounts, clean.
func destinations(s *specs.Spec) []string {
	all := make([]string, len(s.Mounts))
	for i, m := range s.Mounts {
		all[i] = cleanDestination(m)
	}
	return all
}

// sources looks at what is bound.
func (v *surveyor) sources() error {
	for i, m := range v.spec.Mounts {
		o := &v.options[i]
		if !o.Bind && m.Type != "bind" || o.Remount || m.Source == "" {
			continue
		}
		name := absolute(v.bundle, m.Source)
		var st unix.Stat_t
		switch err := unix.Stat(name, &st); {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			v.facts.Sources[name] = plan.Source{Missing: true}
			continue
		case err != nil:
			return &plan.FieldError{Field: fmt.Sprintf("mounts[%d].source", i), Err: &os.PathError{Op: "stat", Path: name, Err: err}}
		}
		s := plan.Source{Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
		if v.places[i] == "/proc" {
			var fs unix.Statfs_t
			s.Proc = unix.Statfs(name, &fs) == nil && int64(fs.Type) == unix.PROC_SUPER_MAGIC
		}
		v.facts.Sources[name] = s
	}
	return nil
}

// mountpoints follows the symbolic links of the root file system that mounts
// lie behind.
func (v *surveyor) mountpoints() {
	clean := v.places
	v.places = slices.Clone(clean)
	for i, dest := range clean {
		if liesInAny(dest, clean[:i]) {
			continue // what the root file system has there will be out of sight
		}
		if dest == "/proc" || dest == "/sys" {
			continue // no link leads there
		}
		if to, ok := linkTarget(v.root, dest); ok {
			v.facts.Mountpoints[dest] = to
		}
	}
	// One link is the way of all mounts that go there.
	for i, dest := range clean {
		if to, ok := v.facts.Mountpoints[dest]; ok {
			v.places[i] = filepath.Clean("/" + to)
		}
	}
}

// tmpfs looks at the directories that file systems in memory will hide: their
// permissions are taken over, their content where tmpcopyup asks for it.
func (v *surveyor) tmpfs() error {
	for i, m := range v.spec.Mounts {
		o := &v.options[i]
		if m.Type != "tmpfs" || o.Remount || !o.CopyUp && hasMode(o.Data) {
			continue
		}
		at, ok, err := v.find(i, v.places[i])
		if err != nil {
			return &plan.FieldError{Field: fmt.Sprintf("mounts[%d].options", i), Err: err}
		}
		if !ok {
			continue
		}
		st, err := at.stat()
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // mounting it will tell
		}
		if v.facts.TmpfsModes == nil {
			v.facts.TmpfsModes, v.facts.CopySources = map[int]uint32{}, map[int]plan.CopySource{}
		}
		v.facts.TmpfsModes[i] = st.Mode & 0o7777
		if !o.CopyUp {
			continue
		}
		source := plan.CopySource{Root: at.root, Name: at.name}
		if !v.facts.Host.HasCap(linux.CAP_SYS_ADMIN) {
			if source.Files, err = filesToCopy(at, v.spec); err != nil {
				return &plan.FieldError{Field: fmt.Sprintf("mounts[%d].options", i), Err: fmt.Errorf("tmpcopyup: %w", err)}
			}
		}
		v.facts.CopySources[i] = source
	}
	return nil
}

func hasMode(data []string) bool {
	for _, d := range data {
		if strings.HasPrefix(d, "mode=") || strings.Contains(d, ",mode=") {
			return true
		}
	}
	return false
}

// devices looks at what is where linux.devices wants device nodes, and at the
// host's nodes where they have to stand in for new ones.
func (v *surveyor) devices() {
	f, l := v.facts, v.spec.Linux
	if !plan.OwnDev(v.spec.Mounts) {
		return
	}
	f.Kcore = unix.Access("/proc/kcore", unix.F_OK) == nil
	if l == nil || len(l.Devices) == 0 {
		return
	}
	f.Nodes, f.HostNodes = map[string]plan.Node{}, map[string]plan.Node{}
	for _, d := range l.Devices {
		name := path.Clean("/" + d.Path)
		if at, ok, err := v.find(len(v.spec.Mounts), name); err == nil && ok {
			if st, err := at.lstat(); err == nil {
				f.Nodes[name] = nodeOf(st)
			}
		}
		var st unix.Stat_t
		if !plan.MayMknod(v.spec, f.Host) && unix.Stat(name, &st) == nil {
			f.HostNodes[name] = nodeOf(&st)
		}
	}
}

func nodeOf(st *unix.Stat_t) plan.Node {
	kinds := map[uint32]byte{unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFSOCK: 's'}
	kind, ok := kinds[st.Mode&unix.S_IFMT]
	if !ok {
		kind = 'f'
	}
	return plan.Node{Type: kind, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))), //nolint:unconvert // 32 bits on some machines
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}
}

// checkNull makes sure that what will cover masked paths covers them: with any
// other file there, they would be as good as open (CVE-2025-31133).
func (v *surveyor) checkNull() error {
	if v.spec.Linux == nil || len(v.spec.Linux.MaskedPaths) == 0 {
		return nil
	}
	var st unix.Stat_t
	err := unix.Lstat(os.DevNull, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != unix.Mkdev(1, 3)) { //nolint:unconvert // 32 bits on some machines
		err = errors.New("it is not the null device")
	}
	if err != nil {
		return &plan.FieldError{Field: "linux.maskedPaths", Err: &os.PathError{Op: "check", Path: os.DevNull, Err: err}}
	}
	return nil
}

// A place is a name below a directory of the host's.
type place struct {
	root string
	name string
}

func (p place) open(flags int) (*os.File, error) {
	root, err := safepath.OpenRoot(p.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(p.name, flags, 0)
}

func (p place) stat() (*unix.Stat_t, error) { return p.fstat(0) }

func (p place) lstat() (*unix.Stat_t, error) { return p.fstat(unix.O_NOFOLLOW) }

func (p place) fstat(flags int) (*unix.Stat_t, error) {
	f, err := p.open(unix.O_PATH | flags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	return &st, unix.Fstat(int(f.Fd()), &st)
}

// find says where on the host a path of the container is, before the mount with
// that index is made: below the root, or below the source of the bind mount
// that covers it. In a file system that is new there is nothing to be found.
func (v *surveyor) find(before int, name string) (place, bool, error) {
	for i := before - 1; i >= 0; i-- {
		rest, below := within(name, v.places[i])
		if !below {
			continue
		}
		m, o := &v.spec.Mounts[i], &v.options[i]
		switch {
		case o.Remount:
		case o.Bind || m.Type == "bind":
			return place{absolute(v.bundle, m.Source), rest}, v.facts.Sources[absolute(v.bundle, m.Source)].Dir, nil
		case o.CopyUp:
			return place{}, false, fmt.Errorf("%q lies in mounts[%d], which is filled only later", name, i)
		default:
			return place{}, false, nil
		}
	}
	rest, _ := within(name, "/")
	return place{v.root.Name(), rest}, true, nil
}

// within cuts a directory off a clean path.
func within(name, dir string) (rest string, ok bool) {
	if name == dir || dir == "/" && name == "/" {
		return ".", true
	}
	if rest, ok = strings.CutPrefix(name, strings.TrimSuffix(dir, "/")); ok {
		return strings.CutPrefix(rest, "/")
	}
	return name, false
}

func cleanDestination(m specs.Mount) string { return filepath.Clean("/" + m.Destination) }

// mountPoint is the place of the mount that a directory lies in.
func mountPoint(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		var st unix.Statx_t
		if err = unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, 0, &st); err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			break
		}
	}
	return dir, err
}

// kernelMounts lists the host's whole mounts of proc and sysfs that lie outside
// of a directory, in the order in which they were made.
func kernelMounts(rootfs string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	const maxMountinfoBytes = 16 << 20 // some 100,000 mounts, the kernel's limit
	data, err := io.ReadAll(io.LimitReader(file, maxMountinfoBytes))
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(data)) {
		head, tail, ok := strings.Cut(line, " - ")
		fields := strings.Fields(head)
		fsType, _, _ := strings.Cut(tail, " ")
		if !ok || len(fields) < 5 || fields[3] != "/" || fsType != "proc" && fsType != "sysfs" {
			continue
		}
		at := unescape(fields[4])
		if _, inside := within(at, rootfs); !inside {
			mounts = append(mounts, at)
		}
	}
	return mounts, nil
}

// unescape puts back what mountinfo writes as backslash and octal number
// (fs/proc_namespace.c, mangle).
func unescape(s string) string {
	for _, e := range [][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\043`, "#"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}
