package tarstream

import (
	"archive/tar"
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
)

// written is an archive of one entry.
func written(t testing.TB, h *Header, content []byte) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.WriteHeader(h); err != nil {
		return nil, err
	}
	if h.Type == TypeReg {
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// whole is a Source of one piece.
type whole struct{ data []byte }

func (s *whole) Next() ([]byte, error) {
	if s.data == nil {
		return nil, io.EOF
	}
	data := s.data
	s.data = nil
	return data, nil
}

// readBoth reads the entry with our reader and the standard library's.
func readBoth(t testing.TB, archive []byte) (Header, *tar.Header) {
	t.Helper()
	h, err := NewReader(&whole{archive}, Limits{}).Next()
	if err != nil {
		t.Fatalf("our reader: %v", err)
	}
	std, err := tar.NewReader(bytes.NewReader(archive)).Next()
	if err != nil {
		t.Fatalf("archive/tar: %v", err)
	}
	return *h, std
}

func TestWriterRoundTrip(t *testing.T) {
	long := strings.Repeat("long/", 40)
	for what, h := range map[string]Header{
		"plain":       {Name: "etc/passwd", Type: TypeReg, Mode: 0o4755, Size: 3, UID: 7, GID: 8, ModTime: Time{Sec: 1e9}},
		"directory":   {Name: "etc", Type: TypeDir, Mode: 0o1777},
		"nanoseconds": {Name: "a", Type: TypeReg, Size: 3, ModTime: Time{Sec: 5, Nsec: 120}},
		"before 1970": {Name: "a", Type: TypeReg, Size: 3, ModTime: Time{Sec: -2, Nsec: 250e6}},
		"just before": {Name: "a", Type: TypeReg, Size: 3, ModTime: Time{Sec: -1, Nsec: 999999999}},
		"far future":  {Name: "a", Type: TypeReg, Size: 3, ModTime: Time{Sec: 1 << 35}},
		"large ids":   {Name: "a", Type: TypeReg, Size: 3, UID: 1<<32 - 2, GID: 1 << 21},
		"prefix":      {Name: long[:150] + "x", Type: TypeReg, Size: 3},
		"long":        {Name: long + long + "x", Type: TypeReg, Size: 3},
		"long dir":    {Name: long + long + "x", Type: TypeDir},
		"no UTF-8":    {Name: "n\xffme", Type: TypeSymlink, Linkname: "\xfe\xfd"},
		"newline":     {Name: "a\nb", Type: TypeLink, Linkname: strings.Repeat("l", 101)},
		"device":      {Name: "null", Type: TypeChar, Mode: 0o666, Major: 1, Minor: 3},
		"block":       {Name: "sda", Type: TypeBlock, Major: 8, Minor: 1<<20 - 1},
		"fifo":        {Name: "p", Type: TypeFifo},
		"xattrs": {Name: "a", Type: TypeReg, Size: 3, Xattrs: []Xattr{{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\n=")},
			{Name: "user.empty", Value: []byte{}}}},
	} {
		archive, err := written(t, &h, []byte("abc"))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got, std := readBoth(t, archive)
		if h.AccessTime = h.ModTime; h.Type == TypeDir {
			h.Name += "/"
		}
		if h.Xattrs == nil {
			got.Xattrs = nil
		}
		got.Extents = nil
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s: read\n%+v, want\n%+v", what, got, h)
		}
		if std.Name != h.Name || std.Linkname != h.Linkname || std.Typeflag != h.Type || std.Size != h.Size || std.Uid != int(h.UID) || std.Gid != int(h.GID) ||
			std.Mode != int64(h.Mode) || std.ModTime.Unix() != h.ModTime.Sec || std.ModTime.Nanosecond() != int(h.ModTime.Nsec) ||
			std.Devmajor != h.Major || std.Devminor != h.Minor {
			t.Errorf("%s: archive/tar read %+v, want %+v", what, std, h)
		}
	}
}

// TestWriterIsPlain: what ustar can say takes one block, and no name of ours nor time is in it.
func TestWriterIsPlain(t *testing.T) {
	archive, err := written(t, &Header{Name: "a", Type: TypeReg, Mode: 0o644, ModTime: Time{Sec: 1}}, nil)
	if err != nil || len(archive) != 3*blockBytes {
		t.Errorf("%d bytes, %v", len(archive), err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for what, h := range map[string]Header{
		"no name":        {Type: TypeReg},
		"NUL":            {Name: "a\x00b", Type: TypeReg},
		"type":           {Name: "a", Type: 'x'},
		"negative owner": {Name: "a", Type: TypeReg, UID: -1},
		"nanoseconds":    {Name: "a", Type: TypeReg, ModTime: Time{Nsec: 1e9}},
		"device":         {Name: "a", Type: TypeChar, Major: 1 << 30},
		"attribute":      {Name: "a", Type: TypeReg, Xattrs: []Xattr{{Name: "user.a=b"}}},
	} {
		if _, err := written(t, &h, nil); err == nil {
			t.Errorf("%s: written", what)
		}
	}
	w := NewWriter(io.Discard)
	if err := w.WriteHeader(&Header{Name: "a", Type: TypeReg, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err == nil {
		t.Error("more content than the header says was written")
	}
	if err := w.Close(); err == nil {
		t.Error("an archive with less content than its header says was closed")
	}
}

// FuzzWriter: what is written is read again by our reader and by archive/tar, and says the same.
func FuzzWriter(f *testing.F) {
	f.Add("a/b", "c", byte('2'), uint32(0o755), int64(1), int64(2), int64(-3), int64(4), "user.x", "v")
	f.Add(strings.Repeat("d/", 90)+"\xff", "", byte('0'), uint32(0), int64(1)<<40, int64(0), int64(1)<<40, int64(1), "user.=", "")
	f.Fuzz(func(t *testing.T, name, link string, typ byte, mode uint32, uid, gid, sec, nsec int64, xname, xvalue string) {
		h := Header{Name: name, Linkname: link, Type: typ, Mode: mode & 0o7777, UID: uid, GID: gid, ModTime: Time{sec, nsec}}
		if h.Type != TypeLink && h.Type != TypeSymlink {
			h.Linkname = ""
		}
		if xname != "" {
			h.Xattrs = []Xattr{{Name: xname, Value: []byte(xvalue)}}
		}
		archive, err := written(t, &h, nil)
		if err != nil {
			return
		}
		got, err := NewReader(&whole{archive}, Limits{}).Next()
		if err != nil {
			if len(name)+len(link)+len(xvalue) < 1000 {
				t.Fatalf("%+v cannot be read: %v", h, err)
			}
			return
		}
		if got.Linkname != h.Linkname || got.UID != h.UID || got.GID != h.GID || got.ModTime != h.ModTime || got.Type != h.Type || got.Mode != h.Mode {
			t.Errorf("read %+v, want %+v", got, h)
		}
		if want := strings.TrimRight(h.Name, "/"); strings.TrimRight(got.Name, "/") != want {
			t.Errorf("read name %q, want %q", got.Name, want)
		}
	})
}
