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

// The ids of an idmapped mount's files, seen from inside, and those of files
// made there, seen from outside.
func TestIDMappedMounts(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	maps := func(uid, gid uint32) func(*specs.Mount) {
		return func(m *specs.Mount) {
			m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uid, Size: 100}}
			m.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: gid, Size: 100}}
		}
	}
	user := func(b *bundle) { b.userNamespace() }
	const script = `for f in /m/f /m/sub/g; do [ ! -e $f ] || stat -c %u:%g $f; done; touch /m/new 2>/dev/null && stat -c %u:%g /m/new`
	for _, c := range []struct {
		name, options string
		maps          func(*specs.Mount)
		change        func(*bundle)
		inside        string // files of 5:6, the second in a mount below
		outside       string // owner on the disk of a file made inside by root
	}{
		{"none", "rbind", nil, nil, "5:6 5:6 0:0", "0:0"},
		{"own maps", "rbind,idmap", maps(1000, 2000), nil, "1005:2006 5:6", ""},
		{"without the option", "rbind", maps(1000, 2000), nil, "1005:2006 5:6", ""},
		{"recursive", "rbind,ridmap", maps(1000, 2000), nil, "1005:2006 1005:2006", ""},
		{"to the same", "bind,idmap", maps(0, 0), nil, "5:6 0:0", "0:0"},
		{"maps of the container", "rbind,ridmap", nil, user, "5:6 5:6 0:0", "0:0"},
		{"own maps in a user namespace", "rbind,idmap", maps(100010, 100020), user, "15:26 65534:65534", ""},
		{"user namespace without", "rbind", nil, user, "65534:65534 65534:65534 0:0", "100000:100000"},
		{"with attributes", "rbind,ridmap,ro,rslave", maps(1000, 2000), nil, "1005:2006 1005:2006", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, script)
			// Not a tmpfs: those can be idmapped from Linux 6.3 on.
			b.mkdir("src/sub")
			b.mkdir("below")
			if err := unix.Mount(b.path("below"), b.path("src/sub"), "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(b.path("src/sub"), unix.MNT_DETACH) })
			b.chmod("src", 0o777)
			b.write("src/f", "", 0o644)
			b.write("src/sub/g", "", 0o644)
			for _, name := range []string{"src/f", "src/sub/g"} {
				if err := os.Chown(b.path(name), 5, 6); err != nil {
					t.Fatal(err)
				}
			}
			b.mount("bind", "src", "/m", c.options)
			if c.maps != nil {
				c.maps(&b.Mounts[len(b.Mounts)-1])
			}
			if c.change != nil {
				c.change(b)
			}
			out, _ := b.run()
			if got := strings.Join(strings.Fields(out), " "); got != c.inside {
				t.Errorf("inside %q, want %q", got, c.inside)
			}
			if got := ownerOf(b.path("src/new")); got != c.outside {
				t.Errorf("a file made inside is %q, want %q", got, c.outside)
			}
		})
	}
}

// A file system that cannot be idmapped says so, with the field.
func TestIDMapRefused(t *testing.T) {
	testenv.Root(t)
	b := newBundle(t, "true")
	b.mount("bind", "/proc/sys", "/m", "bind,idmap")
	b.Mounts[len(b.Mounts)-1].UIDMappings = []specs.LinuxIDMapping{{Size: 10}}
	b.Mounts[len(b.Mounts)-1].GIDMappings = []specs.LinuxIDMapping{{Size: 10}}
	const want = "mounts[7].source: idmap /proc/sys: invalid argument"
	if _, _, err := b.tryRun(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
	if c, err := b.store.List(); err != nil || len(c) != 0 {
		t.Errorf("left behind: %v, %v", c, err)
	}
}

// ownerOf is a file's user and group, or empty where there is none.
func ownerOf(name string) string {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}
