package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// What an image has in the place of devices and of directories that the runtime
// fills leads nobody out of the root, and uncovers nothing.
func TestImageWithTraps(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const masked = "wc -c </secret; stat -c '%t,%T' /secret"
	// Without a /dev of the container's own, that of the image is filled.
	ownDev := func(b *bundle) {
		b.Mounts = b.Mounts[:1]
		b.write("rootfs/secret", "text", 0o644)
		b.Linux.MaskedPaths = []string{"/secret"}
	}
	for _, c := range []struct {
		name   string
		script string
		trap   func(b *bundle)
		want   string // printed, or else of the error
		fails  bool
	}{
		{name: "null device is a link to a file of the host", script: masked, want: lines("0", "1,3"),
			trap: func(b *bundle) { ownDev(b); b.symlink(b.path("host/file"), "rootfs/dev/null") }},
		{name: "null device is a link to a file of the image", script: masked, want: lines("0", "1,3"),
			trap: func(b *bundle) { ownDev(b); b.symlink("../secret", "rootfs/dev/null") }},
		{name: "null device is a file", script: masked + "; stat -c %F /dev/null", want: lines("0", "1,3", "regular file"),
			trap: func(b *bundle) { ownDev(b); b.write("rootfs/dev/null", "not null", 0o644) }},
		{name: "configured device is a file", script: masked, fails: true, want: `linux.devices[0].path: "/dev/null" is another file`,
			trap: func(b *bundle) {
				ownDev(b)
				b.write("rootfs/dev/null", "not null", 0o644)
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}}
			}},
		{name: "configured device is there", script: "stat -c '%t,%T %a' /dev/x; stat -c %a /pipe", want: lines("1,3 600", "640"),
			trap: func(b *bundle) {
				ownDev(b)
				b.mkdir("rootfs/dev")
				if err := unix.Mknod(b.path("rootfs/dev/x"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
					b.t.Fatal(err)
				}
				if err := unix.Mkfifo(b.path("rootfs/pipe"), 0o640); err != nil {
					b.t.Fatal(err)
				}
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}, {Path: "/pipe", Type: "p"}}
			}},
		{name: "dev is a link to the host", script: masked + "; readlink /dev/ptmx", want: lines("0", "1,3", "pts/ptmx"),
			trap: func(b *bundle) {
				ownDev(b)
				b.symlink(b.path("host"), "rootfs/dev")
				b.mkdir("rootfs" + b.path("host"))
			}},
		{name: "dev is a link to where nothing is", script: masked, fails: true, want: "(linux.devices)",
			trap: func(b *bundle) { ownDev(b); b.symlink(b.path("host"), "rootfs/dev") }},
		{name: "dev is a link, with a tmpfs on it", script: "stat -c %F /dev/null; ls /dev/ | grep -c null; ls -d /host", want: lines("character special file", "1", "/host"),
			trap: func(b *bundle) { b.symlink("/host", "rootfs/dev") }},
		{name: "ptmx is a file", script: "readlink /dev/ptmx", want: "pts/ptmx",
			trap: func(b *bundle) { ownDev(b); b.write("rootfs/dev/ptmx", "", 0o644) }},
		{name: "a device below a link to the host", script: "ls /l/", fails: true, want: "linux.devices[0]",
			trap: func(b *bundle) {
				b.symlink(b.path("host"), "rootfs/l")
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/l/x", Type: "p"}}
			}},
		{name: "a mount below a link to the host", script: "ls /l/", want: "x",
			trap: func(b *bundle) { b.symlink(b.path("host"), "rootfs/l"); b.mount("tmpfs", "tmpfs", "/l/x", "") }},
		{name: "masked and read-only paths are links to the host", script: "cat /l/file 2>&1 | grep -c 'No such file'", want: "1",
			trap: func(b *bundle) {
				b.symlink(b.path("host"), "rootfs/l")
				b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = []string{"/l", "/l/file"}, []string{"/l", "/l/file"}
			}},
		{name: "working directory is a link to the host", script: "pwd", fails: true, want: "(process.cwd)",
			trap: func(b *bundle) { b.symlink(b.path("host"), "rootfs/l"); b.Process.Cwd = "/l" }},
		{name: "sys is a link", script: "true", fails: true, want: "too many levels of symbolic links (mounts[5].destination)",
			trap: func(b *bundle) { b.symlink(b.path("host"), "rootfs/sys") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, c.script)
			b.write("host/file", "of the host", 0o600)
			c.trap(b)
			out, _, err := b.tryRun(t.Context())
			switch {
			case c.fails && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v and %q, want an error with %q", err, out, c.want)
			case !c.fails && (err != nil || out != c.want):
				t.Errorf("got %v, printed\n%s\nwant\n%s", err, out, c.want)
			}
			b.hostIsUntouched()
		})
	}
}

// hostIsUntouched fails the test unless the directory "host" of the bundle has
// just the one file that the test put there.
func (b *bundle) hostIsUntouched() {
	b.t.Helper()
	entries, err := os.ReadDir(b.path("host"))
	if err != nil || len(entries) != 1 {
		b.t.Errorf("something was made outside of the root: %v, %v", entries, err)
	}
	if data, err := os.ReadFile(b.path("host/file")); string(data) != "of the host" {
		b.t.Errorf("a file outside of the root has %q, %v", data, err)
	}
}

// A terminal's place in the image is a link: nothing is mounted where it leads
// (CVE-2025-52565).
func TestConsoleIsALink(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.write("host/file", "of the host", 0o600)
	b.Mounts = append(b.Mounts[:1:1], b.Mounts[2]) // proc, and the devpts of /dev/pts, without a /dev
	b.symlink("/proc/sys", "rootfs/dev/console")
	b.Process.Terminal = true
	b.save()
	o := b.options(nil)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	o.Console = func() (*os.File, error) { return os.NewFile(uintptr(pair[1]), "console"), nil }
	_, err = b.store.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links (process.terminal)") {
		t.Errorf("got %v", err)
	}
}

// An attacker in a volume that the container shares puts a link to the host in
// the place of a directory and back, while the runtime makes mount points,
// device nodes and a working directory below it (CVE-2021-30465, CVE-2024-45310).
func TestDirectoryIsSwappedForALink(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "grep -c ' - tmpfs trap ' /proc/self/mountinfo")
	b.write("host/file", "of the host", 0o600)
	b.write("f", "", 0o644)
	b.mount("bind", "", "/v", "bind")
	b.mount("tmpfs", "trap", "/v/x/mount/point", "")
	b.mount("bind", "f", "/v/x/other/file", "bind")
	b.Linux.Devices = []specs.LinuxDevice{{Path: "/v/x/dev/pipe", Type: "p"}}
	b.Linux.MaskedPaths = append(b.Linux.MaskedPaths, "/v/x/other/file")
	b.Process.Cwd = "/v/x/cwd"

	var volume atomic.Pointer[string]
	stop := make(chan struct{})
	swapped := make(chan int)
	go func() {
		n := 0
		defer func() { swapped <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if v := volume.Load(); v != nil && unix.Renameat2(unix.AT_FDCWD, *v+"/x", unix.AT_FDCWD, *v+"/link", unix.RENAME_EXCHANGE) == nil {
				n++
			}
		}
	}()
	made, failed, runs := 0, 0, 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); runs++ {
		// Each time nothing is made yet.
		name := fmt.Sprintf("volume%d", runs)
		b.mkdir(name + "/x")
		b.symlink(b.path("host"), name+"/link")
		v := b.path(name)
		volume.Store(&v)
		b.Mounts[7].Source = v
		out, _, err := b.tryRun(t.Context())
		if err != nil {
			failed++
			continue
		}
		made++
		if out != "1" {
			t.Errorf("the container's mount is there %s times", out)
		}
	}
	close(stop)
	t.Logf("%d containers were made, %d failed, %d swaps", made, failed, <-swapped)
	b.hostIsUntouched()
}

// Whoever can connect to a container's socket can start it, and a caller's
// umask may give that to all; nobody else gets into its directory.
func TestStateIsPrivate(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.create()
	info, err := os.Stat(filepath.Join(b.store.Root, b.id))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}
