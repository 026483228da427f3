package runtimecli_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/spec"
)

// ordinary is the id of a user and of a group that nobody has.
const ordinary = 54321

// A user calls tare-runtime without privileges, for a bundle that is his.
type user struct {
	*bundle
	runtime string
	env     []string
	attr    *syscall.SysProcAttr
}

// newUser makes a bundle of an ordinary user: what "spec --rootless" prints.
func newUser(t testing.TB, script string) *user {
	t.Helper()
	b := newBundle(t, script)
	b.Spec = rootlessSpec(script)
	u := &user{bundle: b, runtime: filepath.Join(b.dir, "ours"), env: []string{"XDG_RUNTIME_DIR=" + filepath.Join(b.dir, "run")}}
	u.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	// The user must get through to his files and to the program.
	for dir := b.dir; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&fs.ModeSticky != 0 || dir == "/" {
			break // where all users are
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(testenv.Command(t, "tare-runtime"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(u.runtime, data, 0o755); err != nil {
		t.Fatal(err)
	}
	u.owns(ordinary)
	t.Cleanup(func() {
		if t.Failed() { // else the test has done it, or fails now
			_, _ = u.try("delete", "--force", "ID")
		}
	})
	return u
}

func rootlessSpec(script string) *specs.Spec {
	s := spec.Example(true)
	s.Process.Terminal, s.Root.Readonly = false, false
	s.Process.Env, s.Process.Args = []string{"PATH=/bin"}, []string{"sh", "-c", script}
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: ordinary, Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: ordinary, Size: 1}}
	return s
}

// owns gives all files of the bundle to a user.
func (u *user) owns(uid int) {
	u.t.Helper()
	testenv.Run(u.t, "chown", "-R", fmt.Sprintf("%d:%[1]d", uid), u.dir)
}

// try runs tare-runtime as the user and returns what it wrote.
func (u *user) try(args ...string) (string, error) {
	u.t.Helper()
	if err := writeConfig(u.dir, u.Spec); err != nil {
		u.t.Fatal(err)
	}
	for i, arg := range args {
		if arg == "ID" {
			args[i] = u.id
		}
	}
	out, err := os.CreateTemp(u.dir, "output")
	if err != nil {
		u.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(u.runtime, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = u.dir, u.env, u.attr, out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		u.t.Fatal(rerr)
	}
	return strings.TrimRight(string(text), "\n"), err
}

// do is try for what must not fail.
func (u *user) do(args ...string) string {
	u.t.Helper()
	out, err := u.try(args...)
	if err != nil {
		u.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

const whoami = `id -u; id -g; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; cat /proc/self/setgroups; echo >/dev/null && stat -c %F /dev/zero`

// An ordinary user runs containers with his own id as root's, through all of
// their life, as runc does.
func TestOrdinaryUser(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	u := newUser(t, whoami)
	want := lines("0", "0", fmt.Sprintf(" 0 %d 1", ordinary), fmt.Sprintf(" 0 %d 1", ordinary), "deny", "character special file")
	if got := u.do("run", "ID"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if _, err := exec.LookPath("runc"); err == nil {
		u.runtime = testenv.Tool(t, "runc")
		if got := u.do("run", "ID"); got != want {
			t.Errorf("runc prints\n%s\nwant\n%s", got, want)
		}
		u.runtime = filepath.Join(u.dir, "ours")
	}
	u.Process.Args = []string{"sh", "-c", "sleep 1001 & exec sleep 1000"}
	u.do("create", "ID")
	if got := u.do("list", "-q"); got != u.id {
		t.Errorf("list prints %q", got)
	}
	if got := u.do("ps", "--format", "json", "ID"); !strings.HasPrefix(got, "[") || strings.Contains(got, ",") {
		t.Errorf("ps of a created container printed %s, want one process", got)
	}
	u.do("start", "ID")
	ps := ""
	for deadline := time.Now().Add(10 * time.Second); strings.Count(ps, ",") != 1; time.Sleep(10 * time.Millisecond) {
		if ps = u.do("ps", "--format", "json", "ID"); time.Now().After(deadline) {
			t.Fatalf("ps printed %s, want two processes", ps)
		}
	}
	if got := u.do("exec", "ID", "sh", "-c", whoami); got != want {
		t.Errorf("exec printed\n%s\nwant\n%s", got, want)
	}
	u.do("kill", "ID", "KILL")
	u.do("delete", "--force", "ID")
}

// What an ordinary user cannot have is an error that names the field.
func TestOrdinaryUserErrors(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	u := newUser(t, "true")
	lowest, pids := -1000, int64(10)
	for want, change := range map[string]func(*specs.Spec){
		"config.json: linux.namespaces: an unprivileged user needs a user namespace": func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = spec.Example(false).Linux.Namespaces, nil, nil
		},
		"config.json: process.user.additionalGids: an unprivileged user cannot set them": func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{0} },
		"linux.resources.pids":                func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}} },
		"config.json: linux.uidMappings: ":    func(s *specs.Spec) { s.Linux.UIDMappings[0].Size = 2 },
		"config.json: linux.gidMappings: ":    func(s *specs.Spec) { s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 1, Size: 1}} },
		"config.json: process.oomScoreAdj: ":  func(s *specs.Spec) { s.Process.OOMScoreAdj = &lowest },
		"invalid argument (process.user)":     func(s *specs.Spec) { s.Process.User.UID = 1 },
		"operation not permitted (mounts[0])": func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
	} {
		u.Spec = rootlessSpec("true")
		change(u.Spec)
		if out, err := u.try("run", "ID"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %s\nwant %s", err, out, want)
		}
	}
}

// For an ordinary user the container's own program fills a tmpfs that begins
// with what it hides.
func TestOrdinaryUserCopyUp(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	u := newUser(t, "cd /opt; for f in $(find . | sort); do stat -c '%n %F %a %u:%g' $f; done; cat a/f; wc -c <a/b/large; readlink a/l; echo more >>a/f; touch new")
	large := strings.Repeat("0123456789abcdef", 1<<16)
	opt := filepath.Join(u.dir, "rootfs/opt")
	for _, err := range []error{os.MkdirAll(filepath.Join(opt, "a/b"), 0o755),
		os.WriteFile(filepath.Join(opt, "a/f"), []byte("text\n"), 0o600), os.WriteFile(filepath.Join(opt, "a/b/empty"), nil, 0o600),
		os.WriteFile(filepath.Join(opt, "a/b/large"), []byte(large), 0o600), os.Symlink("/etc/passwd", filepath.Join(opt, "a/l")),
		unix.Mkfifo(filepath.Join(opt, "p"), 0o640), os.Chmod(opt, 0o751)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sock, err := net.Listen("unix", filepath.Join(opt, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	u.owns(ordinary)
	for name, mode := range map[string]fs.FileMode{"a/f": fs.ModeSetuid | 0o755, "a/b/empty": 0, "a/b": 0o555, "a": fs.ModeSetgid | 0o775} {
		if err := os.Chmod(filepath.Join(opt, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	u.Mounts = append(u.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/opt", Options: []string{"tmpcopyup", "nosuid", "size=2m"}})
	want := lines(". directory 751 0:0", "./a directory 2775 0:0", "./a/b directory 555 0:0", "./a/b/empty regular empty file 0 0:0",
		"./a/b/large regular file 600 0:0", "./a/f regular file 4755 0:0", "./a/l symbolic link 777 0:0", "./p fifo 640 0:0",
		"text", strconv.Itoa(len(large)), "/etc/passwd")
	if got := u.do("run", "ID"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if got, err := os.ReadFile(filepath.Join(opt, "a/f")); err != nil || string(got) != "text\n" {
		t.Errorf("after a change of the copy the file has %q, %v", got, err)
	}

	u.Mounts[len(u.Mounts)-1].Options[2] = "size=512k" // where a part has room
	for _, c := range []struct {
		want   string
		change func() error
	}{
		{"copy 6 files from <target /opt>: sendfile: no space left on device (mounts[7].options)", func() error { return os.Remove(filepath.Join(opt, "a/f")) }}, // which may come last
		{"config.json: mounts[7].options: tmpcopyup: copy p: its user 7 is not mapped in the container's user namespace", func() error { return os.Lchown(filepath.Join(opt, "p"), 7, ordinary) }},
		{"more than 4096 files", func() error {
			many := testenv.MemoryDir(t) // making files is slow elsewhere
			u.Mounts = append(u.Mounts[:len(u.Mounts)-1], specs.Mount{Type: "bind", Source: many, Destination: "/many", Options: []string{"bind"}},
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/many", Options: []string{"tmpcopyup"}})
			for i := range 4097 {
				name := filepath.Join(many, strconv.Itoa(i))
				if err := errors.Join(unix.Mknod(name, unix.S_IFREG, 0), os.Chown(name, ordinary, ordinary)); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if out, err := u.try("run", "ID"); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %s\nwant %s", err, out, c.want)
		}
	}
}

// Larger maps are written by newuidmap and newgidmap, as far as /etc/subuid and
// /etc/subgid let the user have ids.
func TestSubordinateIDs(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Tool(t, "newuidmap")
	for name, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("tare:x:%d:%[1]d::/:/bin/sh\n", ordinary),
		"/etc/subuid": "tare:200000:1000\n",
		"/etc/subgid": "tare:300000:1000\n",
	} {
		replaced := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(replaced, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(replaced, name, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	u := newUser(t, "id -G; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; cat /proc/self/setgroups")
	maps := func(first, size uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{HostID: ordinary, Size: 1}, {ContainerID: 1, HostID: first, Size: size}}
	}
	u.Linux.UIDMappings, u.Linux.GIDMappings = maps(200000, 1000), maps(300000, 1000)
	u.Process.User.UID, u.Process.User.AdditionalGids = 5, []uint32{7}
	own := fmt.Sprintf(" 0 %d 1", ordinary)
	want := lines("0 7", own, " 1 200000 1000", own, " 1 300000 1000", "allow")
	if got := u.do("run", "ID"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	u.env = append(u.env, "PATH=/nowhere")
	if out, err := u.try("run", "ID"); err == nil || !strings.Contains(out, "config.json: linux.gidMappings: newgidmap: executable file not found in $PATH in /nowhere") {
		t.Errorf("without newgidmap: %v, %s", err, out)
	}
	u.env = u.env[:1]
	u.Linux.UIDMappings = maps(200000, 1001)
	if out, err := u.try("run", "ID"); err == nil || !strings.Contains(out, "config.json: linux.uidMappings: ") || !strings.Contains(out, "not allowed") {
		t.Errorf("more than /etc/subuid has: %v, %s", err, out)
	}
}

// Root of a user namespace, as which rootless Podman calls us, finds its state
// by $XDG_RUNTIME_DIR and needs no other user namespace.
func TestRootOfUserNamespace(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	u := newUser(t, "id -u; tr -s ' ' </proc/self/uid_map")
	u.owns(100000)
	maps := []syscall.SysProcIDMap{{HostID: 100000, Size: 1000}}
	u.attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: maps, GidMappings: maps,
		Credential: &syscall.Credential{NoSetGroups: true}}
	u.Linux.UIDMappings, u.Linux.GIDMappings = nil, nil
	u.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
		{Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace}}
	if got, want := u.do("run", "--keep", "ID"), lines("0", " 0 100000 1000"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "run/tare-runtime", u.id, "state.json")); err != nil {
		t.Error(err)
	}
	u.do("delete", "ID")

	// A user namespace of its own within that.
	u.Linux.Namespaces = append(u.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	u.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 10}, {ContainerID: 10, HostID: 500, Size: 100}}
	u.Linux.GIDMappings = u.Linux.UIDMappings
	if got, want := u.do("run", "ID"), lines("0", " 0 0 10", " 10 500 100"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// Without $XDG_RUNTIME_DIR state lies where all users may write, in a directory
// that is the user's alone.
func TestStateDirectory(t *testing.T) {
	testenv.Root(t)
	u := newUser(t, "true")
	tmp := t.TempDir()
	if err := os.Chmod(tmp, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	u.env = []string{"TMPDIR=" + tmp}
	dir := filepath.Join(tmp, fmt.Sprintf("tare-runtime-%d", ordinary))
	u.do("list")
	info, err := os.Stat(dir)
	if err != nil || info.Mode() != fs.ModeDir|0o700 || info.Sys().(*syscall.Stat_t).Uid != ordinary {
		t.Fatalf("%v, %v", info, err)
	}
	for name, spoil := range map[string]func() error{
		"others may look": func() error { return os.Chmod(dir, 0o755) },
		"another's":       func() error { return os.Chown(dir, ordinary+1, 0) },
		"a link": func() error {
			other := filepath.Join(tmp, "other")
			return firstError(os.Rename(dir, other), os.Chmod(other, 0o700), os.Chown(other, ordinary, 0), os.Symlink(other, dir))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if out, err := u.try("list"); err == nil || !strings.Contains(out, "not a directory of ours with mode 0700") {
			t.Errorf("%s: %v, %s", name, err, out)
		}
		testenv.Run(t, "rm", "-rf", dir)
		u.do("list")
	}
	if out, err := u.try("--rootless=maybe", "run", "ID"); err == nil || !strings.Contains(out, "rootless") {
		t.Errorf("%v, %s", err, out)
	}
	u.env = []string{"XDG_RUNTIME_DIR=/proc/1"}
	if out, err := u.try("list"); err == nil || !strings.Contains(out, "the path in $XDG_RUNTIME_DIR must be writable by the user") {
		t.Errorf("%v, %s", err, out)
	}
	u.do("features") // has no state
}

func lines(l ...string) string { return strings.Join(l, "\n") }

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
