package runtimecli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// The same as TestAttackProcIsALink with the directory and the link in a race:
// one container has the root file system of the other as a volume. Where it
// works, what a container has at /proc is not the kernel's, or something of it
// is neither read-only nor masked. (What such a volume's owner does to names in
// the root file system later is seen in the container, and nobody's to prevent;
// so the mounts are compared by what lies on which, and not by name.)
func TestAttackProcIsSwappedForALink(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, `for i in 0 1 2 3 4 5 6 7 8 9; do for p in /proc /proclink; do busybox cat $p/self/mountinfo && exit 0; done; done 2>/dev/null; exit 1`)
	host, untouched := b.canary("kcore", "sysrq-trigger", "sys/x", "firmware/x")
	for _, dir := range []string{"proc", "sys", "evil"} {
		b.mkdir("rootfs/" + dir)
	}
	b.Mounts = append([]specs.Mount{{Type: "bind", Source: host, Destination: "/evil", Options: []string{"rbind"}}}, b.Mounts[:6]...)
	out, err := b.try("run", "ID")
	want := covered(out)
	if err != nil || !strings.Contains(want, " sys") || !strings.Contains(want, "; sysfs: firmware") {
		t.Fatalf("without an attack: %v, %s", err, out)
	}
	b.link("/evil", "rootfs/proclink")
	b.link("evil", "rootfs/syslink")
	seen := outcomes{}
	b.race([]string{"rootfs/proc", "rootfs/proclink", "rootfs/sys", "rootfs/syslink"}, func() {
		out, err := b.try("run", "ID")
		seen.add(covered(out), err)
		untouched()
	})
	t.Logf("%v", seen)
	delete(seen, "failed")
	if delete(seen, want); len(seen) > 0 {
		t.Errorf("mounts are %v, want %q", seen, want)
	}
}

// covered says what lies on a container's procfs and sysfs, by its mountinfo.
// Of names only the last part does not change while the attacker goes on.
func covered(mountinfo string) string {
	var all []string
	for _, fsType := range []string{"proc", "sysfs"} {
		id := ""
		var on []string
		for pass := range 2 {
			for line := range strings.Lines(mountinfo) {
				before, after, _ := strings.Cut(line, " - ")
				fields := strings.Fields(before)
				switch {
				case len(fields) < 5:
				case pass == 0 && id == "" && strings.HasPrefix(after, fsType+" ") && fields[3] == "/":
					id = fields[0]
				case pass == 1 && fields[1] == id:
					on = append(on, filepath.Base(fields[4]))
				}
			}
		}
		slices.Sort(on)
		all = append(all, fsType+": "+strings.Join(on, " "))
	}
	return strings.Join(all, "; ")
}

// CVE-2021-30465, and CVE-2024-45310: a container that shares a volume swaps the
// target of another's mount for a link to the host. Where that works, the
// mount lies on the host's directory, directories are made in it, or the
// container sees what is in it.
func TestAttackMountTargetIsSwapped(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "cat /v/x/secret /v/x/dir/secret /v/x/mount/secret; cat /v/x/mount/mine; grep -c ' - tmpfs trap ' /proc/self/mountinfo")
	host, untouched := b.canary("secret", "dir/secret")
	b.mkdir("v/x")
	b.write("mine/mine", "mine", 0o644)
	b.link(host, "v/link")
	b.bind(b.path("v"), "/v")
	b.bind(b.path("mine"), "/v/x/mount")
	b.Mounts = append(b.Mounts, specs.Mount{Type: "tmpfs", Source: "trap", Destination: "/v/x/dir/new"})
	seen := outcomes{}
	b.race([]string{"v/x", "v/link"}, func() {
		out, err := b.try("run", "ID")
		if strings.Contains(out, "of the host") {
			t.Errorf("the container has seen the host's file: %s", out)
		}
		seen.add(out, err)
		untouched()
		if host := mountsBelow(t, b.dir); host != "" {
			t.Errorf("the host has mounts: %s", host)
		}
		for _, made := range []string{"x/mount", "x/dir/new", "x/dir", "link/mount", "link/dir/new"} {
			_ = os.Remove(b.path("v/" + made)) // the next one is to make it again; the host's are not empty
		}
	})
	t.Logf("%d failed", seen["failed"])
}

// mountsBelow are the mounts that we see below a directory.
func mountsBelow(t testing.TB, dir string) (found string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.Fields(line)[4], dir+"/") {
			found += line
		}
	}
	return found
}

// CVE-2025-31133: what masks a file is the image's /dev/null, and that is a
// link to another file. Where that works the masked path shows the other file,
// which the container can write to, or is not masked.
func TestAttackMaskedPath(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const script = "wc -c </secret; busybox stat -c %t,%T /secret; echo spoiled >/secret"
	want := lines("0", "1,3")
	trapped := func(target string) (*bundle, func()) {
		b := newBundle(t, script)
		host, untouched := b.canary("file")
		b.write("rootfs/secret", "secret", 0o644)
		b.write("rootfs/other", "other", 0o644)
		b.link(strings.Replace(target, "HOST", host, 1), "rootfs/dev/null")
		b.Mounts = b.Mounts[:1] // no /dev of its own
		b.Linux.MaskedPaths = append(b.Linux.MaskedPaths, "/secret")
		return b, func() {
			t.Helper()
			untouched()
			for _, name := range []string{"secret", "other"} {
				if text, err := os.ReadFile(b.path("rootfs/" + name)); string(text) != name {
					t.Errorf("the container could write to %s: %q, %v", name, text, err)
				}
			}
		}
	}
	for _, target := range []string{"/other", "../other", "/secret", "HOST/file", "/proc/self/cwd/other", "/nowhere"} {
		b, untouched := trapped(target)
		if out, err := b.try("run", "ID"); err != nil || out != want {
			t.Errorf("/dev/null is a link to %s: %v, %s", target, err, out)
		}
		untouched()
	}
	b, untouched := trapped("/other")
	if err := unix.Mknod(b.path("rootfs/dev/node"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	b.write("rootfs/masked", "masked", 0o644)
	b.link("/other", "rootfs/link")
	seen := outcomes{}
	b.race([]string{"rootfs/dev/node", "rootfs/dev/null"}, func() {
		seen.add(b.try("run", "ID"))
		untouched()
	})
	delete(seen, want)
	if len(seen) > 0 {
		t.Errorf("the container has seen %v", seen)
	}
}

// The same where the mount namespace is that of a container whose root has
// replaced /dev/null.
func TestAttackMaskedPathInJoinedNamespace(t *testing.T) {
	attacker := running(t, func(b *bundle) {
		b.write("rootfs/other", "other", 0o666)
		b.Process.Args[2] = "busybox rm /dev/null; busybox ln -s /other /dev/null; touch /ready; " + b.Process.Args[2]
	})
	for range 1000 {
		if _, err := os.Lstat(attacker.path("rootfs/ready")); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	b := newBundle(t, "wc -c </secret; busybox stat -c %t,%T /secret; echo spoiled >/secret; ls /masked")
	b.write("rootfs/secret", "secret", 0o666)
	b.write("rootfs/masked/file", "secret", 0o666)
	b.Linux.MaskedPaths = append(b.Linux.MaskedPaths, "/secret", "/masked", "/nowhere")
	b.Mounts = b.Mounts[:6] // the namespace has no control groups to bind
	for i, ns := range b.Linux.Namespaces {
		if ns.Type == specs.MountNamespace {
			b.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/mnt", attacker.state().Pid)
		}
	}
	if out, err := b.try("run", "ID"); err != nil || out != lines("0", "1,3") {
		t.Errorf("%v, %s", err, out)
	}
	if text, err := os.ReadFile(attacker.path("rootfs/other")); string(text) != "other" {
		t.Errorf("the container could write to the other's file: %q, %v", text, err)
	}
}

// CVE-2025-52565: the image's /dev/console is swapped for a link while the
// terminal goes there. Where that works, the terminal lies on another file,
// one of /proc at worst, or the host has new files.
func TestAttackConsoleIsSwapped(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "busybox cat /proc/self/mountinfo")
	host, untouched := b.canary("file")
	b.write("rootfs/dev/console", "", 0o600)
	b.write("rootfs/other", "", 0o600)
	b.link("/other", "rootfs/dev/link")
	b.link(host+"/new", "rootfs/dev/host")
	b.Mounts = append(b.Mounts[:1:1], b.Mounts[2]) // proc and devpts; no /dev of its own
	b.Process.Terminal = true
	_, slave := pty(t)
	seen := outcomes{}
	b.race([]string{"rootfs/dev/console", "rootfs/dev/link", "rootfs/dev/link", "rootfs/dev/host"}, func() {
		cmd := b.command("run", "ID")
		cmd.Stdin = slave
		out, err := b.tryCommand(cmd)
		for line := range strings.Lines(out) {
			// Of a devpts, only the terminal.
			if f := strings.Fields(line); err == nil && len(f) > 4 && strings.Contains(line, " - devpts ") && f[3] != "/" {
				seen[filepath.Dir(f[4])]++ // the attacker renames the file with what is on it
			}
		}
		seen.add("started", err)
		untouched()
	})
	t.Logf("%v", seen)
	if seen["/dev"] != seen["started"] || len(seen) > 3 {
		t.Errorf("terminals are in %v", seen)
	}
}

// CVE-2025-52881: mounts that a race has made land in /proc, or links that lie
// there, redirect what the runtime writes: labels and kernel parameters.
// Where that works, files of the volume that looks like procfs have changed;
// with other volumes the writes would be the host's undoing (core_pattern).
func TestAttackProcfsWrites(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "grep -cE ' /proc/(sys/net/ipv4|[0-9]+/attr|sys/kernel) ' /proc/self/mountinfo; true")
	fake, untouched := b.canary("ip_forward", "ip_unprivileged_port_start", "domainname", "msgmax", "exec", "keycreate", "apparmor/exec", "current")
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "80", "kernel.domainname": "attack", "kernel.msgmax": "9999"}
	b.confine()
	var pairs []string
	for i, target := range []string{"/proc/sys/net/ipv4", "/proc/self/attr", "/proc/sys/kernel"} {
		v := fmt.Sprintf("v%d", i)
		b.mkdir(v + "/x")
		b.link(target, v+"/link")
		b.bind(b.path(v), "/"+v)
		b.bind(fake, "/"+v+"/x")
		pairs = append(pairs, v+"/x", v+"/link")
	}
	seen := outcomes{}
	landed := func() bool { // once at least, so that there has been an attack
		for n := range seen {
			if n != "0" && n != "failed" {
				return true
			}
		}
		return false
	}
	for range 2 {
		if !landed() {
			b.race(pairs, func() {
				seen.add(b.try("run", "ID"))
				untouched()
			})
		}
	}
	t.Logf("how many mounts were in /proc, and how often: %v", seen)
	if !landed() {
		t.Errorf("the attacker has not been in time once: %v", seen)
	}
}

// CVE-2023-25809: a container in a user namespace, and in the host's control
// group namespace, can write to the host's control groups that belong to its
// user, though they are mounted read-only. Where that works, the host has a new
// control group.
func TestAttackHostCgroup(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const root = 100000 // of the container
	dirs := ownedCgroups(t, root)
	const script = `cd /sys/fs/cgroup; for d in $(busybox find . -name GROUP); do echo found; mkdir $d/canary; done`
	for name, change := range map[string]func(*bundle){
		"sysfs and cgroup": func(b *bundle) { b.without(specs.NetworkNamespace) },
		"sysfs alone": func(b *bundle) {
			b.without(specs.NetworkNamespace)
			b.Mounts = b.Mounts[:6]
		},
		"bound": func(b *bundle) {
			b.without(specs.NetworkNamespace)
			b.Mounts[5] = specs.Mount{Type: "none", Source: "/sys", Destination: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		},
		"bound, all read-only": func(b *bundle) {
			b.without(specs.NetworkNamespace)
			b.Mounts[5] = specs.Mount{Type: "bind", Source: "/sys", Destination: "/sys", Options: []string{"rbind", "rro"}}
			b.Mounts = b.Mounts[:6]
		},
		"cgroup alone": func(*bundle) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, strings.Replace(script, "GROUP", filepath.Base(dirs[0]), 1))
			b.without(specs.CgroupNamespace)
			b.Linux.Resources = nil
			b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: root, Size: 1000}}
			b.Linux.GIDMappings = b.Linux.UIDMappings
			testenv.Run(t, "chown", "-R", fmt.Sprintf("%d:%[1]d", root), b.path("rootfs"))
			for dir := b.dir; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			change(b)
			out, _ := b.try("run", "ID")
			if strings.Contains(out, "found") != strings.Contains(out, "Read-only file system") {
				t.Errorf("the container says %s", out)
			}
			t.Log(out)
			for _, dir := range dirs {
				if _, err := os.Lstat(dir + "/canary"); err == nil {
					t.Errorf("the container has made %s/canary", dir)
					_ = os.Remove(dir + "/canary") // so that the test cleans up
				}
			}
		})
	}
}

// ownedCgroups makes a control group in each hierarchy and gives it to a user.
// That user can make others in them: on the host, this is tried.
func ownedCgroups(t *testing.T, uid uint32) (dirs []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	name := testenv.Name(t)
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(after, "cgroup") {
			continue
		}
		dir := filepath.Join(strings.Fields(before)[4], name)
		if os.Mkdir(dir, 0o755) != nil {
			continue // not a hierarchy that allows it
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.Chown(dir, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("mkdir", dir+"/canary")
		cmd.SysProcAttr = asUser(uid)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
		if err := os.Remove(dir + "/canary"); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		t.Fatal("no control group can be made")
	}
	return dirs
}
