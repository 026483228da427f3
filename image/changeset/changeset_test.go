package changeset

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/testenv"
)

// step is one thing that is done to a tree.
type step func(t *testing.T, dir string)

func write(name, content string) step {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
}

func do(f func(path string) error, name string) step {
	return func(t *testing.T, dir string) { t.Helper(); check(t, f(filepath.Join(dir, name))) }
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mkdir(path string) error  { return os.MkdirAll(path, 0o755) }
func remove(path string) error { return os.RemoveAll(path) }
func socket(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) }

func chmod(mode uint32) func(string) error {
	return func(path string) error { return unix.Chmod(path, mode) }
}

func steps(t *testing.T, dir string, all ...step) {
	t.Helper()
	for _, s := range all {
		s(t, dir)
	}
}

func listing(set *Set) string {
	var b strings.Builder
	for _, c := range set.Changes() {
		fmt.Fprintf(&b, "%v %s\n", c.Kind, c.Name)
	}
	return b.String()
}

// entriesOf lists an archive as others read it.
func entriesOf(t *testing.T, archive []byte) string {
	t.Helper()
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return b.String()
		}
		check(t, err)
		fmt.Fprintf(&b, "%c %s %o", h.Typeflag, h.Name, h.Mode)
		if h.Linkname != "" {
			fmt.Fprintf(&b, " %s", h.Linkname)
		}
		b.WriteByte('\n')
	}
}

// TestFlat: which names are listed, and what is written, in which order.
func TestFlat(t *testing.T) {
	before := []step{write("etc/passwd", "p"), write("etc/group", "g"), write("dir/a/b", "b"), write("file", "f"), write("z", "z"), do(mkdir, "empty"), do(socket, "old-socket")}
	for what, c := range map[string]struct {
		steps         []step
		want, entries string
		options       Options
	}{
		"nothing":     {},
		"content":     {[]step{write("etc/passwd", "q")}, "C etc\nC etc/passwd\n", "5 etc/ 755\n0 etc/passwd 644\n", Options{}},
		"deletion":    {[]step{do(remove, "etc/group"), write("etc/a", "")}, "C .\nC etc\nD etc/group\nA etc/a\n", "", Options{Mask: []string{"none"}}},
		"a tree":      {[]step{do(remove, "dir"), do(chmod(0o700), "empty")}, "D dir\nC empty\n", "0 .wh.dir 0\n5 empty/ 700\n", Options{Mask: []string{"."}[:0]}},
		"dir by file": {[]step{do(remove, "dir"), write("dir", "x")}, "C dir\n", "0 dir 644\n", Options{}},
		"file by dir": {[]step{do(remove, "file"), write("file/x", "x")}, "C file\nA file/x\n", "5 file/ 755\n0 file/x 644\n", Options{}},
		"hard links": {[]step{write("l1", "x"), func(t *testing.T, dir string) { check(t, os.Link(dir+"/l1", dir+"/empty/l2")) }},
			"C empty\nA empty/l2\nA l1\n", "5 empty/ 755\n0 empty/l2 644\n1 l1 0 empty/l2\n", Options{}},
		"socket":         {[]step{do(socket, "s"), do(remove, "old-socket")}, "", "", Options{}},
		"file by socket": {[]step{do(remove, "z"), do(socket, "z")}, "D z\n", "0 .wh.z 0\n", Options{}},
		"masked":         {[]step{write("dir/new", "x"), do(remove, "dir/a"), write("etc/new", "x"), do(mkdir, "proc/x")}, "C etc\nA etc/new\n", "5 etc/ 755\n0 etc/new 644\n", Options{Mask: []string{"/dir/", "proc"}}},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			steps(t, dir, before...)
			record := recordOf(t, dir)
			steps(t, dir, c.steps...)
			root := openRoot(t, dir)
			var warned []string
			c.options.Warn = func(m string) { warned = append(warned, m) }
			set, err := Compare(t.Context(), root, record, c.options)
			check(t, err)
			if got := strings.TrimPrefix(listing(set), "C .\n"); got != strings.TrimPrefix(c.want, "C .\n") {
				t.Errorf("changes\n%s, want\n%s", got, c.want)
			}
			got := entriesOf(t, archiveOf(t, set, root, c.options))
			if c.entries != "" && strings.TrimPrefix(got, "5 ./ 755\n") != strings.ReplaceAll(c.entries, "1 l1 0 ", "1 l1 644 ") {
				t.Errorf("archive\n%s, want\n%s", got, c.entries)
			}
			if strings.Contains(what, "socket") != (len(warned) > 0) {
				t.Errorf("warnings %q", warned)
			}
		})
	}
}

// TestOverlayForms: whiteouts only of what is below; what overlayfs keeps elsewhere is refused by name.
func TestOverlayForms(t *testing.T) {
	testenv.Root(t)
	null := func(path string) error { return unix.Mknod(path, unix.S_IFCHR, 0) }
	mark := func(name, value string) func(string) error {
		return func(path string) error { return unix.Setxattr(path, "trusted.overlay."+name, []byte(value), 0) }
	}
	below := []step{write("dir/a", "a"), write("dir/sub/b", "b"), write("dir/sub/c", "c"), write("file", "f")}
	for what, c := range map[string]struct {
		steps []step
		want  string
		err   error
	}{
		"nothing":           {nil, "", nil},
		"whiteout":          {[]step{do(null, "file")}, "D file\n", nil},
		"whiteout in vain":  {[]step{do(null, "nowhere"), do(mkdir, "new"), do(null, "new/x")}, "A new\n", nil},
		"opaque":            {[]step{write("dir/sub/c", "new"), do(mark("opaque", "y"), "dir")}, "C dir\nD dir/a\nC dir/sub\nD dir/sub/b\nC dir/sub/c\n", nil},
		"opaque on nothing": {[]step{write("new/x", "x"), do(mark("opaque", "y"), "new")}, "A new\nA new/x\n", nil},
		"file by dir":       {[]step{write("file/x", "x"), do(mark("opaque", "y"), "file")}, "C file\nA file/x\n", nil},
		"redirect":          {[]step{do(mkdir, "new"), do(mark("redirect", "dir"), "new")}, "", ErrOverlayForm},
		"metacopy":          {[]step{write("file", "f"), do(mark("metacopy", ""), "file")}, "", ErrOverlayForm},
		"origin is no news": {[]step{write("dir/a", "new"), do(mark("origin", "x"), "dir/a")}, "C dir\nC dir/a\n", nil},
		"whiteout's name":   {[]step{write("dir/.wh.x", "")}, "", ErrWhiteoutName},
	} {
		t.Run(what, func(t *testing.T) {
			lower, upper := t.TempDir(), t.TempDir()
			steps(t, lower, below...)
			steps(t, upper, c.steps...)
			set, err := CompareUpper(t.Context(), openRoot(t, upper), rootsOf(t, lower), Options{})
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				if name := "\""; !strings.Contains(err.Error(), name) {
					t.Errorf("error %v names no file", err)
				}
				return
			}
			if got := strings.TrimPrefix(listing(set), "C .\n"); got != c.want {
				t.Errorf("changes\n%s, want\n%s", got, c.want)
			}
		})
	}
}

// TestAttributes: what of a file's attributes a layer has.
func TestAttributes(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	record := recordOf(t, dir)
	steps(t, dir, write("f", "x"))
	f := filepath.Join(dir, "f")
	capability3 := "\x01\x00\x00\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00"
	for name, value := range map[string]string{"user.a": "1", "trusted.overlay.x": "y", "user.overlay.y": "y", layer.OwnerXattr: string(layer.EncodeOwner(7, 0)), "security.capability": capability3} {
		if err := unix.Setxattr(f, name, []byte(value), 0); err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(name, err)
		}
	}
	check(t, os.Chtimes(f, time.Unix(5, 0), time.Unix(2e9, 7)))
	check(t, os.Lchown(f, 100007, 100008))
	latest := int64(1e9)
	root := openRoot(t, dir)
	header := func(o Options) *tar.Header {
		set, err := Compare(t.Context(), root, record, o)
		check(t, err)
		r := tar.NewReader(bytes.NewReader(archiveOf(t, set, root, o)))
		for {
			h, err := r.Next()
			check(t, err)
			if h.Name == "f" {
				return h
			}
		}
	}
	plain := header(Options{})
	if plain.ModTime.UnixNano() != 2e18+7 || plain.Uid != 100007 || plain.PAXRecords["SCHILY.xattr.user.a"] != "1" || plain.PAXRecords["SCHILY.xattr."+layer.OwnerXattr] == "" {
		t.Errorf("%+v", plain)
	}
	for name := range plain.PAXRecords {
		if strings.Contains(name, "overlay") {
			t.Errorf("%s is in the layer", name)
		}
	}
	if c := plain.PAXRecords["SCHILY.xattr.security.capability"]; c != "" && (len(c) != 20 || c[3] != 2) {
		t.Errorf("file capability %q has a user namespace's root", c)
	}
	mapped := header(Options{LatestTime: &latest, Rootless: true, MapID: func(uid, gid uint32) (uint32, uint32, error) { return uid - 100000, gid - 100000, nil }})
	if mapped.ModTime.UnixNano() != 1e18 || mapped.Uid != 7 || mapped.Gid != 0 || mapped.PAXRecords["SCHILY.xattr."+layer.OwnerXattr] != "" {
		t.Errorf("%+v", mapped)
	}
	set, err := Compare(t.Context(), root, record, Options{})
	check(t, err)
	wrong := errors.New("no such id")
	err = set.Write(t.Context(), root, io.Discard, Options{MapID: func(uint32, uint32) (uint32, uint32, error) { return 0, 0, wrong }})
	if !errors.Is(err, wrong) || !strings.Contains(err.Error(), `"."`) && !strings.Contains(err.Error(), `"f"`) {
		t.Errorf("error %v", err)
	}
}

// TestSparse: holes are zeros in the layer, and are not read.
func TestSparse(t *testing.T) {
	dir := t.TempDir()
	record := recordOf(t, dir)
	path := filepath.Join(dir, "sparse")
	f, err := os.Create(path)
	check(t, err)
	const size = 40 << 20
	check(t, f.Truncate(size))
	for _, offset := range []int64{1 << 20, 7<<20 + 5, size - 3} {
		_, err := f.WriteAt([]byte("abc"), offset)
		check(t, err)
	}
	check(t, f.Close())
	want, err := os.ReadFile(path)
	check(t, err)
	root := openRoot(t, dir)
	set, err := Compare(t.Context(), root, record, Options{})
	check(t, err)
	archive := archiveOf(t, set, root, Options{})
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		check(t, err)
		if h.Name != "sparse" {
			continue
		}
		got, err := io.ReadAll(r)
		check(t, err)
		if !bytes.Equal(got, want) {
			t.Error("other content")
		}
		return
	}
}
