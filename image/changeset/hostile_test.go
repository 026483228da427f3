package changeset

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

func rootsOf(t testing.TB, dirs ...string) (roots []*safepath.Root) {
	for _, d := range dirs {
		roots = append(roots, openRoot(t, d))
	}
	return roots
}

// TestChangedBetween: what is not what it was when it was looked at is an error that names it, and never read.
func TestChangedBetween(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for what, change := range map[string]step{
		"grown":             func(t *testing.T, d string) { check(t, os.WriteFile(d+"/d/f", []byte("more than before"), 0)) },
		"shrunk":            func(t *testing.T, d string) { check(t, os.Truncate(d+"/d/f", 1)) },
		"other content":     func(t *testing.T, d string) { check(t, os.WriteFile(d+"/d/f", []byte("CONTENT"), 0)) },
		"gone":              do(remove, "d/f"),
		"symbolic link":     func(t *testing.T, d string) { steps(t, d, do(remove, "d/f")); check(t, os.Symlink(secret, d+"/d/f")) },
		"pipe":              func(t *testing.T, d string) { steps(t, d, do(remove, "d/f")); check(t, unix.Mkfifo(d+"/d/f", 0o644)) },
		"another file":      func(t *testing.T, d string) { check(t, os.Rename(d+"/d/g", d+"/d/f")) },
		"directory by link": func(t *testing.T, d string) { check(t, os.Rename(d+"/d", d+"/e")); check(t, os.Symlink("e", d+"/d")) },
		"directory gone":    do(remove, "d"),
		"mode":              do(chmod(0o600), "d/f"),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			record := recordOf(t, dir)
			steps(t, dir, write("d/f", "content"), write("d/g", "another"))
			root := openRoot(t, dir)
			set, err := Compare(t.Context(), root, record, Options{})
			check(t, err)
			time.Sleep(12 * time.Millisecond) // a tick of the file system's clock
			change(t, dir)
			err = set.Write(t.Context(), root, io.Discard, Options{})
			if !errors.Is(err, ErrChanging) || !strings.Contains(err.Error(), `"d`) && !strings.Contains(err.Error(), `"."`) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// growing is written to while it is read.
type growing struct {
	path string
	once sync.Once
}

func (g *growing) Write(p []byte) (int, error) {
	g.once.Do(func() {
		time.Sleep(12 * time.Millisecond)
		f, err := os.OpenFile(g.path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, _ = f.WriteString("more")
			f.Close()
		}
	})
	return len(p), nil
}

func TestGrowsWhileRead(t *testing.T) {
	dir := t.TempDir()
	record := recordOf(t, dir)
	steps(t, dir, write("f", strings.Repeat("x", 1<<20)))
	root := openRoot(t, dir)
	set, err := Compare(t.Context(), root, record, Options{})
	check(t, err)
	if err := set.Write(t.Context(), root, &growing{path: dir + "/f"}, Options{}); !errors.Is(err, ErrChanging) || !strings.Contains(err.Error(), `"f"`) {
		t.Errorf("error %v", err)
	}
}

// TestRacingTree: somebody swaps directories and links while the tree is walked and written. It comes to an error or an
// archive, and nothing of what the links lead to is in it.
func TestRacingTree(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(outside+"/f", []byte("SECRET"), 0o600))
	record := recordOf(t, dir)
	for _, d := range []string{"a", "b", "c"} {
		steps(t, dir, write(d+"/f", "public"), write(d+"/g/f", "public"))
	}
	check(t, os.Symlink(outside, dir+"/link"))
	ctx, stop := context.WithCancel(t.Context())
	var racer sync.WaitGroup
	racer.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, dir+"/b", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE)
		}
	})
	defer racer.Wait()
	defer stop()
	root := openRoot(t, dir)
	wrote := 0
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		set, err := Compare(t.Context(), root, record, Options{})
		var b bytes.Buffer
		if err == nil {
			err = set.Write(t.Context(), root, &b, Options{})
		}
		if err == nil {
			wrote++
		} else if !errors.Is(err, ErrChanging) {
			t.Fatal(err)
		}
		if bytes.Contains(b.Bytes(), []byte("SECRET")) {
			t.Fatal("a file outside of the tree was read")
		}
	}
	t.Logf("%d archives written", wrote)
}

// TestMountPoints: another file system in the tree is not read.
func TestMountPoints(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	steps(t, dir, do(mkdir, "mnt"))
	record := recordOf(t, dir)
	testenv.Tmpfs(t, dir+"/mnt", 1<<20)
	if _, err := Compare(t.Context(), openRoot(t, dir), record, Options{}); !errors.Is(err, ErrMountPoint) || !strings.Contains(err.Error(), `"mnt"`) {
		t.Errorf("error %v", err)
	}
	if set, err := Compare(t.Context(), openRoot(t, dir), record, Options{Mask: []string{"mnt"}}); err != nil || !set.Empty() {
		t.Errorf("masked: %v, %v", set, err)
	}
}

func TestUnrepresentable(t *testing.T) {
	testenv.Root(t)
	for what, c := range map[string]struct {
		make step
		name string
	}{
		"whiteout's name": {write("d/.wh.x", ""), `"d/.wh.x"`},
		"opaque's name":   {write(".wh..wh..opq", ""), `".wh..wh..opq"`},
		"null device":     {do(func(p string) error { return unix.Mknod(p, unix.S_IFCHR, 0) }, "n"), `"n"`},
		"too deep": {func(t *testing.T, dir string) {
			long := strings.Repeat("x", 250)
			fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
			check(t, err)
			for range 20 {
				check(t, unix.Mkdirat(fd, long, 0o755))
				next, err := unix.Openat(fd, long, unix.O_DIRECTORY, 0)
				check(t, err)
				unix.Close(fd)
				fd = next
			}
			unix.Close(fd)
		}, `"xxx`},
	} {
		dir := t.TempDir()
		record := recordOf(t, dir)
		c.make(t, dir)
		root := openRoot(t, dir)
		set, err := Compare(t.Context(), root, record, Options{})
		if err == nil {
			err = set.Write(t.Context(), root, io.Discard, Options{})
		}
		if err == nil || !strings.Contains(err.Error(), c.name) || len(err.Error()) > 1000 {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestUnreadable: a file that we may not read is an error that names it.
func TestUnreadable(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o755))
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		check(t, os.Chmod(d, 0o755))
	}
	record := recordOf(t, dir)
	steps(t, dir, write("d/f", "x"), do(chmod(0o600), "d/f"))
	done := make(chan error)
	go func() { // on a thread that ends with it
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			done <- err
			return
		}
		root, err := safepath.OpenRoot(dir)
		if err == nil {
			var set *Set
			if set, err = Compare(context.Background(), root, record, Options{}); err == nil {
				err = set.Write(context.Background(), root, io.Discard, Options{})
			}
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), `"d/f"`) {
		t.Errorf("error %v", err)
	}
}

// TestClosedDirectory: a tree whose owner may not enter one of its directories has a record, and is compared with it.
func TestClosedDirectory(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		check(t, os.Chmod(d, 0o755))
	}
	steps(t, dir, write("closed/f", "x"), do(chmod(0), "closed"), write("open/f", "x"))
	check(t, os.Lchown(dir+"/closed", 65534, 65534))
	root := openRoot(t, dir)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var record bytes.Buffer
		err := unix.Setfsuid(65534)
		if err == nil {
			err = Scan(context.Background(), root, &record)
		}
		var warned int
		if err == nil {
			var set *Set
			set, err = Compare(context.Background(), root, bytes.NewReader(record.Bytes()), Options{Warn: func(string) { warned++ }})
			if err == nil && (!set.Empty() || warned != 1) {
				err = errors.New("changes, or no warning: " + listing(set))
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzRecord: any record is read to an error or to its end.
func FuzzRecord(f *testing.F) {
	dir := f.TempDir()
	check(f, os.MkdirAll(dir+"/a/b", 0o755))
	check(f, os.WriteFile(dir+"/a/c", []byte("x"), 0o644))
	good := recordOf(f, dir)
	data, err := io.ReadAll(good)
	check(f, err)
	f.Add(data[:len(data)-4])
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := castagnoli()
		sum.Write(data)
		set, err := Compare(t.Context(), openRoot(t, dir), bytes.NewReader(append(data, sum.Sum(nil)...)), Options{})
		if err != nil && !strings.Contains(err.Error(), "record") {
			t.Errorf("error %v", err)
		}
		if err == nil {
			_ = set.Write(t.Context(), openRoot(t, dir), io.Discard, Options{})
		}
	})
}

// TestDamagedRecord: cut or changed anywhere, it is refused.
func TestDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	steps(t, dir, write("a/b", "x"), write("c", "x"))
	good, err := io.ReadAll(recordOf(t, dir))
	check(t, err)
	root := openRoot(t, dir)
	for i := range good {
		changed := bytes.Clone(good)
		changed[i] ^= 0x41
		for what, data := range map[string][]byte{"cut": good[:i], "changed": changed} {
			if _, err := Compare(t.Context(), root, bytes.NewReader(data), Options{}); err == nil {
				t.Errorf("%s at byte %d: taken", what, i)
			}
		}
	}
}

// TestOrder: directories come before what is in them, deletions first.
func TestOrder(t *testing.T) {
	names := []Change{{Name: "."}, {Name: "z", Kind: Deleted}, {Name: "a"}, {Name: "a/y", Kind: Deleted}, {Name: "a/b"}, {Name: "a/b/c"}, {Name: "a-b"}, {Name: "a.b"}, {Name: "b"}}
	for i := range names {
		for j := range names {
			got := compareChanges(&names[i], &names[j])
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%v %s and %v %s compare as %d", names[i].Kind, names[i].Name, names[j].Kind, names[j].Name, got)
			}
		}
	}
}
