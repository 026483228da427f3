package changeset

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

func openRoot(t testing.TB, dir string) *safepath.Root {
	t.Helper()
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// gardener makes trees and changes them at random.
type gardener struct {
	t   testing.TB
	rnd *rand.Rand
	top string
}

// must ends the test for an error that is none of those that random changes meet.
func (g *gardener) must(err error) {
	g.t.Helper()
	for _, usual := range []error{os.ErrExist, os.ErrNotExist, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL, unix.EPERM, unix.EXDEV, unix.ELOOP, unix.ENXIO} {
		if err == nil || errors.Is(err, usual) {
			return
		}
	}
	g.t.Fatal(err)
}

// name is one of a few, so that changes meet.
func (g *gardener) name() string {
	return []string{"a", "b", "c", "d.e", "a-b", "n\xffme", "spa ce", "z", "new\nline", "Ü"}[g.rnd.IntN(10)]
}

// path is a name some directories deep; few of them exist.
func (g *gardener) path() string {
	p := g.top
	for g.rnd.IntN(3) > 0 && len(p) < len(g.top)+40 {
		p += "/" + g.name()
		if st, err := os.Lstat(p); err != nil || !st.IsDir() {
			return p
		}
	}
	return p + "/" + g.name()
}

// touch gives a file attributes of all kinds.
func (g *gardener) touch(path string) {
	rnd := g.rnd
	if rnd.IntN(3) == 0 {
		g.must(os.Lchown(path, rnd.IntN(3), rnd.IntN(70000)))
	}
	st, err := os.Lstat(path)
	if err != nil {
		return
	}
	link := st.Mode()&os.ModeSymlink != 0
	if rnd.IntN(3) == 0 && !link {
		g.must(unix.Chmod(path, uint32(rnd.IntN(0o10000)|0o600)))
	}
	if rnd.IntN(3) == 0 && (st.Mode().IsRegular() || st.IsDir()) {
		g.must(unix.Setxattr(path, "user."+g.name()[:1], []byte{byte(rnd.IntN(256)), 0, '\n'}, 0))
	}
	if rnd.IntN(5) == 0 && !link {
		g.must(unix.Lsetxattr(path, "trusted.mine", []byte(g.name()), 0))
	}
	if rnd.IntN(8) == 0 && st.Mode().IsRegular() {
		g.must(unix.Setxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	}
	if rnd.IntN(2) == 0 {
		ts := unix.Timespec{Sec: rnd.Int64N(2e9) - 1e8, Nsec: rnd.Int64N(1e9)}
		g.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func (g *gardener) content() []byte {
	data := make([]byte, g.rnd.IntN(3000))
	for i := range data {
		data[i] = byte(g.rnd.IntN(4))
	}
	return data
}

// plant makes something new, or replaces what is there.
func (g *gardener) plant() {
	p := g.path()
	if g.rnd.IntN(2) == 0 {
		g.must(os.RemoveAll(p))
	}
	var err error
	switch g.rnd.IntN(9) {
	case 0, 1, 2:
		err = os.Mkdir(p, 0o755)
	case 3, 4:
		err = g.write(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY)
	case 5:
		err = os.Symlink(g.name(), p)
	case 6:
		err = os.Link(g.path(), p)
	case 7:
		err = unix.Mkfifo(p, 0o640)
	case 8:
		err = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(1+g.rnd.IntN(9)))))
	}
	g.must(err)
	if err == nil {
		g.touch(p)
	}
}

func (g *gardener) write(p string, flags int) error {
	f, err := os.OpenFile(p, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return err
	}
	if g.rnd.IntN(4) == 0 { // a hole
		if _, err := f.Seek(int64(g.rnd.IntN(20000)), 0); err != nil {
			return err
		}
	}
	_, err = f.Write(g.content())
	return err
}

// change does one thing of those that people do.
func (g *gardener) change() {
	p := g.path()
	switch g.rnd.IntN(9) {
	case 0:
		g.must(os.RemoveAll(p))
	case 1:
		g.must(os.Remove(p))
	case 2:
		g.must(os.Rename(p, g.path()))
	case 3:
		g.must(g.write(p, os.O_WRONLY))
	case 4:
		g.must(g.write(p, os.O_WRONLY|os.O_APPEND))
	case 5:
		if _, err := os.Lstat(p); err == nil {
			g.touch(p)
		}
	case 6: // empty a directory and fill it again: opaque in overlayfs
		if st, err := os.Lstat(p); err == nil && st.IsDir() {
			g.must(os.RemoveAll(p))
			g.must(os.Mkdir(p, 0o711))
			g.must(g.write(p+"/"+g.name(), os.O_CREATE|os.O_EXCL|os.O_WRONLY))
			g.must(os.Mkdir(p+"/"+g.name(), 0o711))
		}
	case 7: // rewrite with what is there
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			g.must(err)
			g.must(os.WriteFile(p, data, 0))
		}
	default:
		g.plant()
	}
}

// archiveOf writes a set.
func archiveOf(t testing.TB, set *Set, root *safepath.Root, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := set.Write(t.Context(), root, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func applyTo(t testing.TB, dir string, archive []byte) {
	t.Helper()
	if _, err := layer.Apply(t.Context(), bytes.NewReader(archive), openRoot(t, dir), layer.Options{Devices: layer.DevicesCreate}); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a tree with all attributes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

func recordOf(t testing.TB, dir string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	if err := Scan(t.Context(), openRoot(t, dir), &b); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

// TestRandomFlat: a copy of a tree, and the layer of what has happened to the tree since, give the tree.
func TestRandomFlat(t *testing.T) {
	testenv.Root(t)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			g := &gardener{t, rand.New(rand.NewPCG(seed, 1)), filepath.Join(dir, "tree")}
			g.must(os.Mkdir(g.top, 0o755))
			for range 60 {
				g.plant()
			}
			record := recordOf(t, g.top)
			copyTree(t, g.top, dir+"/copy")
			for range g.rnd.IntN(30) {
				g.change()
			}
			root := openRoot(t, g.top)
			set, err := Compare(t.Context(), root, record, Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := testenv.Tree(t, g.top)
			if same := fmt.Sprint(testenv.Tree(t, dir+"/copy")) == fmt.Sprint(want); set.Empty() && !same {
				t.Error("nothing seen of the changes")
			}
			checkNoVainWhiteouts(t, set, dir+"/copy")
			applyTo(t, dir+"/copy", archiveOf(t, set, root, Options{}))
			testenv.SameTree(t, testenv.Tree(t, dir+"/copy"), want, "applied", "changed")
			if t.Failed() {
				for _, c := range set.Changes() {
					t.Logf("%v %q", c.Kind, c.Name)
				}
			}
		})
	}
}

// checkNoVainWhiteouts: nothing is deleted that was not there.
func checkNoVainWhiteouts(t *testing.T, set *Set, before string) {
	t.Helper()
	for _, c := range set.Changes() {
		if _, err := os.Lstat(filepath.Join(before, c.Name)); c.Kind == Deleted && err != nil {
			t.Errorf("whiteout of %q: %v", c.Name, err)
		}
	}
}

// TestRandomOverlay: the same for what overlayfs makes of the changes, over two layers.
func TestRandomOverlay(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testRandomOverlay(t, seed) })
	}
}

func testRandomOverlay(t *testing.T, seed uint64) {
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 64<<20) // whose files can be below and above
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"bottom", "middle", "work1", "merged1", "upper", "work2", "merged2"} {
		if err := os.Mkdir(path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := &gardener{t, rand.New(rand.NewPCG(seed, 2)), path("bottom")}
	for range 60 {
		g.plant()
	}
	mount := func(lower, upper, work, target string) func() {
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=off,metacopy=off,index=off", lower, upper, work)
		if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := unix.Unmount(target, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	change := func(target string) {
		g.top = target
		for range g.rnd.IntN(30) {
			g.change()
		}
	}
	unmount := mount(path("bottom"), path("middle"), path("work1"), path("merged1"))
	change(path("merged1"))
	copyTree(t, path("merged1"), path("copy"))
	unmount()
	unmount = mount(path("middle")+":"+path("bottom"), path("upper"), path("work2"), path("merged2"))
	defer unmount()
	var top unix.Stat_t
	if err := unix.Stat(path("middle"), &top); err != nil {
		t.Fatal(err)
	}
	if err := unix.UtimesNano(path("upper"), []unix.Timespec{top.Atim, top.Mtim}); err != nil {
		t.Fatal(err)
	}
	change(path("merged2"))
	want := testenv.Tree(t, path("merged2"))

	upper := openRoot(t, path("upper"))
	set, err := CompareUpper(t.Context(), upper, []*safepath.Root{openRoot(t, path("middle")), openRoot(t, path("bottom"))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkNoVainWhiteouts(t, set, path("copy"))
	applyTo(t, path("copy"), archiveOf(t, set, upper, Options{}))
	testenv.SameTree(t, testenv.Tree(t, path("copy")), want, "applied", "changed")
	if t.Failed() {
		for _, c := range set.Changes() {
			t.Logf("%v %q", c.Kind, c.Name)
		}
	}
}
