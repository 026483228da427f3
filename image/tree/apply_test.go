package tree_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/tree"
	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

// kinds are the types of files as both sides have them.
var kinds = map[byte]uint32{tarstream.TypeReg: unix.S_IFREG, tarstream.TypeDir: unix.S_IFDIR, tarstream.TypeSymlink: unix.S_IFLNK,
	tarstream.TypeChar: unix.S_IFCHR, tarstream.TypeBlock: unix.S_IFBLK, tarstream.TypeFifo: unix.S_IFIFO}

// ofTree describes a tree, one line for each name.
func ofTree(t *tree.Tree) map[string]string {
	lines := map[string]string{}
	names := map[*tree.File][]string{}
	for n := range t.Root().All() {
		f := n.File()
		line := fmt.Sprintf("%o %o %d:%d", kinds[f.Type], f.Mode, f.UID, f.GID)
		if n.Name() != "." || !f.Implied { // the root's time is the test directory's
			line += fmt.Sprintf(" %d.%09d", f.ModTime.Sec, f.ModTime.Nsec)
		}
		switch f.Type {
		case tarstream.TypeReg:
			line += fmt.Sprintf(" %d %x", f.SizeBytes, *f.Sum)
		case tarstream.TypeSymlink:
			line += " " + f.Linkname
		case tarstream.TypeChar, tarstream.TypeBlock:
			line += fmt.Sprintf(" %d:%d", f.Major, f.Minor)
		}
		for _, x := range slices.SortedFunc(slices.Values(f.Xattrs), func(a, b tarstream.Xattr) int { return cmp.Compare(a.Name, b.Name) }) {
			line += fmt.Sprintf(" %s=%q", x.Name, x.Value)
		}
		lines[n.Name()] = line
		if !n.IsDir() {
			names[f] = append(names[f], n.Name())
		}
	}
	addLinks(lines, maps.Values(names))
	return lines
}

func addLinks(lines map[string]string, groups func(func([]string) bool)) {
	for g := range groups {
		slices.Sort(g)
		for _, n := range g {
			if len(g) > 1 {
				lines[n] += fmt.Sprintf(" linked %q", g)
			}
		}
	}
}

// ofDir describes a directory in the same way.
func ofDir(t testing.TB, dir string, rootTime bool) map[string]string {
	t.Helper()
	lines, names := map[string]string{}, map[uint64][]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%o %o %d:%d", st.Mode&unix.S_IFMT, st.Mode&0o7777, st.Uid, st.Gid)
		if name != "." || rootTime {
			line += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(data))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		list := make([]byte, 64<<10)
		n, err := unix.Llistxattr(path, list)
		if err != nil {
			return err
		}
		attrs := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
		slices.Sort(attrs)
		for _, a := range attrs {
			value := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(path, a, value)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s=%q", a, value[:n])
		}
		lines[name] = line
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			names[st.Ino] = append(names[st.Ino], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	addLinks(lines, maps.Values(names))
	return lines
}

func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	names := maps.Clone(want)
	maps.Copy(names, got)
	shown := 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] && shown < 20 {
			shown++
			t.Errorf("%q:\n  merged   %s\n  applied  %s", name, cmp.Or(got[name], "(none)"), cmp.Or(want[name], "(none)"))
		}
	}
}

func openRoot(t testing.TB, dir string) *safepath.Root {
	t.Helper()
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// testImage is one of the test images.
func testImage(t testing.TB, name string) (*image.Image, tree.Opener) {
	t.Helper()
	store, err := layout.Open(filepath.Join(testenv.Images(t), name), layout.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	desc, err := store.Resolve(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Select(t.Context(), store, desc, image.HostPlatform())
	if err != nil {
		t.Fatal(err)
	}
	return img, func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) { return store.Open(ctx, d) }
}

// TestImages compares the merged trees of the test images with what Apply makes
// of the same layers.
func TestImages(t *testing.T) {
	testenv.Root(t)
	for _, name := range []string{"medium", "manyfiles"} {
		t.Run(name, func(t *testing.T) {
			img, open := testImage(t, name)
			merged := tree.New(tree.Limits{})
			if err := merged.Read(t.Context(), img, open, tree.Options{Sums: true}); err != nil {
				t.Fatal(err)
			}
			dir := testenv.MemoryDir(t)
			root := openRoot(t, dir)
			for _, l := range img.Manifest.Layers {
				blob, err := open(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := layer.Apply(t.Context(), blob, root, layer.Options{Devices: layer.DevicesCreate}); err != nil {
					t.Fatal(err)
				}
				blob.Close()
			}
			want := ofTree(merged)
			same(t, want, ofDir(t, dir, true))
			checkContent(t, merged, img, open)
			if len(img.Manifest.Layers) > 1 {
				t.Run("flattened", func(t *testing.T) { flattenAsTar(t, merged, want, img, open) })
			}
		})
	}
}

// flattenAsTar puts all layers in one archive, which GNU tar then unpacks to what the layers are one over the other.
func flattenAsTar(t *testing.T, merged *tree.Tree, want map[string]string, img *image.Image, open tree.Opener) {
	dir := testenv.MemoryDir(t)
	cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "tar"), "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", dir, "-x")
	to, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	err = merged.WriteLayer(t.Context(), tarstream.NewWriter(to), tree.New(tree.Limits{}), img, open, spool(t), tree.Options{})
	if err := errors.Join(err, to.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	same(t, want, ofDir(t, dir, true))
}

// checkContent reads some files by themselves; Content compares their sums.
func checkContent(t *testing.T, merged *tree.Tree, img *image.Image, open tree.Opener) {
	n := 0
	for node := range merged.Root().All() {
		f := node.File()
		if f.Type != tarstream.TypeReg || f.SizeBytes == 0 {
			continue
		}
		if n++; n%20000 != 1 {
			continue
		}
		var b bytes.Buffer
		if err := merged.Content(t.Context(), img, open, tree.Options{}, f, &b); err != nil || int64(b.Len()) != f.SizeBytes {
			t.Errorf("content of %s: %d of %d bytes, %v", node.Name(), b.Len(), f.SizeBytes, err)
		}
	}
}

// archive makes a layer.
func archive(t testing.TB, headers []*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			fmt.Fprint(w, strings.Repeat("x", int(h.Size)))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// mergeBoth merges layers, and applies them, and compares: the result, or that
// both refuse the same layer, where it ends. It returns how many layers both
// took. The changes that each layer reports are compared
// with those between the trees before and after.
func mergeBoth(t testing.TB, layers [][]*tar.Header) (merges int) {
	t.Helper()
	dir := testenv.MemoryDir(t)
	root := openRoot(t, dir)
	merged := tree.New(tree.Limits{})
	for i, headers := range layers {
		blob := archive(t, headers)
		before := merged.Clone()
		_, applyErr := layer.Apply(t.Context(), bytes.NewReader(blob), root, layer.Options{Devices: layer.DevicesCreate})
		l := merged.AddLayer()
		_, mergeErr := layer.Scan(t.Context(), bytes.NewReader(blob), layer.Options{}, summing(l))
		if (applyErr == nil) != (mergeErr == nil) {
			t.Errorf("layer %d: apply: %v; merge: %v", i, applyErr, mergeErr)
		}
		if applyErr != nil || mergeErr != nil {
			break
		}
		merges++
		same(t, ofTree(merged), ofDir(t, dir, !merged.Root().File().Implied))
		sameChanges(t, l.Changes(), tree.Compare(before, merged))
		if t.Failed() {
			break
		}
	}
	if t.Failed() {
		for i, headers := range layers {
			for _, h := range headers {
				t.Logf("layer %d: %c %s %s", i, h.Typeflag, h.Name, h.Linkname)
			}
		}
	}
	return merges
}

func summing(l *tree.Layer) layer.Visit {
	return func(r *tarstream.Reader, h *tarstream.Header) error {
		f, err := l.Add(h)
		if err != nil || f == nil || f.Type != tarstream.TypeReg {
			return err
		}
		data, err := io.ReadAll(layer.Content(r, h))
		f.Sum = new([32]byte)
		*f.Sum = sha256.Sum256(data)
		return err
	}
}

func sameChanges(t testing.TB, got, want []tree.Change) {
	t.Helper()
	got = slices.DeleteFunc(got, func(c tree.Change) bool { return c.Kind == tree.Changed && c.Fields == 0 })
	text := func(all []tree.Change) (lines []string) {
		for _, c := range all {
			lines = append(lines, fmt.Sprintf("%s %s %s", c.Kind, c.Name, c.Fields))
		}
		return lines
	}
	if g, w := text(got), text(want); !slices.Equal(g, w) {
		t.Errorf("changes of the layer:\n%s\nbetween the trees:\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}

// chooser makes decisions: by chance, or as fuzzing wants.
type chooser interface{ IntN(int) int }

// anyLayer makes entries of all kinds at few names, so that they meet: through
// symbolic links, over each other, whiteouts before and after.
func anyLayer(c chooser) (headers []*tar.Header) {
	names := []string{"a", "b", "c", "f", "l"}
	path := func() string {
		parts := []string{names[c.IntN(len(names))]}
		for range c.IntN(3) {
			parts = append(parts, names[c.IntN(len(names))])
		}
		return strings.Join(parts, "/")
	}
	targets := []string{"a", "/b", "../c", "b/c", "/", "nowhere", "l", "../../a/b", "f/x", "/a/b/c", ".", "a/../b"}
	for i := range 1 + c.IntN(10) {
		h := &tar.Header{Name: path(), Mode: int64(c.IntN(0o10000)), Uid: c.IntN(3), Gid: c.IntN(3),
			ModTime: time.Unix(int64(1e9+c.IntN(1000)), int64(i)), Format: tar.FormatPAX}
		switch k := c.IntN(16); k {
		case 0, 1, 2, 3:
			h.Typeflag, h.Size = tar.TypeReg, int64(c.IntN(9))
		case 4, 5, 6:
			h.Typeflag = tar.TypeDir
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": fmt.Sprint(c.IntN(9))}
		case 7, 8:
			h.Typeflag, h.Linkname = tar.TypeSymlink, targets[c.IntN(len(targets))]
		case 9, 10:
			h.Typeflag, h.Linkname = tar.TypeLink, path()
		case 11:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, int64(c.IntN(9))
		case 12:
			h.Typeflag, h.Name = tar.TypeDir, "./"
		case 13:
			h.Typeflag, h.Name = tar.TypeReg, filepath.Join(filepath.Dir(h.Name), ".wh..wh..opq")
		default:
			h.Typeflag, h.Name = tar.TypeReg, filepath.Join(filepath.Dir(h.Name), ".wh."+filepath.Base(h.Name))
		}
		headers = append(headers, h)
	}
	return headers
}

// TestRandom compares merging and applying for random layers.
func TestRandom(t *testing.T) {
	testenv.Root(t)
	seed := uint64(time.Now().UnixNano())
	merges, layerCount := 0, 0
	for i := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, i))
		var layers [][]*tar.Header
		for range 1 + rnd.IntN(4) {
			layers = append(layers, anyLayer(rnd))
		}
		merges += mergeBoth(t, layers)
		layerCount += len(layers)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, i)
		}
	}
	if merges < layerCount/5 || merges > layerCount*4/5 {
		t.Errorf("%d of %d layers were taken: the test should see both", merges, layerCount)
	}
	t.Logf("%d of %d layers were taken", merges, layerCount)
}

// bytesChooser decides by the fuzzer's bytes.
type bytesChooser []byte

func (b *bytesChooser) IntN(n int) int {
	if len(*b) == 0 {
		return 0
	}
	v := int((*b)[0])
	*b = (*b)[1:]
	if n > 256 && len(*b) > 0 {
		v = v<<8 | int((*b)[0])
		*b = (*b)[1:]
	}
	return v % n
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x05some layers of some files, one over the other"))
	f.Fuzz(func(t *testing.T, data []byte) {
		testenv.Root(t)
		b := bytesChooser(data)
		var layers [][]*tar.Header
		for len(b) > 0 && len(layers) < 4 {
			layers = append(layers, anyLayer(&b))
		}
		mergeBoth(t, layers)
	})
}
