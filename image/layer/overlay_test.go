package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

// stackLayers applies each layer to a directory of its own, completes them and compares the overlay mount of them all with
// the tree want, in a private mount namespace. Alone, if set, is called with each directory before it is completed.
func stackLayers(t testing.TB, want map[string]string, form Form, blobs []func() (io.ReadCloser, error), alone func(layer int, dir string)) {
	t.Helper()
	top := testenv.MemoryDir(t)
	var dirs []string // the topmost first
	var roots []*safepath.Root
	for i, open := range blobs {
		dir := filepath.Join(top, fmt.Sprint("l", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root := openRoot(t, dir)
		blob, err := open()
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Name: fmt.Sprint("layer ", i), Form: form, Devices: DevicesCreate}
		r, err := Apply(t.Context(), blob, root, o)
		if err := errors.Join(err, blob.Close()); err != nil {
			t.Fatal(err)
		}
		if alone != nil {
			alone(i, dir)
		}
		if r.OpaqueRoot {
			dirs, roots = nil, nil
		}
		if err := Complete(t.Context(), root, roots, r.Pending, o); err != nil {
			t.Fatal(err)
		}
		dirs, roots = slices.Insert(dirs, 0, dir), slices.Insert(roots, 0, root)
	}
	empty, merged := filepath.Join(top, "empty"), filepath.Join(top, "merged")
	if err := errors.Join(os.Mkdir(empty, 0o755), os.Mkdir(merged, 0o755)); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() error {
		options := "lowerdir=" + strings.Join(append(dirs, empty), ":") // overlayfs wants two at least
		if form == OverlayUser {
			options += ",userxattr"
		}
		if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, options); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		got := testenv.Tree(t, merged)
		for name, line := range got {
			got[name] = dropLinkedNames(line)
		}
		flat := map[string]string{}
		for name, line := range want {
			flat[name] = dropLinkedNames(line)
		}
		testenv.SameTree(t, got, flat, "overlay", "flat")
		return nil
	})
}

// dropLinkedNames removes which names are one file from a snapshot's line: overlayfs breaks hard links between layers.
func dropLinkedNames(line string) string {
	line, _, _ = strings.Cut(line, " linked [")
	return line
}

// overlayImage compares the overlay mount of an image's layers with what it is unpacked flat, and each layer alone with what GNU
// tar makes of it.
func overlayImage(t *testing.T, image string, flat map[string]string) {
	t.Helper()
	layers, _ := imageLayers(t, image)
	path := func(i int) string { return filepath.Join(image, "blobs/sha256", layers[i].Digest.Encoded()) }
	var blobs []func() (io.ReadCloser, error)
	for i := range layers {
		blobs = append(blobs, func() (io.ReadCloser, error) { return os.Open(path(i)) })
	}
	stackLayers(t, flat, Overlay, blobs, func(i int, dir string) { layerAsTar(t, path(i), dir) })
}

// TestOverlayIsFlat makes random stacks of layers, with whiteouts before and after what they are about, replaced types and
// directories left to be implied, and compares the two ways to have them.
func TestOverlayIsFlat(t *testing.T) {
	testenv.Root(t)
	seed := uint64(time.Now().UnixNano())
	for i := range uint64(40) {
		for _, form := range []Form{Overlay, OverlayUser} {
			if t.Failed() {
				t.Fatalf("seed %d", seed+i-1)
			}
			compareRandomStack(t, rand.New(rand.NewPCG(seed+i, uint64(form))), form)
		}
	}
}

func compareRandomStack(t *testing.T, rnd *rand.Rand, form Form) {
	t.Helper()
	flat := testenv.MemoryDir(t)
	root := openRoot(t, flat)
	var blobs []func() (io.ReadCloser, error)
	var log strings.Builder
	for i := range 4 {
		headers := append([]*tar.Header{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}}, randomLayer(rnd, i == 0)...)
		for _, h := range headers {
			fmt.Fprintf(&log, "layer %d: %c %s %s\n", i, h.Typeflag, h.Name, h.Linkname)
		}
		blob := archive(t, headers...)
		if err := applyTo(t, root, blob, Options{Devices: DevicesCreate}); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		blobs = append(blobs, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil })
	}
	stackLayers(t, testenv.Tree(t, flat), form, blobs, nil)
	if t.Failed() {
		t.Log(log.String())
	}
}

// randomLayer makes entries in directories named a, b, c of up to three levels. What is called x may be of any type, and is
// never a directory that others are in unless the layer itself says that it is one. Directories are left to be implied only
// in layers without whiteouts: what a whiteout in, or of, a directory that nobody describes leaves of it is not defined.
// Nor is what a layer means that has a name twice, with different types.
func randomLayer(rnd *rand.Rand, first bool) []*tar.Header {
	l := layerMaker{rnd: rnd, whiteouts: !first && rnd.IntN(2) == 0, described: map[string]bool{}}
	for range 3 + rnd.IntN(12) {
		l.add()
	}
	return l.headers
}

type layerMaker struct {
	rnd       *rand.Rand
	whiteouts bool
	headers   []*tar.Header
	described map[string]bool
}

// dir is a random directory, "" for the root or with a slash at its end.
func (l *layerMaker) dir() string {
	name := ""
	for range l.rnd.IntN(4) {
		name += string(rune('a'+l.rnd.IntN(3))) + "/"
		if l.whiteouts && !l.described[name] {
			l.describe(name)
		}
	}
	return name
}

func (l *layerMaker) describe(name string) {
	l.described[name] = true
	l.put(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: int64(0o700 | l.rnd.IntN(0o100)), Gid: l.rnd.IntN(3),
		PAXRecords: map[string]string{"SCHILY.xattr.user.x": fmt.Sprint(l.rnd.IntN(9))}})
}

func (l *layerMaker) put(h *tar.Header) {
	h.ModTime = time.Unix(1e9+l.rnd.Int64N(1e6), l.rnd.Int64N(1e9))
	l.headers = append(l.headers, h)
}

func (l *layerMaker) add() {
	rnd, dir := l.rnd, l.dir()
	kind := rnd.IntN(6)
	if l.whiteouts {
		kind = rnd.IntN(9)
	}
	if 1 <= kind && kind <= 3 {
		if l.described[dir+"x"] {
			return
		}
		l.described[dir+"x"] = true
	}
	switch kind {
	case 0:
		l.put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + "f" + fmt.Sprint(rnd.IntN(3)), Mode: int64(rnd.IntN(0o1000)), Size: rnd.Int64N(3000), Uid: rnd.IntN(3)})
	case 1:
		l.put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + "x", Mode: 0o644, Size: 5})
	case 2:
		l.put(symlink(dir+"x", "somewhere"))
	case 3:
		l.put(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "x/", Mode: 0o750, Uid: 5})
		l.put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + "x/in" + fmt.Sprint(rnd.IntN(3)), Mode: 0o600, Size: 3})
	case 4:
		if dir != "" {
			l.describe(dir)
		}
	case 5:
		l.put(&tar.Header{Typeflag: tar.TypeFifo, Name: dir + "p", Mode: 0o640})
	case 6:
		l.put(file(dir + whiteoutPrefix + "abcfx"[rnd.IntN(5):][:1]))
	case 7:
		l.put(file(dir + whiteoutPrefix + "f" + fmt.Sprint(rnd.IntN(3))))
	case 8:
		l.put(file(dir + opaqueBase))
	}
}

// TestOverlayLinksToLower: hard links to what only a lower layer has, in a directory that only a lower layer describes.
func TestOverlayLinksToLower(t *testing.T) {
	testenv.Root(t)
	layers := [][]*tar.Header{
		{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 3}, {Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2750, Gid: 7},
			{Typeflag: tar.TypeReg, Name: "d/a", Mode: 0o4711, Uid: 9, Size: 70000, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}},
			{Typeflag: tar.TypeSymlink, Name: "d/link", Linkname: "a", Uid: 4, PAXRecords: map[string]string{"SCHILY.xattr.trusted.a": "link"}},
			{Typeflag: tar.TypeSymlink, Name: "d/nowhere", Linkname: "/none"}, {Typeflag: tar.TypeFifo, Name: "d/fifo", Mode: 0o4620, Uid: 5},
			{Typeflag: tar.TypeChar, Name: "d/null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{hardlink("d/b", "d/a"), hardlink("d/c", "d/b"), file("d/e"), hardlink("d/b2", "d/link"), hardlink("d/b3", "d/nowhere"),
			hardlink("d/b4", "d/fifo"), hardlink("d/b5", "d/null"), hardlink("d/b6", "d/b2")},
	}
	flat := testenv.MemoryDir(t)
	var blobs []func() (io.ReadCloser, error)
	for _, l := range layers {
		blob := archive(t, l...)
		if err := applyTo(t, openRoot(t, flat), blob, Options{Devices: DevicesCreate}); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil })
	}
	stackLayers(t, testenv.Tree(t, flat), Overlay, blobs, nil)
	root := openRoot(t, t.TempDir())
	r, err := Apply(t.Context(), bytes.NewReader(archive(t, hardlink("b", "nowhere"))), root, Options{Form: Overlay})
	if err != nil {
		t.Fatal(err)
	}
	err = Complete(t.Context(), root, []*safepath.Root{openRoot(t, flat)}, r.Pending, Options{Name: blobName})
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), blobName) || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("a hard link to nothing: %v", err)
	}
}

// TestOverlayXattrsAreNotTaken: a layer cannot speak to overlayfs by itself.
func TestOverlayXattrsAreNotTaken(t *testing.T) {
	testenv.Root(t)
	h := file("f")
	h.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
		"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.user.mine": "m",
		"SCHILY.acl.access": "user::rw-,user:lp:rw-,group::r--,mask::rw-,other::r--"} // whoever lp is
	dir := t.TempDir()
	var dropped []string
	r, err := Apply(t.Context(), bytes.NewReader(archive(t, h)), openRoot(t, dir), Options{Form: Overlay,
		Dropped: func(entry, xattr string, _ error) { dropped = append(dropped, entry+" "+xattr) }})
	if err != nil || r.DroppedXattrs != 4 || len(dropped) != 4 {
		t.Errorf("%+v, %v, dropped %q", r, err, dropped)
	}
	if line := testenv.Tree(t, dir)["f"]; !strings.HasSuffix(line, `user.mine="m"`) || strings.Contains(line, "overlay") || strings.Contains(line, "selinux") {
		t.Error(line)
	}
}
