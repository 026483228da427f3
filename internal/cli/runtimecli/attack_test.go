package runtimecli_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// Each TestAttack… is an escape that some runtime has had, tried against
// tare-runtime's command line; docs/security.md lists them. What it would leave
// behind where it works is told in the test, and looked for on the host.

// try runs tare-runtime and returns what it and the container wrote.
func (b *bundle) try(args ...string) (string, error) {
	b.t.Helper()
	return b.tryCommand(b.command(args...))
}

func (b *bundle) tryCommand(cmd *exec.Cmd) (string, error) {
	b.t.Helper()
	out, err := os.CreateTemp(b.dir, "output")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		b.t.Fatal(rerr)
	}
	return strings.TrimRight(string(text), " \n"), err
}

func (b *bundle) path(name string) string { return filepath.Join(b.dir, name) }

// write makes a file of the bundle, and its directories.
func (b *bundle) write(name, content string, mode fs.FileMode) {
	b.t.Helper()
	if err := firstError(os.MkdirAll(filepath.Dir(b.path(name)), 0o755), os.WriteFile(b.path(name), []byte(content), mode)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) mkdir(name string) {
	b.t.Helper()
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// link puts a symbolic link in the place of whatever is there.
func (b *bundle) link(target, name string) {
	b.t.Helper()
	if err := firstError(os.RemoveAll(b.path(name)), os.MkdirAll(filepath.Dir(b.path(name)), 0o755), os.Symlink(target, b.path(name))); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) bind(source, destination string, options ...string) {
	b.Mounts = append(b.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: append([]string{"rbind"}, options...)})
}

// grant gives the container's processes more capabilities.
func (b *bundle) grant(names ...string) {
	c := b.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(*set, names...)
	}
}

// without leaves a kind of namespace as the host's.
func (b *bundle) without(kind specs.LinuxNamespaceType) {
	var rest []specs.LinuxNamespace
	for _, ns := range b.Linux.Namespaces {
		if ns.Type != kind {
			rest = append(rest, ns)
		}
	}
	b.Linux.Namespaces = rest
}

// canary returns a directory of the host's with files in it, and what fails the
// test unless all of it is as it was: names, inodes, owners, content.
func (b *bundle) canary(files ...string) (dir string, check func()) {
	b.t.Helper()
	for _, name := range files {
		b.write("host/"+name, "of the host", 0o644)
	}
	before := snapshot(b.t, b.path("host"))
	return b.path("host"), func() {
		b.t.Helper()
		if after := snapshot(b.t, b.path("host")); after != before {
			b.t.Fatalf("what is the host's has changed from\n%s\nto\n%s", before, after)
		}
	}
}

func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		var content []byte
		if e.Type().IsRegular() {
			content, err = os.ReadFile(name)
		}
		fmt.Fprintf(&all, "%s: device %d, inode %d, mode %o, owner %d:%d, changed %v, %q\n", name, st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Ctim, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// swapFiles is the attacker's program: it makes pairs of files change places,
// over and over again, until it is killed. What some swap fails with is as
// changing as the rest.
func swapFiles() {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for i := 1; i+1 < len(os.Args); i += 2 {
			_ = unix.Renameat2(unix.AT_FDCWD, os.Args[i], unix.AT_FDCWD, os.Args[i+1], unix.RENAME_EXCHANGE)
		}
	}
}

// raceTime is how long an attacker has.
const raceTime = 2500 * time.Millisecond

// race tries something again and again while the attacker's process swaps pairs
// of files of the bundle.
func (b *bundle) race(pairs []string, try func()) {
	b.t.Helper()
	var names []string
	for _, name := range pairs {
		names = append(names, b.path(name))
	}
	cmd := exec.Command("swap-files", names...)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it is there until it is waited for
		_ = cmd.Wait()         // killed
	}()
	n := 0
	for end := time.Now().Add(raceTime); time.Now().Before(end) && !b.t.Failed(); n++ {
		try()
	}
	b.t.Logf("%d tries", n)
}

// outcomes counts what came of the tries of a race.
type outcomes map[string]int

func (o outcomes) add(out string, err error) {
	if err != nil {
		o["failed"]++
		return
	}
	o[out]++
}

// CVE-2019-5736 at the entrypoint: the image has the runtime run itself, where
// another process of the image's waits for it in the same pid namespace, opens
// its /proc/PID/exe and writes to it once it is no longer busy. Where that
// works the runtime's binary, or a copy that it lives from, has the text
// "spoiled"; and the attacker sees it by name, sealed or not.
func TestAttackEntrypointIsTheRuntime(t *testing.T) {
	binary, err := exec.LookPath("tare-runtime")
	if err == nil {
		binary, err = filepath.EvalSymlinks(binary)
	}
	if err != nil {
		t.Fatal(err)
	}
	attacker := running(t, func(b *bundle) {
		b.grant("CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN")
		b.mkdir("rootfs/seen")
		b.Process.Args[2] = `trap 'exit 0' TERM; exec 7</dev/null
			while :; do for p in /proc/[0-9]*; do
				case $p in /proc/1|/proc/$$) continue;; esac
				e=$(readlink $p/exe) || continue
				case $e in /bin/busybox) continue;; esac
				echo "$e" >>/seen/names
				h=$(readlink /proc/$$/fd/7)
				[ "$h" = /dev/null ] || { (echo spoiled >/proc/$$/fd/7) && echo "$h" >>/seen/written; }
				command exec 7<$p/exe
			done; done 2>/seen/errors`
	})
	before := snapshot(t, binary)
	b := newBundle(t, "true")
	b.write("rootfs/script", "#!/proc/self/exe\n", 0o755)
	b.link("/proc/self/exe", "rootfs/link")
	for i, ns := range b.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			b.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", attacker.state().Pid)
		}
	}
	tries := 0
	for end := time.Now().Add(raceTime); time.Now().Before(end); tries++ {
		for _, program := range []string{"/proc/self/exe", "/script", "/link", "/proc/thread-self/exe", "/proc/self/fd/3"} {
			b.Process.Args = []string{program}
			if out, err := b.try("run", "ID"); err == nil {
				t.Errorf("%s ran: %s", program, out)
			}
		}
	}
	if after := snapshot(t, binary); after != before {
		t.Errorf("the runtime's binary has changed")
	}
	if written, err := os.ReadFile(attacker.path("rootfs/seen/written")); err == nil {
		t.Errorf("the container could write to %s", written)
	}
	if s := attacker.state().Status; s != specs.StateRunning {
		t.Errorf("the attacker is %s", s)
	}
	names, err := os.ReadFile(attacker.path("rootfs/seen/names"))
	if err != nil {
		t.Errorf("in %d tries the attacker has seen nothing: %v", tries, err)
	}
	for name := range strings.Lines(string(names)) {
		if !strings.HasPrefix(name, "/memfd:tare-init") {
			t.Errorf("the container saw %s", name)
		}
	}
}

// CVE-2019-16884: a volume over /proc, or within it, has files that take what
// the runtime writes in the place of the kernel's own: labels then do not hold.
// Where that works, or the kernel's parameter is written to the volume, the
// files of the volume have changed.
func TestAttackVolumeOverProc(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	fake, untouched := b.canary("self/attr/exec", "self/attr/apparmor/exec", "self/attr/keycreate", "self/exe", "sys/net/ipv4/ip_forward")
	b.link("/proc", "rootfs/abs")
	b.link("usr/../proc/self", "rootfs/rel")
	b.mkdir("rootfs/usr")
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	b.confine()
	own := len(b.Mounts)
	for _, c := range [][2]string{{"", "/proc"}, {"", "//proc/."}, {"", "/usr/../proc"}, {"", "/abs"}, {"self", "/proc/self"}, {"self", "/abs/self"},
		{"self", "/rel"}, {"self/attr", "/proc/self/attr"}, {"self/attr", "/rel/attr"}, {"self/attr", "/proc/1/attr"}, {"self/attr/exec", "/proc/self/attr/exec"},
		{"sys", "/proc/sys"}, {"sys/net/ipv4", "/abs/sys/net/ipv4"}, {"sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"}} {
		for _, kind := range []string{"bind", "tmpfs"} {
			b.Mounts = append(b.Mounts[:own:own], specs.Mount{Type: kind, Source: filepath.Join(fake, c[0]), Destination: c[1]})
			if kind == "bind" {
				b.Mounts[own].Options = []string{"rbind"}
			}
			if out, err := b.try("run", "ID"); err == nil || !strings.Contains(out, "mounts[7].destination") {
				t.Errorf("%s on %s: %v, %s", kind, c[1], err, out)
			}
			untouched()
		}
	}
}

// confine has the runtime write a label, where this machine has AppArmor.
func (b *bundle) confine() {
	if enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && enabled[0] == 'Y' {
		b.Process.ApparmorProfile = "unconfined"
	}
}

// CVE-2019-19921 and CVE-2023-27561 (which had brought it back; CVE-2023-28642
// is its sequel): the image's /proc or /sys is a link into a volume, so that
// what is masked, read-only and labelled lies elsewhere than where it is looked
// for. Where that works the container starts, and the volume has new mount points.
func TestAttackProcIsALink(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, place := range []string{"proc", "sys"} {
		for _, target := range []string{"/evil", "/evil/x", "evil", "../evil/x", "../../../../evil", "/proc2", "HOST", "/evil/not/there", "/tmp/..", "self"} {
			b := newBundle(t, "true")
			host, untouched := b.canary("x/kcore", "sysrq-trigger")
			b.link(strings.Replace(target, "HOST", host, 1), "rootfs/"+place)
			b.mkdir("rootfs/evil")
			b.mkdir("rootfs/proc2")
			b.Mounts = append([]specs.Mount{{Type: "bind", Source: host, Destination: "/evil", Options: []string{"rbind"}}}, b.Mounts...)
			out, err := b.try("run", "ID")
			if err == nil || !strings.Contains(out, "too many levels of symbolic links (mounts[") {
				t.Errorf("/%s is a link to %s: %v, %s", place, target, err, out)
			}
			untouched()
		}
	}
}

// CVE-2024-21626: a descriptor of the host's that the runtime, or who calls it,
// has left open is the working directory. Where that works the program begins
// in a directory of the host's and prints what is there.
func TestAttackLeakedWorkingDirectory(t *testing.T) {
	b := running(t, nil)
	host, untouched := b.canary("escaped")
	leaked, err := os.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	defer leaked.Close()
	c := newBundle(t, "ls; ls ..; ls ../..")
	for _, dir := range []*bundle{b, c} {
		for fd := 3; fd < 10; fd++ {
			dir.link(fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("rootfs/links/%d", fd))
			dir.link(fmt.Sprintf("../links/%d/..", fd), fmt.Sprintf("rootfs/up/%d", fd))
		}
	}
	leaky := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.ExtraFiles = []*os.File{leaked, leaked, leaked, leaked, leaked, leaked}
		return cmd
	}
	for fd := 3; fd < 10; fd++ {
		for _, cwd := range []string{"/proc/self/fd/%d", "/proc/self/fd/%d/../..", "/links/%d", "/proc/thread-self/fd/%d", "/proc/1/fd/%d", "/up/%d"} {
			cwd := fmt.Sprintf(cwd, fd)
			c.Process.Cwd = cwd
			for _, cmd := range []*exec.Cmd{
				leaky(c.command("run", "ID")), leaky(c.command("run", "--preserve-fds", "4", "ID")),
				leaky(b.command("exec", "--cwd", cwd, "ID", "sh", "-c", "ls; ls ..")),
			} {
				// Without the link in it, the path is one of the container's.
				if out, err := b.tryCommand(cmd); err == nil && !strings.HasSuffix(cwd, "..") || strings.Contains(out, "escaped") {
					t.Errorf("%s: %v, %s", cmd, err, out)
				}
			}
		}
	}
	untouched()
}

// CVE-2026-41579, and crun's CVE-2026-47766: /dev of the image is a link, and
// the runtime removes "ptmx" there and makes links and devices. Where that works
// the host's directory has another ptmx, and more. Here crun's CVE-2026-88264
// and CVE-2026-88265 as well: the same with /dev/console and /dev/null.
func TestAttackDevIsALink(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, name := range []string{"dev", "dev/ptmx", "dev/console", "dev/null", "dev/fd", "dev/pts", "dev/shm", "dev/mqueue"} {
		for _, relative := range []bool{false, true} {
			for _, inside := range []bool{false, true} { // something is where the link leads within the root
				for _, ptys := range []int{0, 1} { // no /dev of its own; but maybe a /dev/pts
					b := newBundle(t, "true")
					host, untouched := b.canary("ptmx", "null", "console", "file")
					target := host
					if name != "dev" && name != "dev/pts" && name != "dev/shm" {
						target += "/file"
					}
					if inside {
						b.mkdir("rootfs/" + host)
					}
					if relative {
						target = strings.Repeat("../", strings.Count(b.dir, "/")) + "../.." + target
					}
					b.link(target, "rootfs/"+name)
					b.Mounts = append(b.Mounts[:1:1], b.Mounts[2:2+ptys]...)
					// Whether it starts does not matter here.
					out, err := b.try("run", "ID")
					t.Logf("/%s -> %s: %v %s", name, target, err, out)
					untouched()
				}
			}
		}
	}
}

// crun's CVE-2026-30892: "exec -u 1" runs as root. Here the program says who it is.
func TestAttackExecUser(t *testing.T) {
	b := running(t, func(b *bundle) { b.grant("CAP_SETUID", "CAP_SETGID") })
	for _, flag := range []string{"-u", "--user"} {
		for user, want := range map[string]string{"1": "1 0", "0": "0 0", "1:1": "1 1", "0:1": "0 1", "007": "7 0", "65534:65533": "65534 65533", "4294967294": "4294967294 0"} {
			if out, err := b.try("exec", flag, user, "ID", "sh", "-c", "echo $(id -u) $(id -g)"); err != nil || out != want {
				t.Errorf("%s %s: %v, %s", flag, user, err, out)
			}
		}
		for _, user := range []string{"-1", "+1", " 1", "1 ", "0x1", "1:", ":1", ":", "1:-1", "1:1:1", "1,1", "1.0", "1e3", "root", "1\n", "4294967295", "4294967296", "18446744073709551616", "1:4294967295", "99999999999999999999999"} {
			if out, err := b.try("exec", flag, user, "ID", "id"); err == nil || exitCode(err) != 255 || strings.Contains(out, "uid=") {
				t.Errorf("%s %q: %v, %s", flag, user, err, out)
			}
		}
	}
}

// CVE-2022-29162: capabilities that exec adds are inheritable, so that programs
// with file capabilities give them to whoever runs them. Here the process says
// what it has.
func TestAttackInheritableCapabilities(t *testing.T) {
	b := running(t, nil)
	for _, user := range []string{"0", "1000"} {
		out, err := b.try("exec", "--user", user, "--cap", "CAP_NET_RAW", "--cap", "CAP_SYS_ADMIN", "ID", "grep", "^Cap", "/proc/self/status")
		for _, set := range []string{"CapInh", "CapAmb"} {
			if err != nil || !strings.Contains(out, set+":\t0000000000000000") {
				t.Errorf("user %s: %v, %s", user, err, out)
			}
		}
		if !strings.Contains(out, "CapBnd:\t0000000020202420") { // what was given is there
			t.Errorf("user %s: %s", user, out)
		}
	}
}

// Devices that nobody has listed: one that a container makes for itself is of
// no use, whether or not the configuration speaks of devices. Where it is, the
// program opens it, as the host can.
func TestAttackDeviceThatIsNotListed(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const node = "/node"
	var device string
	control := filepath.Join(t.TempDir(), "node")
	for _, n := range [][2]uint32{{1, 11}, {10, 229}, {10, 237}, {1, 1}} {
		if err := unix.Mknod(control, unix.S_IFCHR|0o666, int(unix.Mkdev(n[0], n[1]))); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(control, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if firstError(err, os.Remove(control)) == nil {
			unix.Close(fd)
			device = fmt.Sprintf("%d %d", n[0], n[1])
			break
		}
	}
	if device == "" {
		t.Fatal("the host opens none of its devices")
	}
	script := "busybox mknod -m 666 " + node + " c " + device + " || exit 7; : <" + node + " && echo opened"
	for name, change := range map[string]func(*bundle){
		"denied":       func(*bundle) {},
		"no resources": func(b *bundle) { b.Linux.Resources = nil },
		"no list":      func(b *bundle) { b.Linux.Resources.Devices = nil },
		"allowed to make it": func(b *bundle) {
			b.Linux.Resources.Devices = append(b.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "m"})
		},
		"another one": func(b *bundle) {
			major, minor := int64(1), int64(3)
			b.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, script)
			b.grant("CAP_MKNOD")
			change(b)
			out, err := b.try("run", "ID")
			if exitCode(err) == 7 || !strings.Contains(out, "Operation not permitted") || strings.Contains(out, "opened") {
				t.Errorf("%v, %s", err, out)
			}
			b.Process.Args[2] = "sleep 1000"
			if err := os.Remove(b.path("rootfs" + node)); err != nil {
				t.Fatal(err)
			}
			b.do("run", "--detach", "ID")
			out, err = b.try("exec", "ID", "sh", "-c", script)
			if exitCode(err) == 7 || !strings.Contains(out, "Operation not permitted") || strings.Contains(out, "opened") {
				t.Errorf("exec: %v, %s", err, out)
			}
			b.do("delete", "--force", "ID")
		})
	}
}

// asUser is for what an ordinary user does on the host.
func asUser(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}
