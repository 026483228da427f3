package lifecycle_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A tmpfs with the option tmpcopyup begins with what it hides.
func TestCopyUp(t *testing.T) {
	const show = "cd /run; for f in $(find . | sort); do stat -c '%n %F %a %u:%g' $f; done; cat a/f; readlink a/l; "
	fill := func(b *bundle) {
		b.write("rootfs/run/a/f", "text\n", 0o640)
		b.symlink("/etc/passwd", "rootfs/run/a/l")
		b.mkdir("rootfs/run/empty")
		b.chmod("rootfs/run", 0o751)
		b.chmod("rootfs/run/a", os.ModeSetgid|0o775)
		if err := unix.Mkfifo(b.path("rootfs/run/p"), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	own := func(b *bundle) {
		for _, name := range []string{"rootfs/run/a", "rootfs/run/a/f", "rootfs/run/a/l"} {
			if err := os.Lchown(b.path(name), 7, 8); err != nil {
				b.t.Fatal(err)
			}
		}
		b.chmod("rootfs/run/a/f", os.ModeSetuid|0o755)
		b.chmod("rootfs/run/a", os.ModeSetgid|0o775)
	}
	files := lines(". directory 751 0:0", "./a directory 2775 7:8", "./a/f regular file 4755 7:8", "./a/l symbolic link 777 7:8",
		"./empty directory 755 0:0", "./p fifo 600 0:0", "text", "/etc/passwd")
	look(t, []view{
		{name: "all kinds", script: show + showMount + "show /run", want: lines(files, "/run rw,nosuid,relatime tmpfs tmp rw,size=1024k,mode=751"),
			change: func(b *bundle) { fill(b); own(b); b.mount("tmpfs", "tmp", "/run", "tmpcopyup,nosuid,size=1m") }},
		{name: "the copy is a copy", script: "echo more >>/run/a/f; touch /run/x; rm -r /run/empty; cat /run/a/f; ls /keep", want: lines("text", "more", "a", "empty", "p"),
			change: func(b *bundle) {
				fill(b)
				b.mount("bind", "rootfs/run", "/keep", "bind")
				b.mount("tmpfs", "tmp", "/run", "tmpcopyup")
			}},
		{name: "read-only", script: "ls /run; touch /run/x; " + showMount + "show /run | cut -d' ' -f2", want: lines("a", "empty", "p", "touch: /run/x: Read-only file system", "ro,relatime"),
			change: func(b *bundle) { fill(b); b.mount("tmpfs", "tmp", "/run", "tmpcopyup,ro") }},
		{name: "with its own permissions", script: "stat -c '%a %u:%g' /run", want: "700 3:4",
			change: func(b *bundle) { fill(b); b.mount("tmpfs", "tmp", "/run", "tmpcopyup,mode=700,uid=3,gid=4") }},
		{name: "in a user namespace", script: "cd /run; stat -c '%n %u:%g' . a a/f; touch x; stat -c %u:%g x",
			want: lines(". 0:0", "a 7:8", "a/f 0:0", "0:0"),
			change: func(b *bundle) {
				fill(b)
				b.userNamespace()
				if err := os.Lchown(b.path("rootfs/run/a"), 100007, 100008); err != nil {
					b.t.Fatal(err)
				}
				b.mount("tmpfs", "tmp", "/run", "tmpcopyup")
			}},
		{name: "of what an earlier mount shows", script: "cat /d/sub/f; cat /d/sub/g 2>&1", status: 1, want: lines("bound", "cat: can't open '/d/sub/g': No such file or directory"),
			change: func(b *bundle) {
				b.write("rootfs/d/sub/g", "hidden\n", 0o644)
				b.write("src/sub/f", "bound\n", 0o644)
				b.mount("bind", "src", "/d", "bind")
				b.mount("tmpfs", "tmp", "/d/sub", "tmpcopyup")
			}},
		{name: "of nothing", script: "ls -A /new /dev/new; stat -c %a /new", want: lines("/dev/new:", "", "/new:", "1777"),
			change: func(b *bundle) {
				b.mount("tmpfs", "tmp", "/new", "tmpcopyup")
				b.mount("tmpfs", "tmp", "/dev/new", "tmpcopyup")
			}},
		{name: "behind a link", script: "cat /run/a/f; readlink /var/run", want: lines("text", "../../../../run"),
			change: func(b *bundle) {
				fill(b)
				b.symlink("../../../../run", "rootfs/var/run")
				b.mount("tmpfs", "tmp", "/var/run", "tmpcopyup")
			}},
	})
}

// A user namespace that is joined has its own maps, whatever the configuration
// says: for what a tmpfs begins with, and for the pipes of the container's user.
func TestMapsOfAJoinedNamespace(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	first := newBundle(t, "true")
	first.userNamespace()
	c := first.create()

	b := newBundle(t, "stat -c %u:%g /run /run/f; stat -Lc %u:%g /proc/self/fd/1; echo x >/proc/self/fd/1")
	b.write("rootfs/run/f", "", 0o644)
	b.userNamespace()
	b.namespace(specs.UserNamespace, fmt.Sprintf("/proc/%d/ns/user", c.PID))
	b.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} // as podman writes it
	b.Linux.GIDMappings = b.Linux.UIDMappings
	b.Process.User = specs.User{UID: 10, GID: 20}
	b.mount("tmpfs", "tmpfs", "/run", "tmpcopyup,uid=3")
	if out, status := b.run(); out != lines("3:0", "0:0", "10:20", "x") || status != 0 {
		t.Errorf("exit status %d, printed\n%s", status, out)
	}
	b.Mounts[len(b.Mounts)-1].Options[1] = "gid=77777"
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "mounts[7].options: tmpcopyup: gid 77777 is not mapped") {
		t.Errorf("an owner that is not mapped: %v", err)
	}
}

// An image cannot make us fill the host's memory, nor follow its links out of it.
func TestCopyUpIsBounded(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, c := range []struct {
		name string
		fill func(*bundle)
		want string
	}{
		{"a large file", func(b *bundle) {
			b.write("rootfs/run/f", "", 0o644)
			if err := os.Truncate(b.path("rootfs/run/f"), 2<<20); err != nil {
				b.t.Fatal(err)
			}
		}, "copy /run: f: write f: no space left on device"},
		{"deep", func(b *bundle) { b.mkdir("rootfs/run" + strings.Repeat("/d", 130)) }, "more than 128 directories deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, "true")
			c.fill(b)
			b.mount("tmpfs", "tmp", "/run", "tmpcopyup,size=1m")
			_, _, err := b.tryRun(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "mounts[7].options") {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	t.Run("a link to the host", func(t *testing.T) {
		b := newBundle(t, "ls -A /run/")
		b.write("secret/key", "", 0o600)
		b.symlink(b.path("secret"), "rootfs/run")
		b.mount("tmpfs", "tmp", "/run", "tmpcopyup")
		if out, _ := b.run(); out != "" {
			t.Errorf("the container has %q", out)
		}
	})
}
