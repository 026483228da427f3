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
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/spec"
)

// What config.json says of mounts, as the kernel shows them inside.
func TestMounts(t *testing.T) {
	// Mount point, the mount's own options, propagation, type, and the file system's options.
	const show = `show() { grep " $1 " /proc/self/mountinfo | sed 's/^[0-9]* [0-9]* [0-9:]* [^ ]* //; s/ - / /'; }; `
	look(t, []view{
		{name: "of the example", script: `cut -d' ' -f5,6 /proc/self/mountinfo | grep -vE '^/(proc|sys/fs/cgroup|sys/firmware|dev/console)?[/ ]'`,
			want: lines("/dev rw,nosuid", "/dev/pts rw,nosuid,noexec,relatime", "/dev/shm rw,nosuid,nodev,noexec,relatime",
				"/dev/mqueue rw,nosuid,nodev,noexec,relatime", "/sys ro,nosuid,nodev,noexec,relatime")},
		{name: "nothing of the host", script: "ls -A /; cut -d' ' -f5 /proc/self/mountinfo | grep -v -e ^/proc -e ^/dev -e ^/sys",
			want: lines("bin", "dev", "etc", "proc", "sys", "/")},
		{name: "options of a new file system", script: show + "show /t | sed s/,inode64//", want: "/t ro,nosuid,nodev,noexec,noatime tmpfs tmpfs rw,size=1024k,mode=700",
			change: func(b *bundle) { b.mount("tmpfs", "tmpfs", "/t", "ro,nosuid,nodev,noexec,noatime,size=1m,mode=700") }},
		{name: "the last of contrary options", script: show + "show /t | cut -d' ' -f1,2", want: "/t rw,relatime",
			change: func(b *bundle) { b.mount("tmpfs", "tmpfs", "/t", "ro,nosuid,noexec,rw,suid,exec") }},
		{name: "below a read-only tmpfs", script: show + "show /t | cut -d' ' -f2; show /t/a/b | cut -d' ' -f2; touch /t/a/b/x; touch /t/x", status: 1,
			want: lines("ro,relatime", "rw,relatime", "touch: /t/x: Read-only file system"),
			change: func(b *bundle) {
				b.mount("tmpfs", "tmpfs", "/t", "ro")
				b.mount("tmpfs", "tmpfs", "/t/a/b", "")
			}},
		{name: "bound directory", script: show + "show /d | grep -o 'ro,nosuid'; cat /d/sub/f", want: lines("ro,nosuid", "text"),
			change: func(b *bundle) {
				b.write("src/sub/f", "text", 0o644)
				b.mount("bind", b.path("src"), "/d", "bind,ro,nosuid")
			}},
		{name: "bound file, by a relative name", script: "cat /a/b/file; touch /a/b/file", want: "text",
			change: func(b *bundle) {
				b.write("src/f", "text\n", 0o644)
				b.mount("none", "src/f", "/a/b/file", "bind")
			}},
		{name: "type bind without options", script: "cat /file", want: "text",
			change: func(b *bundle) { b.write("f", "text", 0o644); b.mount("bind", "f", "/file", "") }},
		{name: "missing targets below a tmpfs", script: "cat /t/x/y/f /t/x/z/g; stat -c %a /t/x /t/x/z; stat -c %a /t/x/y/f", want: lines("one", "two", "755", "755", "644"),
			change: func(b *bundle) {
				b.write("f", "one\n", 0o644)
				b.write("d/g", "two\n", 0o600)
				b.mount("tmpfs", "tmpfs", "/t", "")
				b.mount("bind", "f", "/t/x/y/f", "bind")
				b.mount("bind", "d", "/t/x/z", "bind")
			}},
		{name: "missing targets below another bind", script: "cat /t/x/f; ls /t", want: lines("one", "old", "x"),
			change: func(b *bundle) {
				b.write("f", "one\n", 0o644)
				b.write("src/old", "", 0o644)
				b.mount("bind", "src", "/t", "bind")
				b.mount("bind", "f", "/t/x/f", "bind")
			}},
		{name: "file on a dangling link", script: "cat /etc/resolv.conf; readlink /etc/resolv.conf; cat /run/x/resolv.conf", want: lines("one", "../run/x/resolv.conf", "one"),
			change: func(b *bundle) {
				b.symlink("../run/x/resolv.conf", "rootfs/etc/resolv.conf")
				b.write("f", "one\n", 0o644)
				b.mount("bind", "f", "/etc/resolv.conf", "bind")
			}},
		{name: "directory through a link out of the root", script: "ls /run/lock; ls -A /; cat /run/lock/f", want: lines("f", "bin", "dev", "etc", "proc", "run", "sys", "var", "one"),
			change: func(b *bundle) {
				b.symlink("../../../../../run", "rootfs/var/run")
				b.write("src/f", "one\n", 0o644)
				b.mount("bind", "src", "/var/run/lock", "bind")
			}},
		{name: "link in a mount that is another mount's way out", script: "cat /t/l/f; ls /", want: lines("one", "bin", "d", "dev", "etc", "proc", "sys", "t"),
			change: func(b *bundle) {
				b.symlink("/d", "src/l")
				b.mkdir("rootfs/d")
				b.write("d/f", "one\n", 0o644)
				b.mount("bind", "src", "/t", "bind")
				b.mount("bind", "d", "/t/l", "bind")
			}},
		{name: "where a mount hides a link of the root file system", script: "cat /data/l/f; ls /", want: lines("one", "bin", "data", "dev", "etc", "proc", "sys"),
			change: func(b *bundle) {
				b.symlink("/y", "rootfs/data/l")
				b.mkdir("src/l")
				b.write("d/f", "one\n", 0o644)
				b.mount("bind", "src", "/data", "bind")
				b.mount("bind", "d", "/data/l", "bind")
			}},
		{name: "over a mount", script: "cat /t/f", want: "two",
			change: func(b *bundle) {
				b.write("one/f", "one", 0o644)
				b.write("two/f", "two", 0o644)
				b.mount("bind", "one", "/t", "bind")
				b.mount("bind", "two", "/t", "bind")
			}},
		{name: "remount", script: show + "show /t | grep -o 'ro,nosuid'", want: "ro,nosuid",
			change: func(b *bundle) {
				b.mkdir("src")
				b.mount("bind", "src", "/t", "bind,nosuid")
				b.mount("none", "none", "/t", "remount,bind,ro")
			}},
		{name: "relative root and unclean destination", script: "grep -c ' /t/u ' /proc/self/mountinfo; ls /t", want: lines("1", "u"),
			change: func(b *bundle) { b.Root.Path = "./rootfs/../rootfs"; b.mount("tmpfs", "", "t//x/../u/", "") }},
		{name: "devpts of its own", script: "ls /dev/pts; stat -c '%a %g' /dev/ptmx /dev/pts/ptmx", want: lines("ptmx", "777 0", "666 0")},
		{name: "shared by all in the container", script: show + "show /t | cut -d' ' -f3 | tr -d 0-9", want: "shared:",
			change: func(b *bundle) { b.mount("tmpfs", "tmpfs", "/t", "rshared") }},
		{name: "root propagation", script: show + "show / | head -n1 | cut -d' ' -f3 | tr -d 0-9", want: "shared:",
			change: func(b *bundle) { b.Linux.RootfsPropagation = "rshared" }},
	})
}

// What config.json wants hidden or not to be written.
func TestProtection(t *testing.T) {
	look(t, []view{
		{name: "masked", script: "wc -c </secret; ls -A /hidden; touch /hidden/x; stat -c '%t,%T' /secret; cat /through/f",
			want: lines("0", "touch: /hidden/x: Read-only file system", "1,3", "seen"),
			change: func(b *bundle) {
				b.write("rootfs/secret", "text", 0o644)
				b.write("rootfs/hidden/f", "text", 0o644)
				b.write("rootfs/through/f", "seen", 0o644)
				b.Linux.MaskedPaths = []string{"/secret", "/hidden", "/missing/too", "/secret/below"}
			}},
		{name: "read-only paths", script: "touch /a/x; touch /a/m/x; touch /f; touch /other; cat /a/m/old",
			want: lines("touch: /a/x: Read-only file system", "touch: /a/m/x: Read-only file system", "touch: /f: Read-only file system", "old"),
			change: func(b *bundle) {
				b.mkdir("rootfs/a")
				b.write("rootfs/f", "", 0o644)
				b.write("src/old", "old", 0o644)
				b.mount("bind", "src", "/a/m", "bind")
				b.Linux.ReadonlyPaths = []string{"/a", "/f", "/missing"}
			}},
		{name: "of the example", script: "echo 1 >/proc/sys/kernel/domainname; ls /sys/firmware | wc -l",
			want: lines("sh: can't create /proc/sys/kernel/domainname: Read-only file system", "0")},
		{name: "read-only root", script: "touch /x; touch /dev/shm/x && echo made", want: lines("touch: /x: Read-only file system", "made"),
			change: func(b *bundle) { b.Root.Readonly = true }},
		{name: "root among the read-only paths", script: "touch /x; touch /dev/shm/x && echo made", want: lines("touch: /x: Read-only file system", "made"),
			change: func(b *bundle) { b.Linux.ReadonlyPaths = []string{"/bin/.."} }},
		{name: "nothing protected", script: "echo name >/proc/sys/kernel/domainname && cat /proc/sys/kernel/domainname", want: "name",
			change: func(b *bundle) { b.Linux.ReadonlyPaths = nil }},
	})
}

// kcore is where /dev/core leads to: some kernels have no /proc/kcore.
func kcore() string {
	if _, err := os.Stat("/proc/kcore"); err != nil {
		return ""
	}
	return " /proc/kcore"
}

// Devices and links that every container has, and those of linux.devices.
func TestDevices(t *testing.T) {
	look(t, []view{
		{name: "default", script: "cd /dev; stat -c '%n %a %t,%T %u' null zero full random urandom tty; for l in fd stdin stdout stderr core ptmx; do echo $l $(readlink $l); done",
			want: lines("null 666 1,3 0", "zero 666 1,5 0", "full 666 1,7 0", "random 666 1,8 0", "urandom 666 1,9 0", "tty 666 5,0 0",
				"fd /proc/self/fd", "stdin /proc/self/fd/0", "stdout /proc/self/fd/1", "stderr /proc/self/fd/2", "core"+kcore(), "ptmx pts/ptmx")},
		{name: "of the configuration", script: "stat -c '%n %F %a %t,%T %u:%g' /dev/fuse /dev/sub/loop /pipe; umask",
			want: lines("/dev/fuse character special file 620 a,e5 5:6", "/dev/sub/loop block special file 666 7,3 0:0", "/pipe fifo 600 0,0 0:0", "0022"),
			change: func(b *bundle) {
				b.Linux.Devices = []specs.LinuxDevice{
					{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: ptr(os.FileMode(0o620)), UID: ptr[uint32](5), GID: ptr[uint32](6)},
					{Path: "/dev/sub/loop", Type: "b", Major: 7, Minor: 3},
					{Path: "/pipe", Type: "p", FileMode: ptr(os.FileMode(0o600))},
				}
			}},
		{name: "large numbers", script: "stat -c '%t,%T' /dev/x", want: "abc,12345",
			change: func(b *bundle) {
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 0xabc, Minor: 0x12345}}
			}},
		{name: "can be used as the control group says", script: "echo x >/dev/null && head -c2 /dev/zero | wc -c; cat /dev/loop; cat /dev/fuse 2>&1 | grep -c denied", status: 1,
			want: lines("2", "cat: can't open '/dev/loop': Operation not permitted", "0"),
			change: func(b *bundle) {
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/loop", Type: "b", Major: 7, Minor: 3}, {Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
				b.Linux.Resources.Devices = append(b.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr[int64](10), Minor: ptr[int64](229), Access: "rwm"})
			}},
		{name: "a /dev that is bound stays as it is", script: "ls /dev", want: lines("console", "null"),
			change: func(b *bundle) {
				b.write("dev/null", "", 0o644)
				b.write("dev/console", "", 0o644)
				b.Mounts = b.Mounts[:1]
				b.mount("bind", "dev", "/dev", "bind")
			}},
	})
}

// Mounts made on the host later arrive in the container or do not, as the
// propagation of its mounts says, and the other way round.
func TestPropagation(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	for _, c := range []struct {
		option        string
		in, out, back bool // arrives from the host, arrives on the host, is seen inside
	}{
		{option: "rprivate"},
		{option: "rslave", in: true},
		{option: "rshared", in: true, out: true},
		{option: "", in: true}, // as the root, which is a slave
	} {
		t.Run("bind "+c.option, func(t *testing.T) {
			b := newBundle(t, "mkdir -p /m/inner; mount -t tmpfs tmpfs /m/inner; cat; grep -q ' /m/outer ' /proc/self/mountinfo && echo arrived; true")
			b.mkdir("src/outer")
			testenv.Tmpfs(t, b.path("src"), 1<<20)
			if err := unix.Mount("", b.path("src"), "", unix.MS_SHARED, ""); err != nil {
				t.Fatal(err)
			}
			b.mkdir("src/outer")
			b.mount("bind", "src", "/m", strings.Trim("rbind,"+c.option, ","))
			all := []string{"CAP_SYS_ADMIN"}
			b.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
			// The container waits for the end of its input.
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			b.stdin = r
			b.save()
			out, text := output(t)
			p, err := b.store.Run(t.Context(), b.options(out))
			out.Close()
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", b.path("src/outer"), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if _, err := p.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := text(); (got == "arrived") != c.in {
				t.Errorf("a mount of the host arrives: %q, want %v", got, c.in)
			}
			if got := isMounted(t, b.path("src/inner")); got != c.out {
				t.Errorf("a mount of the container arrives on the host: %v, want %v", got, c.out)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if c.out {
				if err := unix.Unmount(b.path("src/inner"), unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), " "+dir+" ")
}

// Options with an r in front hold for everything below a mount, others for it
// alone.
func TestRecursiveOptions(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	for option, want := range map[string]string{
		"rbind":            "rw,nodev,nosuid rw,nodev,nosuid",
		"rbind,ro":         "ro,nodev,nosuid rw,nodev,nosuid",
		"rbind,rro":        "ro,nodev,nosuid ro,nodev,nosuid",
		"rbind,rro,rw":     "rw,nodev,nosuid ro,nodev,nosuid",
		"rbind,rnoexec,ro": "ro,nodev,noexec,nosuid rw,nodev,noexec,nosuid",
		"bind,rro":         "ro,nodev,nosuid -",
		"rbind,rsuid,rdev": "rw rw",
	} {
		t.Run(option, func(t *testing.T) {
			b := newBundle(t, `for d in /m /m/sub; do grep " $d " /proc/self/mountinfo | cut -d' ' -f6 || echo -; done`)
			b.mkdir("src")
			testenv.Tmpfs(t, b.path("src"), 1<<20)
			b.mkdir("src/sub")
			testenv.Tmpfs(t, b.path("src/sub"), 1<<20)
			b.mount("bind", "src", "/m", option)
			out, _ := b.run()
			var got []string
			for line := range strings.Lines(out) {
				options := strings.Split(strings.TrimSpace(line), ",")
				var kept []string
				for _, name := range []string{"ro", "rw", "nodev", "noexec", "nosuid"} {
					for _, o := range options {
						if o == name {
							kept = append(kept, o)
						}
					}
				}
				got = append(got, strings.Join(kept, ","))
			}
			if len(got) == 1 {
				got = append(got, "-")
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// The bundle's own mounts, such as an overlay or a bind for its root, come
// along.
func TestRootIsAMount(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := newBundle(t, "cat /etc/added; echo x >/etc/passwd; ls /below")
	b.mkdir("upper/etc")
	b.mkdir("work")
	b.mkdir("merged")
	b.write("upper/etc/added", "upper\n", 0o644)
	if err := unix.Mount("overlay", b.path("merged"), "overlay", 0,
		"lowerdir="+b.path("rootfs")+",upperdir="+b.path("upper")+",workdir="+b.path("work")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b.path("merged"), unix.MNT_DETACH) })
	b.mkdir("merged/below")
	testenv.Tmpfs(t, b.path("merged/below"), 1<<20)
	b.write("merged/below/here", "", 0o644)
	b.Root.Path = b.path("merged")
	if out, status := b.run(); out != lines("upper", "here") || status != 0 {
		t.Errorf("exit status %d, printed\n%s", status, out)
	}
	if data, err := os.ReadFile(filepath.Join(b.path("upper"), "etc/passwd")); err != nil || string(data) != "x\n" {
		t.Errorf("upper directory: %q, %v", data, err)
	}
}

// What is found out of many mounts costs as much for each as of a few.
func TestManyMounts(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/rootfs", 0o755); err != nil {
		t.Fatal(err)
	}
	allocations := func(n int) float64 {
		s := spec.Example(false)
		for i := range n {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprint("/m", i), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}})
		}
		return testing.AllocsPerRun(1, func() {
			if _, err := lifecycle.Facts(s, host.Facts{}, dir, "x"); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := allocations(50), allocations(1000); many > few*40 {
		t.Errorf("50 mounts take %v allocations, 1000 take %v", few, many)
	}
}
