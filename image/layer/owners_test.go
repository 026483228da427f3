package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/internal/testenv"
)

func TestIDMap(t *testing.T) {
	var m IDMap
	for _, s := range []string{"0:100000:1000", "1000:1000", "1001:101001:64535", "4294967294:7:1"} {
		r, err := ParseIDRange(s)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSuffix(s, ":1"); r.String() != s && r.String() != want+":1" {
			t.Errorf("%q prints as %q", s, r)
		}
		m = append(m, r)
	}
	for in, want := range map[uint32]uint32{0: 100000, 999: 100999, 1000: 1000, 1001: 101001, 65535: 165535, 4294967294: 7} {
		if got, err := m.ToHost(in); err != nil || got != want {
			t.Errorf("%d outside: %d, %v; want %d", in, got, err, want)
		}
		if got, err := m.ToContainer(want); err != nil || got != in {
			t.Errorf("%d inside: %d, %v; want %d", want, got, err, in)
		}
	}
	if _, err := m.ToHost(65536); !errors.Is(err, ErrNotMapped) {
		t.Error(err)
	}
	if _, err := m.ToContainer(0); !errors.Is(err, ErrNotMapped) {
		t.Error(err)
	}
	if got, err := IDMap(nil).ToHost(5); got != 5 || err != nil {
		t.Error(got, err)
	}
	for _, s := range []string{"", "1", "1:2:3:4", "a:b:c", "-1:0:1", "0:0:0", "0:0:4294967296", "4294967295:0:1", "0:4294967290:10", "0::1", "0: 1:1"} {
		if r, err := ParseIDRange(s); err == nil {
			t.Errorf("%q is taken as %v", s, r)
		}
	}
}

func FuzzParseIDRange(f *testing.F) {
	f.Add("0:100000:65536")
	f.Add("1:2")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseIDRange(s)
		if err != nil {
			return
		}
		if again, err := ParseIDRange(r.String()); err != nil || again != r {
			t.Errorf("%q is %v, which is %v, %v", s, r, again, err)
		}
	})
}

func TestOwnerXattr(t *testing.T) {
	// As umoci writes them: see TestUnpackRootless of package engine.
	if got := EncodeOwner(0, 42); string(got) != "\x08\xff\xff\xff\xff\x0f\x10\x2a" {
		t.Errorf("%q", got)
	}
	if EncodeOwner(0, 0) != nil {
		t.Error("root is told")
	}
	for _, ids := range [][2]uint32{{1, 0}, {0, 1}, {1000, 100}, {math.MaxUint32 - 1, 1 << 31}} {
		uid, gid, err := DecodeOwner(EncodeOwner(ids[0], ids[1]))
		if err != nil || uid != ids[0] || gid != ids[1] {
			t.Errorf("%v becomes %d, %d, %v", ids, uid, gid, err)
		}
	}
	for _, bad := range []string{"\x08", "\x00\x01", "\x18\x01", "\x0a\x01x", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "x"} {
		if _, _, err := DecodeOwner([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzDecodeOwner(f *testing.F) {
	f.Add(EncodeOwner(1, 2))
	f.Fuzz(func(t *testing.T, value []byte) {
		uid, gid, err := DecodeOwner(value)
		if err != nil {
			return
		}
		if u, g, err := DecodeOwner(EncodeOwner(uid, gid)); err != nil || u != uid || g != gid {
			t.Errorf("%q is %d:%d, which is %d:%d, %v", value, uid, gid, u, g, err)
		}
	})
}

// TestKeepOwners: what a layer brings under the name of the attribute is not taken for an owner.
func TestKeepOwners(t *testing.T) {
	dir := t.TempDir()
	mine := IDMap{{HostID: uint32(unix.Geteuid()), Size: 1}}
	o := Options{KeepOwners: true, Devices: DevicesPlaceholder, MapID: func(uint32, uint32) (uint32, uint32, error) {
		uid, err := mine.ToHost(0)
		return uid, uint32(unix.Getegid()), err
	}}
	forged := map[string]string{"SCHILY.xattr." + OwnerXattr: string(EncodeOwner(6, 6)), "SCHILY.xattr.user.mine": "m"}
	blob := archive(t, &tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o555, Uid: 5, Gid: 6}, &tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o400, Gid: 7},
		hardlink("d/l", "d/f"), &tar.Header{Typeflag: tar.TypeReg, Name: "forged", PAXRecords: forged},
		&tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3, Mode: 0o666, Uid: 1}, symlink("s", "x"),
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "owned", Linkname: "x", Uid: 4}, file("plain"))
	var dropped []string
	o.Dropped = func(entry, xattr string, _ error) { dropped = append(dropped, entry+" "+xattr) }
	if _, err := Apply(t.Context(), bytes.NewReader(blob), openRoot(t, dir), o); err != nil {
		t.Fatal(err)
	}
	if len(dropped) != 1 || dropped[0] != "owned "+OwnerXattr {
		t.Errorf("dropped %q", dropped)
	}
	got := testenv.Tree(t, dir)
	for name, want := range map[string][]byte{"d": EncodeOwner(5, 6), "d/f": EncodeOwner(0, 7), "d/l": EncodeOwner(0, 7), "forged": nil, "null": EncodeOwner(1, 0), "s": nil, "plain": nil} {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(dir+"/"+name, OwnerXattr, value)
		if want == nil && err != unix.ENODATA || want != nil && string(value[:max(n, 0)]) != string(want) {
			t.Errorf("%s: owner %q, %v, want %q\n%s", name, value[:max(n, 0)], err, want, got[name])
		}
	}
	if !strings.Contains(got["forged"], "user.mine") || !strings.HasPrefix(got["d"], "dir 0555") || !strings.HasPrefix(got["null"], "file 0666") {
		t.Error(got["forged"], got["d"], got["null"])
	}
	// Owners that are no ids are refused here as well.
	err := applyTo(t, openRoot(t, t.TempDir()), archive(t, &tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}), o)
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	keepOwner(&tarstream.Header{UID: 1 << 40}) // does not panic
}

func TestKeepDirlinks(t *testing.T) {
	testenv.Root(t)
	lower := []*tar.Header{dirEntry("usr/lib/"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"), symlink("dangling", "nowhere"), symlink("tofile", "f"),
		file("f"), symlink("loop", "loop"), symlink("outside", "../../../tmp")}
	upper := []*tar.Header{dirEntry("lib/"), file("lib/a"), dirEntry("abs/"), file("abs/b"), dirEntry("dangling/"), dirEntry("tofile/"), dirEntry("loop/"),
		file("loop/c"), dirEntry("outside/")}
	common := map[string]string{"usr": "/", "usr/lib": "/", "f": "f", "dangling": "/", "tofile": "/", "loop": "/", "loop/c": "loop/c", "outside": "/"}
	for keep, more := range map[bool]map[string]string{
		true:  {"lib": "->usr/lib", "usr/lib/a": "lib/a", "abs": "->/usr/lib", "usr/lib/b": "abs/b"},
		false: {"lib": "/", "lib/a": "lib/a", "abs": "/", "abs/b": "abs/b"},
	} {
		root, dir, _ := sandbox(t)
		for _, l := range [][]*tar.Header{lower, upper} {
			if err := applyTo(t, root, archive(t, l...), Options{KeepDirlinks: keep}); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]string{}
		for _, m := range []map[string]string{common, more} {
			for k, v := range m {
				want[k] = v
			}
		}
		testenv.SameTree(t, contents(t, dir), want, "got", "want")
	}
}
