package safepath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sandbox is a root directory with a sibling full of things that nobody may reach or change.
func sandbox(t *testing.T) (root *Root, dir, outside string) {
	t.Helper()
	top := t.TempDir()
	dir, outside = filepath.Join(top, "root"), filepath.Join(top, "outside")
	must(t, os.Mkdir(dir, 0o755), os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	root, err := OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(b) != "secret" {
			t.Errorf("the file outside was changed: %q, %v", b, err)
		}
		if e, err := os.ReadDir(outside); err != nil || len(e) != 1 {
			t.Errorf("the directory outside was changed: %v, %v", e, err)
		}
	})
	return root, dir, outside
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenStaysInside(t *testing.T) {
	root, dir, outside := sandbox(t)
	must(t,
		os.MkdirAll(filepath.Join(dir, "etc"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root"), 0o644),
		os.Symlink("/etc/passwd", filepath.Join(dir, "abs")),
		os.Symlink("../../../../etc/passwd", filepath.Join(dir, "up")),
		os.Symlink(outside, filepath.Join(dir, "out")),
		os.Symlink("/proc/self/root", filepath.Join(dir, "magic")),
	)
	for _, name := range []string{"etc/passwd", "/etc/passwd", "abs", "up", "../../etc/passwd"} {
		if b, err := root.ReadFile(name, 4); err != nil || string(b) != "root" {
			t.Errorf("ReadFile(%q) = %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"out/secret", "../outside/secret", filepath.Join(outside, "secret")} {
		if b, err := root.ReadFile(name, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadFile(%q) = %q, %v", name, b, err)
		}
	}
	for name, want := range map[string]error{"abs": unix.ELOOP, "out/secret": unix.ELOOP, "../outside": unix.EXDEV, "/etc": unix.EXDEV} {
		if f, err := root.OpenBeneath(name, unix.O_PATH, 0); !errors.Is(err, want) {
			t.Errorf("OpenBeneath(%q) = %v, %v; want %v", name, f, err, want)
		}
	}
	if _, _, err := root.OpenParent("."); err == nil {
		t.Error("the root has a parent")
	}
	f, base, err := root.OpenParent("etc/passwd")
	must(t, err)
	defer f.Close()
	if base != "passwd" {
		t.Errorf("base %q", base)
	}
}

func TestMagicLinksAreNotFollowed(t *testing.T) {
	root, err := OpenRoot("/proc/self")
	must(t, err)
	defer root.Close()
	for _, name := range []string{"root/etc", "cwd/.", "fd/" + "0"} {
		if f, err := root.Open(name, unix.O_PATH, 0); err == nil {
			t.Errorf("opened %q: %s", name, f.Name())
		}
	}
}

func TestReadFileRefuses(t *testing.T) {
	root, dir, _ := sandbox(t)
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644), os.Mkdir(filepath.Join(dir, "d"), 0o755),
		os.WriteFile(filepath.Join(dir, "big"), make([]byte, 11), 0o644))
	for name, want := range map[string]string{"fifo": "not a regular file", "d": "not a regular file", "big": "larger than 10 bytes", "none": "no such file"} {
		if _, err := root.ReadFile(name, 10); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("ReadFile(%q): %v, want %q", name, err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	root, dir, outside := sandbox(t)
	must(t,
		os.MkdirAll(filepath.Join(dir, "etc"), 0o755),
		os.MkdirAll(filepath.Join(dir, "run"), 0o755),
		os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc/file"), nil, 0o644),
		os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(dir, "etc/resolv.conf")),
		os.Symlink("usr/bin", filepath.Join(dir, "bin")),
		os.Symlink("/bin/tool", filepath.Join(dir, "etc/tool")),
		os.Symlink(outside+"/secret", filepath.Join(dir, "etc/out")),
		os.Symlink("../../../../x", filepath.Join(dir, "etc/up")),
		os.Symlink("/", filepath.Join(dir, "slash")),
		os.Symlink("b", filepath.Join(dir, "a")),
		os.Symlink("a", filepath.Join(dir, "b")),
	)
	for name, want := range map[string]string{
		"/etc/resolv.conf":            "run/systemd/resolve/stub-resolv.conf",
		"etc/file":                    "etc/file",
		"/":                           ".",
		".":                           ".",
		"bin":                         "usr/bin",
		"/bin/sh":                     "usr/bin/sh",
		"etc/tool":                    "usr/bin/tool",
		"etc/out":                     strings.TrimPrefix(outside, "/") + "/secret",
		"etc/up":                      "x",
		"../../etc/../bin/x":          "usr/bin/x",
		"new/dir/../../bin/x":         "usr/bin/x",
		"new/dir/../other":            "new/other",
		"slash/slash/bin/a/../../etc": "usr/etc",
		"bin/..":                      "usr",
	} {
		if got, err := root.Resolve(name); err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]error{"a": unix.ELOOP, "b/c": unix.ELOOP, "etc/file/x": unix.ENOTDIR} {
		if got, err := root.Resolve(name); !errors.Is(err, want) {
			t.Errorf("Resolve(%q) = %q, %v; want %v", name, got, err, want)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	root, dir, outside := sandbox(t)
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644), os.Symlink("/run/lock", filepath.Join(dir, "lock")),
		os.Symlink(outside+"/new", filepath.Join(dir, "out")))
	for name, made := range map[string]string{
		"a/b/c": "a/b/c", "/a/b": "a/b", "lock/x": "run/lock/x", "out": outside + "/new", "../up": "up",
	} {
		f, err := root.MkdirAll(name, 0o755)
		must(t, err)
		var got, want unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &got), unix.Stat(filepath.Join(dir, made), &want), f.Close())
		if got.Ino != want.Ino || got.Mode&0o777 != 0o755 {
			t.Errorf("MkdirAll(%q) made another directory than %q, or its mode %o is wrong", name, made, got.Mode)
		}
	}
	if _, err := root.MkdirAll("file/x", 0o755); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("directory in a file: %v", err)
	}
}

func TestRemoveAll(t *testing.T) {
	root, dir, outside := sandbox(t)
	tree := filepath.Join(dir, "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "a/b"), 0o755), os.WriteFile(filepath.Join(tree, "a/b/f"), nil, 0o000),
		os.Symlink(outside, filepath.Join(tree, "out")), os.Symlink("tree", filepath.Join(dir, "link")))
	// One thread may hold far fewer descriptors than this tree is deep.
	deep := 3000
	fd, err := OpenAt(root.FD(), "tree", unix.O_PATH, 0, Beneath)
	must(t, err)
	for range deep {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := OpenAt(fd, "d", unix.O_PATH, 0, Beneath)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if err := root.RemoveAll("link/a"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a link: %v", err)
	}
	for _, bad := range []string{".", "/", "../outside", ""} {
		if err := root.RemoveAll(bad); err == nil {
			t.Errorf("RemoveAll(%q) succeeded", bad)
		}
	}
	must(t, root.RemoveAll("link"), root.RemoveAll("tree"), root.RemoveAll("none/at/all"))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRemoveAllWide(t *testing.T) {
	root, dir, _ := sandbox(t)
	must(t, os.Mkdir(filepath.Join(dir, "w"), 0o755))
	for i := range 3*readNames + 1 {
		must(t, os.Mkdir(filepath.Join(dir, "w", "d"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+time.Duration(i).String()), 0o755))
	}
	must(t, root.RemoveAll("w"))
	if _, err := os.Lstat(filepath.Join(dir, "w")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestRaces has a process that swaps a directory for a link that leads outside, over and over, while each operation runs.
// They may fail, but nothing outside may be read, made or removed (sandbox checks it at the end).
func TestRaces(t *testing.T) {
	root, dir, outside := sandbox(t)
	must(t, os.MkdirAll(filepath.Join(dir, "a/victim"), 0o755), os.Symlink(outside, filepath.Join(dir, "evil")))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "a/victim"), unix.AT_FDCWD, filepath.Join(dir, "evil"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if b, err := root.ReadFile("a/victim/secret", 100); err == nil {
			t.Fatalf("read %q", b)
		}
		if f, err := root.OpenBeneath("a/victim", unix.O_PATH, 0); err == nil {
			if _, err := OpenAt(int(f.Fd()), "secret", unix.O_PATH, 0, Beneath); err == nil {
				t.Fatal("opened the file outside")
			}
			f.Close()
		}
		if f, err := root.MkdirAll("a/victim/x/y", 0o755); err == nil {
			f.Close()
		}
		root.RemoveAll("a/victim/x")
		root.RemoveAll("a/victim/secret")
	}
	close(stop)
	<-stopped
}
