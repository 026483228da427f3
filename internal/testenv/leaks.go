package testenv

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leakGrace is how long things may take to go away by themselves after a test:
// the kernel removes a dead process's cgroup and mounts a little later.
const leakGrace = 8 * time.Second

var names atomic.Int64

// Name returns a new container name. Leaks finds cgroups and mounts by it.
func Name(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("%s%d", namePrefix(), names.Add(1))
}

// namePrefix is this process's own, as other packages' tests run beside it.
func namePrefix() string { return fmt.Sprintf("tare-test-%d-", os.Getpid()) }

// Leaks fails the test, when it ends, if something it made is still there: a
// process, a mount, a cgroup, a temporary file, or an open file descriptor of
// one. What it finds it removes, so that later tests, and the removal of the
// test's directories, which would follow a bind mount, meet a clean machine.
//
// Call it first, also before t.TempDir. It cannot be used in parallel tests.
// As other tests run on the same machine at the same time, it has to tell
// whose a thing is:
//
//   - processes: all descendants of this one. Orphans come to it as well.
//   - temporary files: TMPDIR is a directory of the test's own.
//   - mounts: all in a private mount namespace (see PrivateMounts); else those
//     below the test's directories, and elsewhere those with "tare" or one of
//     the tags in their path.
//   - cgroups: those with "tare", or one of the tags, in their path and no
//     living process that is not this test's.
//
// What Name named in another process is never this test's.
//
// An orphan that has ended stays defunct until the test binary ends: to ask
// whether a process lives, read /proc/PID/stat, as kill(pid, 0) is fooled.
func Leaks(t testing.TB, tags ...string) {
	t.Helper()
	// t.TempDir's cleanup must come after ours, and its directory must not be
	// in the TMPDIR that we want to find empty.
	base := filepath.Dir(t.TempDir())
	tmp, err := os.MkdirTemp("", "tare-leaks-")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	// Orphans are given to the nearest subreaper, else to PID 1, where nobody
	// would find them.
	if !privateProcesses() { // there PID 1 waits for orphans, and all are ours
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			t.Fatalf("prctl PR_SET_CHILD_SUBREAPER: %v", err)
		}
	}
	scope := leakScope{dirs: []string{base, tmp}, tags: append(tags, "tare"), private: os.Getenv(privateVar) != ""}
	before := scope.look(t)
	t.Cleanup(func() {
		scope.check(t, before)
		if err := os.RemoveAll(tmp); err != nil {
			t.Error(err)
		}
	})
}

// leakScope says which things belong to the test.
type leakScope struct {
	dirs    []string // the test's own
	tags    []string
	private bool // all mounts of this mount namespace are the test's
}

// leakable is a set of things that can stay behind, each as it is told.
type leakable struct {
	processes map[string]int    // to its pid
	mounts    map[string]string // to its mount point
	cgroups   map[string]string // to its directory
	files     map[string]string // to its path
	open      map[string]int    // to its descriptor
}

func (s leakScope) look(t testing.TB) leakable {
	t.Helper()
	living, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	mounts, cgroupRoots, err := s.mounts()
	if err != nil {
		t.Fatal(err)
	}
	ours := descendants(living)
	return leakable{
		processes: describe(living, ours),
		mounts:    mounts,
		cgroups:   s.cgroups(cgroupRoots, ours),
		files:     s.files(),
		open:      s.open(),
	}
}

// check compares now with before, until nothing is left or the time is over.
func (s leakScope) check(t testing.TB, before leakable) {
	t.Helper()
	var left leakable
	for end := time.Now().Add(leakGrace); ; time.Sleep(50 * time.Millisecond) {
		runtime.GC() // runs the finalizers of files nobody can close any more
		left = s.look(t)
		left.subtract(before)
		if left.empty() || time.Now().After(end) {
			break
		}
	}
	for _, what := range left.list() {
		t.Errorf("left behind: %s", what)
	}
	left.remove(t)
}

func (l leakable) subtract(before leakable) {
	subtract(l.processes, before.processes)
	subtract(l.mounts, before.mounts)
	subtract(l.cgroups, before.cgroups)
	subtract(l.files, before.files)
	subtract(l.open, before.open)
}

func subtract[V any](from, what map[string]V) {
	maps.DeleteFunc(from, func(k string, _ V) bool { _, known := what[k]; return known })
}

func (l leakable) list() []string {
	return slices.Concat(
		slices.Sorted(maps.Keys(l.processes)), slices.Sorted(maps.Keys(l.mounts)),
		slices.Sorted(maps.Keys(l.cgroups)), slices.Sorted(maps.Keys(l.files)), slices.Sorted(maps.Keys(l.open)))
}

func (l leakable) empty() bool { return len(l.list()) == 0 }

// remove takes everything away, in the order in which things depend on others.
func (l leakable) remove(t testing.TB) {
	for _, pid := range l.processes {
		unix.Kill(pid, unix.SIGKILL)
	}
	// The inner before the outer; detached, as something may still use them.
	for _, point := range slices.Backward(slices.Sorted(maps.Values(l.mounts))) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
	}
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(l.cgroups))) {
		for range 20 { // until the killed are gone
			if err := unix.Rmdir(l.cgroups[k]); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// process is one line of the process table.
type process struct {
	pid, parent int
	zombie      bool
	started     string // in clock ticks since boot: tells apart two that had the same pid
	name        string
}

func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(pid, string(stat)); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// parseStat reads a line of /proc/PID/stat: pid (name) state ppid ... where the
// name may hold spaces and parentheses, and the 22nd field is the start time.
func parseStat(pid int, stat string) (process, bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := strings.Fields(stat[end+1:]) // from the third field on
	if len(fields) < 20 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return process{pid: pid, parent: parent, zombie: fields[0] == "Z" || fields[0] == "X", started: fields[19], name: stat[open+1 : end]}, err == nil
}

// descendants returns the pids of all that come from this process.
func descendants(all []process) map[int]bool {
	ours := map[int]bool{os.Getpid(): true}
	if privateProcesses() {
		ours[1] = true
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !ours[p.pid] && ours[p.parent] {
				ours[p.pid], grown = true, true
			}
		}
	}
	return ours
}

// describe tells of each living descendant. The dead are no leak: an orphan
// that came to us stays defunct, since to wait for it here could take the exit
// status from somebody who waits for a child of his own.
func describe(all []process, ours map[int]bool) map[string]int {
	told := map[string]int{}
	for _, p := range all {
		if !ours[p.pid] || p.zombie || p.pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		told[fmt.Sprintf("process %d (%s, started %s): %q", p.pid, p.name, p.started,
			strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " "))] = p.pid
	}
	return told
}

// mounts returns those of the test, and where the cgroup hierarchies are mounted.
func (s leakScope) mounts() (ours map[string]string, cgroupRoots []string, err error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	ours = map[string]string{}
	// proc_pid_mountinfo(5): id parent major:minor root mountpoint options
	// [optional...] - fstype source superoptions
	for line := range strings.Lines(string(info)) {
		head, tail, ok := strings.Cut(line, " - ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 6 {
			return nil, nil, fmt.Errorf("mountinfo: cannot read %q", line)
		}
		point := unescapeMount(fields[4])
		if kind := strings.Fields(tail)[0]; strings.HasPrefix(kind, "cgroup") {
			cgroupRoots = append(cgroupRoots, point)
		}
		if s.private || s.owns(point) {
			ours[fmt.Sprintf("mount %s on %s: %s", fields[0], point, strings.TrimSpace(tail))] = point
		}
	}
	return ours, cgroupRoots, nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// owns reports whether a path is the test's. In the directory where all tests
// have theirs, only its own counts, as others' are called after tare as well.
func (s leakScope) owns(path string) bool {
	for _, dir := range s.dirs {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return !strings.HasPrefix(path, filepath.Dir(s.dirs[0])+"/") && s.tagged(path)
}

// namedElsewhere matches what Name names, with the process that named it.
var namedElsewhere = regexp.MustCompile(`tare-test-(\d+)-`)

func (s leakScope) tagged(path string) bool {
	if m := namedElsewhere.FindStringSubmatch(path); m != nil && m[1] != strconv.Itoa(os.Getpid()) {
		return false
	}
	return slices.ContainsFunc(s.tags, func(tag string) bool { return strings.Contains(path, tag) })
}

// sharedCgroup is the parent that all containers of a user have in common: it
// stays.
const sharedCgroup = "tare"

func (s leakScope) cgroups(roots []string, ours map[int]bool) map[string]string {
	found, busy := map[string]string{}, []string{}
	for _, root := range roots {
		// Errors are left aside: cgroups of others come and go meanwhile.
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || !d.IsDir() || !s.tagged(strings.TrimPrefix(path, root)):
			case hasOthers(path, ours):
				busy = append(busy, path)
			case d.Name() != sharedCgroup:
				found["cgroup "+path] = path
			}
			return nil
		})
	}
	maps.DeleteFunc(found, func(_, path string) bool { // others' parents are others'
		return slices.ContainsFunc(busy, func(b string) bool { return strings.HasPrefix(b, path+"/") })
	})
	return found
}

// hasOthers reports whether a process that is not ours lives in the cgroup.
func hasOthers(cgroup string, ours map[int]bool) bool {
	procs, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) // gone meanwhile
	}
	return slices.ContainsFunc(strings.Fields(string(procs)), func(field string) bool {
		pid, _ := strconv.Atoi(field)
		return !ours[pid]
	})
}

// files lists what is in the test's own TMPDIR.
func (s leakScope) files() map[string]string {
	found := map[string]string{}
	tmp := s.dirs[len(s.dirs)-1]
	entries, _ := os.ReadDir(tmp)
	for _, e := range entries {
		path := filepath.Join(tmp, e.Name())
		found["temporary file "+path] = path
	}
	return found
}

// open lists this process's descriptors of the test's files and of memfds.
func (s leakScope) open() map[string]int {
	found := map[string]int{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(target, "/memfd:") && !s.owns(target) {
			continue
		}
		fd, _ := strconv.Atoi(e.Name())
		found["open file "+e.Name()+": "+target] = fd
	}
	return found
}
