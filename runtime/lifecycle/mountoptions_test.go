package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// showMount prints mount points, the options of the mount, its propagation
// without the numbers of peer groups, and the file system with its options.
const showMount = `show() { grep " $1 " /proc/self/mountinfo | sed 's/^[0-9]* [0-9]* [0-9:]* [^ ]* //; s/ - / /; s/:[0-9]*//; s/,inode64//'; }; `

// Every option takes effect, as the kernel tells.
func TestMountOptions(t *testing.T) {
	tmpfs := func(options string) func(*bundle) {
		return func(b *bundle) { b.mount("tmpfs", "tmpfs", "/t", options) }
	}
	remount := func(first, second string) func(*bundle) {
		return func(b *bundle) {
			b.mount("tmpfs", "tmpfs", "/t", first)
			b.mount("none", "none", "/t", second)
		}
	}
	look(t, []view{
		{name: "superblock flags", script: showMount + "show /t", want: "/t rw,relatime tmpfs tmpfs rw,sync,dirsync,mand,lazytime",
			change: tmpfs("sync,dirsync,mand,lazytime")},
		{name: "several in one", script: showMount + "show /t", want: "/t rw,relatime,nosymfollow tmpfs tmpfs rw,size=1024k,mode=700",
			change: func(b *bundle) {
				tmpfs("nosymfollow")(b)
				b.Mounts[len(b.Mounts)-1].Options = append(b.Mounts[len(b.Mounts)-1].Options, "size=1m,mode=700")
			}},
		{name: "recursive ones", script: showMount + "show /t", want: "/t rw,nosuid,nodev,noatime,nodiratime tmpfs tmpfs rw",
			change: tmpfs("rnosuid,rnodev,rnoexec,rnoatime,rnodiratime,rro,exec,rw")},
		{name: "of proc", script: showMount + "show /proc", want: "/proc rw,relatime proc proc rw,sync,gid=5,hidepid=invisible",
			change: func(b *bundle) {
				b.Mounts[0].Options = []string{"hidepid=2", "gid=5", "sync"}
				b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
			}},
		{name: "of devpts", script: showMount + "show /p", want: "/p rw,relatime devpts devpts rw,lazytime,gid=5,mode=640,ptmxmode=600",
			change: func(b *bundle) {
				b.mount("devpts", "devpts", "/p", "newinstance,ptmxmode=0600,mode=0640,gid=5,lazytime")
			}},
		{name: "permissions of what a tmpfs hides", script: "stat -c '%a %u' /t /u /v", want: lines("750 0", "1777 0", "700 0"),
			change: func(b *bundle) {
				b.mkdir("rootfs/t")
				b.mkdir("rootfs/v")
				b.chmod("rootfs/t", 0o750)
				b.mount("tmpfs", "tmpfs", "/t", "")
				b.mount("tmpfs", "tmpfs", "/u", "")
				b.mount("tmpfs", "tmpfs", "/v", "mode=700")
			}},
		{name: "permissions of what a bind mount has", script: "stat -c %a /d/t", want: "711",
			change: func(b *bundle) {
				b.mkdir("src/t")
				b.chmod("src/t", 0o711)
				b.mount("bind", "src", "/d", "bind")
				b.mount("tmpfs", "tmpfs", "/d/t", "")
			}},
		{name: "remount of a tmpfs", script: showMount + "show /t", want: "/t ro,nosuid,noexec,relatime tmpfs tmpfs ro,sync,size=2048k",
			change: remount("nosuid,size=1m", "remount,ro,noexec,sync,size=2m")},
		{name: "remount that makes writable again", script: showMount + "show /t; touch /t/x", want: "/t rw,relatime tmpfs tmpfs rw",
			change: func(b *bundle) {
				remount("nosuid", "remount,ro")(b)
				b.mount("none", "none", "/t", "remount,rw,suid")
			}},
		{name: "remount that takes read-only back", script: showMount + "show /t | cut -d' ' -f2; touch /t/x", want: "rw,relatime",
			change: func(b *bundle) {
				b.mount("tmpfs", "tmpfs", "/t", "ro")
				b.mount("tmpfs", "tmpfs", "/t", "remount,rw")
			}},
		{name: "remount of a bind mount", script: showMount + "show /t | cut -d' ' -f2", want: "ro,noexec,noatime",
			change: remount("noexec", "remount,bind,ro,noatime")},
		{name: "remount of a file", script: showMount + "show /f | cut -d' ' -f2 | cut -d, -f1,2; echo x >/f", status: 1,
			want: lines("ro,nosuid", "sh: can't create /f: Read-only file system"),
			change: func(b *bundle) {
				b.write("f", "", 0o644)
				b.mount("bind", "f", "/f", "bind")
				b.mount("bind", "f", "/f", "bind,remount,ro,nosuid")
			}},
		{name: "a read-only dev of another kind", script: "ls -l /dev/null | cut -c1; touch /dev/x", status: 1,
			want: lines("c", "touch: /dev/x: Read-only file system"),
			change: func(b *bundle) {
				b.Mounts = b.Mounts[:1]
				b.mount("ramfs", "none", "/dev", "ro")
			}},
		{name: "bound below proc where lxcfs does", script: "cat /proc/uptime", want: "long",
			change: func(b *bundle) { b.write("up", "long\n", 0o644); b.mount("bind", "up", "/proc/uptime", "bind") }},
		{name: "proc of the host", script: "[ $(ls -d /proc/[0-9]* 2>/dev/null | wc -l) -gt 1 ] && echo many; echo 1 >/proc/sys/kernel/domainname", status: 1,
			want: lines("many", "sh: can't create /proc/sys/kernel/domainname: Read-only file system"),
			change: func(b *bundle) {
				b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
			}},
	})
}

func (b *bundle) chmod(name string, mode os.FileMode) {
	b.t.Helper()
	if err := os.Chmod(b.path(name), mode); err != nil {
		b.t.Fatal(err)
	}
}

// Each form of propagation, on each kind of mount.
func TestPropagationOptions(t *testing.T) {
	var views []view
	for option, want := range map[string]string{
		"shared": "shared", "rshared": "shared", "private": "", "rprivate": "", "slave": "", "rslave": "",
		"unbindable": "unbindable", "runbindable": "unbindable", "shared,private": "", "private,rshared": "shared",
	} {
		views = append(views, view{name: option, want: strings.TrimSpace(strings.Repeat(want+"\n", 3)),
			script: showMount + "for m in /t /d /sys/fs/cgroup; do show $m | cut -d' ' -f3 | grep -o -e shared -e unbindable || echo; done",
			change: func(b *bundle) {
				b.mkdir("src")
				b.mount("tmpfs", "tmpfs", "/t", option)
				b.mount("bind", "src", "/d", "bind,"+option)
				for i := range b.Mounts {
					if b.Mounts[i].Type == "cgroup" {
						b.Mounts[i].Options = append(b.Mounts[i].Options, strings.Split(option, ",")...)
					}
				}
			}})
	}
	look(t, views)
}

// Mounts in a bind mount that is the host's peer are what their own options say,
// and what is put into it does not stay the container's secret.
func TestPrivateInShared(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	b := newBundle(t, showMount+"show /d | cut -d' ' -f3; show /d/t | cut -d' ' -f3")
	b.mkdir("src")
	testenv.Tmpfs(t, b.path("src"), 1<<20)
	b.mkdir("src/t")
	if err := unix.Mount("", b.path("src"), "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	b.mount("bind", "src", "/d", "bind,rshared")
	b.mount("tmpfs", "tmpfs", "/d/t", "private")
	if out, _ := b.run(); out != lines("shared", "tmpfs") {
		t.Errorf("printed %q", out)
	}
	if err := unix.Unmount(b.path("src/t"), unix.MNT_DETACH); err != nil {
		t.Errorf("on the host: %v", err)
	}
}

// File systems that are no part of the kernel's own, with options of theirs.
func TestOtherFilesystems(t *testing.T) {
	testenv.Root(t)
	long := strings.Repeat("d", 120)
	for _, c := range []struct {
		name  string
		layer string
		want  string
	}{{"overlay", "l", "rw"}, {"overlay with long names", long + "/" + long, "rw"}, {`overlay with "quotes"`, `"l"`, "rw"}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, "cat /o/a /o/b; echo c >/o/c; "+showMount+"show /o | cut -d' ' -f2,3,4")
			// Another file system than the one that the tests are on may be an overlay itself.
			b.write(c.layer+"1/a", "one\n", 0o644)
			b.write(c.layer+"2/b", "two\n", 0o644)
			b.mkdir("upper")
			b.mkdir("work")
			b.mount("overlay", "overlay", "/o", fmt.Sprintf("lowerdir=%s:%s,upperdir=%s,workdir=%s,nodev,noatime,private",
				b.path(c.layer+"1"), b.path(c.layer+"2"), b.path("upper"), b.path("work")))
			out, status := b.run()
			if out != lines("one", "two", "rw,nodev,noatime overlay overlay") || status != 0 {
				t.Errorf("exit status %d, printed\n%s", status, out)
			}
			if data, err := os.ReadFile(filepath.Join(b.path("upper"), "c")); string(data) != "c\n" {
				t.Errorf("upper directory: %q, %v", data, err)
			}
		})
	}
}

// A sysfs belongs to a network namespace: in another's the host's is shown, and
// nothing in it can be written that way.
func TestSysfsOfTheHost(t *testing.T) {
	look(t, []view{{name: "user namespace with the host's network", change: func(b *bundle) {
		b.userNamespace()
		b.without(specs.NetworkNamespace)
	},
		script: `ls -d /sys/class/net/lo; grep ' /sys[ /]' /proc/self/mountinfo | cut -d' ' -f5,6 | grep -v ' ro' | grep -v '^/sys/fs/cgroup'; grep -c ' / /sys ' /proc/self/mountinfo`,
		want:   lines("/sys/class/net/lo", "1")}})
}

// rootfsPropagation in every form: what becomes of the root, and of a mount of
// the host that has no word of its own on it.
func TestRootPropagation(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	for option, want := range map[string]string{
		"": "- master", "private": "- -", "rprivate": "- -", "slave": "master master", "rslave": "master master",
		"shared": "shared shared", "rshared": "shared shared", "unbindable": "unbindable -", "runbindable": "unbindable unbindable",
	} {
		t.Run("propagation "+option, func(t *testing.T) {
			b := newBundle(t, `for m in / /d; do cut -d' ' -f5,7 /proc/self/mountinfo | grep "^$m " | sed 's/.* //; s/:.*//'; done`)
			b.mkdir("rootfs/proc")
			testenv.Tmpfs(t, b.path("rootfs/proc"), 1<<20) // a mount below the root, which comes along
			b.mkdir("src")
			testenv.Tmpfs(t, b.path("src"), 1<<20)
			if err := unix.Mount("", b.path("src"), "", unix.MS_SHARED, ""); err != nil {
				t.Fatal(err)
			}
			// The root is a mount that is shared with the host.
			if err := unix.Mount(b.path("rootfs"), b.path("rootfs"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(b.path("rootfs"), unix.MNT_DETACH) })
			if err := unix.Mount("", b.path("rootfs"), "", unix.MS_SHARED, ""); err != nil {
				t.Fatal(err)
			}
			b.mount("bind", "src", "/d", "bind")
			b.Linux.RootfsPropagation = option
			before := hostMounts(t)
			out, _ := b.run()
			if got := strings.Join(strings.Fields(out), " "); got != want {
				t.Errorf("root and bind mount are %q, want %q", got, want)
			}
			if after := hostMounts(t); after != before {
				t.Errorf("the host's mounts were\n%s\nand are\n%s", before, after)
			}
		})
	}
}

func hostMounts(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Without pivot_root the container is the same, and the host's proc and sysfs
// are out of its reach.
func TestNoPivot(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := newBundle(t, "ls -A /; ls -d /proc/[0-9]*; cat /proc/self/mountinfo | grep -c ' / / '; cd ../../..; ls -d bin; grep ' - proc ' /proc/self/mountinfo | grep -v ' /proc' | wc -l")
	b.noPivot = true
	before := hostMounts(t)
	out, status := b.run()
	if !strings.HasPrefix(out, lines("bin", "dev", "etc", "proc", "sys", "/proc/1")) || !strings.HasSuffix(out, lines("bin", "0")) || status != 0 {
		t.Errorf("exit status %d, printed\n%s", status, out)
	}
	if after := hostMounts(t); after != before {
		t.Errorf("the host's mounts were\n%s\nand are\n%s", before, after)
	}
}
