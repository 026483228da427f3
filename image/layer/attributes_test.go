package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// TestAttributes: what a directory hands down by itself (group, ACL), what is there already and what the umask is must not
// show in what a layer makes.
func TestAttributes(t *testing.T) {
	testenv.Root(t)
	// An ACL as the kernel stores it: version 2, then tag, permissions and id of each entry. This one lets user 7 write.
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x07\x00\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	xattrs := func(h *tar.Header, pairs ...string) *tar.Header {
		h.PAXRecords = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h.PAXRecords["SCHILY.xattr."+pairs[i]] = pairs[i+1]
		}
		return h
	}
	lower := []*tar.Header{
		xattrs(&tar.Header{Typeflag: tar.TypeDir, Name: "acl/", Mode: 0o755}, defaultACL, acl),
		file("acl/f"), dirEntry("acl/d/"), file("acl/implied/f"),
		{Typeflag: tar.TypeDir, Name: "sgid/", Mode: 0o2775, Gid: 42},
		file("sgid/f"), dirEntry("sgid/d/"), symlink("sgid/l", "x"), {Typeflag: tar.TypeFifo, Name: "sgid/p", Mode: 0o622}, file("sgid/implied/f"),
		{Typeflag: tar.TypeReg, Name: "all", Mode: 0o7777, Uid: 1, Gid: 1},
		{Typeflag: tar.TypeReg, Name: "none", Mode: 0, Size: 10},
		{Typeflag: tar.TypeDir, Name: "closed/", Mode: 0o1000}, {Typeflag: tar.TypeDir, Name: "closed/in/", Mode: 0}, file("closed/in/f"),
		xattrs(&tar.Header{Typeflag: tar.TypeReg, Name: "capable", Mode: 0o755, Uid: 5, Size: 3}, "security.capability", capability),
		xattrs(&tar.Header{Typeflag: tar.TypeDir, Name: "old/", Mode: 0o700, Uid: 3}, "user.old", "1", "user.both", "1"),
		{Typeflag: tar.TypeSymlink, Name: "old/link", Linkname: "x", Uid: 1 << 31, Gid: 1<<32 - 2, ModTime: time.Unix(-1, 999999999), Format: tar.FormatPAX},
	}
	upper := []*tar.Header{xattrs(&tar.Header{Typeflag: tar.TypeDir, Name: "old/", Mode: 0o711, Gid: 4}, "user.new", "2", "user.both", "2")}
	const at = " mtime 1000000000.000000000"
	want := map[string]string{
		"acl/f":           "file 0644 0:0" + at + " size 5",
		"acl/d":           "dir 0755 0:0" + at,
		"acl/implied":     "dir 0755 0:0" + at,
		"sgid":            "dir 2775 0:42" + at,
		"sgid/f":          "file 0644 0:0" + at + " size 6",
		"sgid/d":          "dir 0755 0:0" + at,
		"sgid/l":          "symlink 0777 0:0" + at,
		"sgid/p":          "fifo 0622 0:0" + at,
		"sgid/implied":    "dir 0755 0:0" + at,
		"all":             "file 7777 1:1" + at,
		"none":            "file 0000 0:0" + at + " size 10",
		"closed":          "dir 1000 0:0" + at,
		"closed/in":       "dir 0000 0:0" + at,
		"capable":         "file 0755 5:0" + at,
		"old":             "dir 0711 0:4" + at + ` user.both="2" user.new="2"`,
		"old/link":        "symlink 0777 2147483648:4294967294 mtime -1.999999999",
		"acl/implied/f":   "file 0644",
		"sgid/implied/f":  "file 0644 0:0",
		"closed/in/f":     "file 0644",
		"nothing/of/that": "",
	}
	for _, mask := range []int{0, 0o077} {
		old := unix.Umask(mask)
		dir := t.TempDir()
		root := openRoot(t, dir)
		err := errors.Join(applyTo(t, root, archive(t, lower...), Options{}), applyTo(t, root, archive(t, upper...), Options{}))
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		got := testenv.Tree(t, dir)
		for name, start := range want {
			if !strings.HasPrefix(got[name], start) {
				t.Errorf("umask %o: %q:\n got %s\nwant %s", mask, name, got[name], start)
			}
			if strings.Contains(got[name], "posix_acl") {
				t.Errorf("%q has inherited an ACL: %s", name, got[name])
			}
		}
		if !strings.Contains(got["acl"], "posix_acl_default") || !strings.Contains(got["capable"], "security.capability") {
			t.Errorf("extended attributes are missing: %s, %s", got["acl"], got["capable"])
		}
		if strings.Contains(got["old"], "user.old") {
			t.Errorf("a lower layer's attribute is still there: %s", got["old"])
		}
	}
}

func TestMapIDAndPlaceholders(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	blob := archive(t, device("d/null"), &tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1, Gid: 2})
	o := Options{Devices: DevicesPlaceholder, MapID: func(uid, gid uint32) (uint32, uint32, error) { return uid + 100, gid + 200, nil }}
	if err := applyTo(t, openRoot(t, dir), blob, o); err != nil {
		t.Fatal(err)
	}
	got := testenv.Tree(t, dir)
	for name, start := range map[string]string{"d": "dir 0755 100:200", "d/null": "file 0666 100:200", "f": "file 0000 101:202"} {
		if !strings.HasPrefix(got[name], start) {
			t.Errorf("%s: %s, want %s", name, got[name], start)
		}
	}
	// Those that an ACL names are mapped as well.
	const head, tail = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff", "\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
	acl := func(uid, gid byte) string {
		return head + "\x02\x00\x07\x00" + string([]byte{uid, 0, 0, 0}) + "\x04\x00\x05\x00\xff\xff\xff\xff\x08\x00\x04\x00" + string([]byte{gid, 0, 0, 0}) + tail
	}
	named := archive(t, &tar.Header{Typeflag: tar.TypeReg, Name: "named", Mode: 0o675, PAXRecords: map[string]string{"SCHILY.xattr." + accessACL: acl(7, 8)}})
	if err := applyTo(t, openRoot(t, dir), named, o); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 256)
	if n, err := unix.Getxattr(filepath.Join(dir, "named"), accessACL, value); err != nil || string(value[:n]) != acl(107, 208) {
		t.Errorf("ACL %q, %v", value[:max(n, 0)], err)
	}
	o.MapID = func(uint32, uint32) (uint32, uint32, error) { return 0, 0, errors.New("not mapped") }
	if err := applyTo(t, openRoot(t, t.TempDir()), blob, o); err == nil || !strings.Contains(err.Error(), "not mapped") {
		t.Error(err)
	}
}

// TestSparseStaysSparse: what a sparse entry leaves out takes no space.
func TestSparseStaysSparse(t *testing.T) {
	dir, source := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(source, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), 64<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "t.tar")
	testenv.Run(t, testenv.Tool(t, "tar"), "--format=posix", "-S", "-C", source, "-cf", out, ".")
	blob, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), bytes.NewReader(blob), openRoot(t, dir), ownable(Options{})); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "sparse"), &st); err != nil || st.Size != 64<<20+3 || st.Blocks > 64 {
		t.Errorf("size %d, %d blocks, %v", st.Size, st.Blocks, err)
	}
	testenv.SameTree(t, testenv.Tree(t, dir), testenv.Tree(t, source), "ours", "the original")
}
