package runtimecli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// What runc makes of mounts and devices, the container sees under
// tare-runtime, too: mount points, the options of mounts and file systems,
// propagation, and the files that are there.
func TestMountsAsUnderRunc(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	// Not compared: the root's propagation, which was another before runc 1.4, whether the superblock of a sysfs is
	// read-only as well, and whether a tmpfs has its permissions as an option or later.
	const look = `cut -d' ' -f5- /proc/self/mountinfo | sed 's/:[0-9]*//g; s,^\(/ [^ ]*\) master,\1,; s/sysfs ro$/sysfs rw/; s/\(tmpfs .*\),mode=.*/\1/' | grep -E '^/(|[a-z]|x/[^ ]*|var/[^ ]*|run|proc|sys) ' | sort
		for f in /f /x/* /run /run/* /pipe /dev/ptmx /dev/n /dev/sub/*; do stat -c '%n %F %a %u:%g %t,%T' $f 2>/dev/null; done; true`
	bind := func(options string) specs.Mount {
		return specs.Mount{Type: "bind", Source: "src", Destination: "/d", Options: strings.Split(options, ",")}
	}
	tmpfs := func(destination, options string) specs.Mount {
		return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: destination, Options: strings.Split(options, ",")}
	}
	mode := func(m os.FileMode) *os.FileMode { return &m }
	id := func(n uint32) *uint32 { return &n }
	for _, c := range []struct {
		name    string
		mounts  []specs.Mount
		change  func(*specs.Spec)
		options []string // of run
	}{
		{name: "bind", mounts: []specs.Mount{bind("rbind")}},
		{name: "bind, read-only", mounts: []specs.Mount{bind("rbind,ro,nosuid,nodev")}},
		{name: "bind, recursively", mounts: []specs.Mount{bind("rbind,rro,rnoexec")}},
		{name: "bind, as podman", mounts: []specs.Mount{bind("rbind,rprivate,rw,nosuid,noexec,nodev,relatime")}},
		{name: "bind, several propagations", mounts: []specs.Mount{bind("rbind,rslave,rshared")}},
		{name: "bind, unbindable", mounts: []specs.Mount{bind("bind,unbindable")}},
		{name: "bind, relative, of a file", mounts: []specs.Mount{{Type: "bind", Source: "src/f", Destination: "/f", Options: []string{"bind", "ro"}}}},
		{name: "tmpfs", mounts: []specs.Mount{tmpfs("/t", "nosuid,noexec,size=1m,mode=711")}},
		{name: "tmpfs over a directory", mounts: []specs.Mount{tmpfs("/run", "size=1m")}},
		{name: "tmpfs, a copy", mounts: []specs.Mount{tmpfs("/run", "tmpcopyup,size=1m")}},
		{name: "tmpfs, a read-only copy", mounts: []specs.Mount{tmpfs("/run", "ro,tmpcopyup,size=1m")}},
		{name: "tmpfs, superblock flags", mounts: []specs.Mount{tmpfs("/t", "sync,dirsync,lazytime")}},
		{name: "tmpfs, access times", mounts: []specs.Mount{tmpfs("/t", "strictatime,nodiratime")}},
		{name: "tmpfs, shared", mounts: []specs.Mount{tmpfs("/t", "rshared")}},
		{name: "behind a link", mounts: []specs.Mount{tmpfs("/var/run", "size=1m"), tmpfs("/var/run/sub/dir", "size=1m")}},
		{name: "in each other", mounts: []specs.Mount{tmpfs("/x", "size=1m,ro"), tmpfs("/x/y", "size=2m"), {Type: "bind", Source: "src/f", Destination: "/x/z", Options: []string{"bind"}}}},
		{name: "remount", mounts: []specs.Mount{tmpfs("/t", "size=1m"), {Type: "tmpfs", Source: "tmpfs", Destination: "/t", Options: []string{"remount", "ro", "size=2m", "mode=711"}}}},
		{name: "remount of a bind mount", mounts: []specs.Mount{bind("bind"), {Type: "none", Source: "src", Destination: "/d", Options: []string{"remount", "bind", "ro", "noexec"}}}},
		{name: "private root", mounts: []specs.Mount{bind("rbind")}, change: func(s *specs.Spec) { s.Linux.RootfsPropagation = "rprivate" }},
		{name: "read-only root", change: func(s *specs.Spec) { s.Root.Readonly = true }},
		{name: "without pivot", options: []string{"--no-pivot"}},
		{name: "devices", change: func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/n", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o2640), UID: id(3), GID: id(4)},
				{Path: "/dev/sub/p", Type: "p", FileMode: mode(0o600)}, {Path: "/pipe", Type: "p"},
				{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, look)
			b.sources()
			b.Version = "1.0.2"
			b.Mounts = append(b.Mounts, c.mounts...)
			if c.change != nil {
				c.change(b.Spec)
			}
			ours, theirs := b.under("tare-runtime", c.options), b.under(testenv.Tool(t, "runc"), c.options)
			if ours != theirs {
				t.Errorf("under runc:\n%s\nunder ours:\n%s", theirs, ours)
			}
		})
	}
}

// sources puts into the bundle what the mounts of a test are about.
func (b *bundle) sources() {
	b.t.Helper()
	for _, dir := range []string{"src/sub", "rootfs/run/a", "rootfs/var"} {
		if err := os.MkdirAll(filepath.Join(b.dir, dir), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"src/f": 0o640, "rootfs/run/f": 0o604} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte("text\n"), mode); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(b.dir, "rootfs/run"), 0o751); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink("../run", filepath.Join(b.dir, "rootfs/var/run")); err != nil {
		b.t.Fatal(err)
	}
	// Sources with mounts below them, and peers elsewhere.
	testenv.Tmpfs(b.t, filepath.Join(b.dir, "src/sub"), 1<<20)
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		b.t.Fatal(err)
	}
}

// under runs the container under a runtime and returns what it prints.
func (b *bundle) under(runtime string, options []string) string {
	b.t.Helper()
	if err := writeConfig(b.dir, b.Spec); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(runtime, append(append([]string{"--root", b.root, "run"}, options...), b.id)...)
	cmd.Dir = b.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}
