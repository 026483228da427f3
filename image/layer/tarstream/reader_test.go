package tarstream

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pieces hands out a stream in pieces of a given size, so that headers and data are cut at every place.
type pieces struct {
	data []byte
	size int
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.data) == 0 {
		return nil, io.EOF
	}
	n := min(p.size, len(p.data))
	b := bytes.Clone(p.data[:n]) // its own memory, as a piece stays valid only until the next call
	p.data = p.data[n:]
	return b, nil
}

// entry is what the two readers are compared by.
type entry struct {
	name, link   string
	typ          byte
	mode         uint32
	uid, gid     int64
	size         int64
	mtime        Time
	major, minor int64
	xattrs       string
	data         [32]byte
}

func (e entry) String() string {
	return fmt.Sprintf("%q -> %q %c %o %d:%d size %d mtime %d dev %d:%d xattrs %s data %x",
		e.name, e.link, e.typ, e.mode, e.uid, e.gid, e.size, e.mtime, e.major, e.minor, e.xattrs, e.data[:4])
}

// maxTestBytes is the largest file whose holes are written out to be hashed.
const maxTestBytes = 1 << 22

func readOurs(archive []byte, size int) (entries []entry, err error) {
	r := NewReader(&pieces{archive, size}, Limits{})
	for {
		h, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		e := entry{name: h.Name, link: h.Linkname, typ: h.Type, mode: h.Mode, uid: h.UID, gid: h.GID, size: h.Size,
			mtime: h.ModTime, major: h.Major, minor: h.Minor}
		for _, x := range h.Xattrs {
			if len(x.Value) > 0 { // archive/tar drops empty ones
				e.xattrs += fmt.Sprintf("%q=%q ", x.Name, x.Value)
			}
		}
		content := make([]byte, min(h.Size, maxTestBytes))
		last := int64(0)
		for {
			offset, piece, err := r.Data()
			if err == io.EOF {
				break
			}
			if err != nil {
				return entries, err
			}
			if offset < last || len(piece) == 0 || offset+int64(len(piece)) > h.Size {
				return entries, fmt.Errorf("data of %d bytes at %d after %d in a file of %d", len(piece), offset, last, h.Size)
			}
			if last = offset + int64(len(piece)); last <= maxTestBytes {
				copy(content[offset:], piece)
			}
		}
		if h.Size <= maxTestBytes {
			e.data = sha256.Sum256(content)
		}
		entries = append(entries, e)
	}
}

func readStandard(archive []byte) (entries []entry, err error) {
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeVolume {
			continue
		}
		e := entry{name: h.Name, link: h.Linkname, typ: h.Typeflag, mode: uint32(h.Mode) & 0o7777, uid: int64(h.Uid), gid: int64(h.Gid),
			size: h.Size, mtime: Time{h.ModTime.Unix(), int64(h.ModTime.Nanosecond())}, major: h.Devmajor, minor: h.Devminor}
		if e.typ == tar.TypeCont || e.typ == tar.TypeGNUSparse {
			e.typ = tar.TypeReg
		}
		switch e.typ {
		case TypeReg:
		default:
			e.size = 0
		}
		var xattrs []string
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, schilyXattr); ok && v != "" {
				xattrs = append(xattrs, fmt.Sprintf("%q=%q ", name, v))
			}
			if x, ok := otherXattr(k, []byte(v)); ok && len(x.Value) > 0 {
				if _, have := h.PAXRecords[schilyXattr+x.Name]; !have {
					xattrs = append(xattrs, fmt.Sprintf("%q=%q ", x.Name, x.Value))
				}
			}
		}
		e.xattrs = strings.Join(xattrs, "")
		if e.size <= maxTestBytes {
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				return entries, err
			}
			sum.Sum(e.data[:0])
		}
		entries = append(entries, e)
	}
}

// sameXattrs compares what two readers list in different order.
func sameXattrs(a, b string) bool {
	count := func(s string) map[string]int {
		m := map[string]int{}
		for f := range strings.SplitAfterSeq(s, "\" ") {
			m[f]++
		}
		return m
	}
	return len(a) == len(b) && fmt.Sprint(count(a)) == fmt.Sprint(count(b))
}

func diff(ours, standard []entry) error {
	for i, o := range ours {
		if i >= len(standard) {
			return fmt.Errorf("entry %d: %v, archive/tar has none", i, o)
		}
		s := standard[i]
		if sameXattrs(o.xattrs, s.xattrs) {
			s.xattrs = o.xattrs
		}
		if o != s {
			return fmt.Errorf("entry %d:\n     %v\nwant %v", i, o, s)
		}
	}
	if len(ours) < len(standard) {
		return fmt.Errorf("archive/tar has more: %v", standard[len(ours)])
	}
	return nil
}

// TestStandardCorpus reads the archives that the standard library tests its own reader with.
func TestStandardCorpus(t *testing.T) {
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "src/archive/tar/testdata/*.tar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	// These we refuse and archive/tar does not, besides all those that have no end mark.
	stricter := map[string]string{
		"gnu-incremental.tar": "unknown entry type",
	}
	for _, file := range files {
		name := filepath.Base(file)
		archive, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		standard, serr := readStandard(archive)
		for _, size := range []int{1 << 20, 512, 1000, 7} {
			ours, err := readOurs(archive, size)
			switch reason, known := stricter[name]; {
			case err == nil && serr != nil:
				t.Errorf("%s: read, but archive/tar says %v", name, serr)
			case err != nil && serr == nil && !errors.Is(err, ErrNoTrailer) && !(known && strings.Contains(err.Error(), reason)):
				t.Errorf("%s in pieces of %d: %v", name, size, err)
			case err == nil || errors.Is(err, ErrNoTrailer):
				if err := diff(ours, standard); err != nil {
					t.Errorf("%s in pieces of %d: %v", name, size, err)
				}
			}
		}
	}
}

// sample is an archive with something of everything that archive/tar can write.
func sample(t testing.TB) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := strings.Repeat("long/", 60)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o4755, Size: 700, Uid: 7, Gid: 8, ModTime: time.Unix(1e9, 0)},
		{Typeflag: tar.TypeReg, Name: long + "f", Size: 1, ModTime: time.Unix(-5, 250e6), Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00=\n", "SCHILY.xattr.security.capability": "\x01\x00"}},
		{Typeflag: tar.TypeReg, Name: long + "\xe4", Size: 512, Format: tar.FormatGNU, Uid: 1 << 31},
		{Typeflag: tar.TypeLink, Name: "l", Linkname: "d/f"},
		{Typeflag: tar.TypeSymlink, Name: "s", Linkname: long},
		{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "not applied"}},
		{Typeflag: tar.TypeFifo, Name: "p"},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTruncatedAtEveryBlock(t *testing.T) {
	archive := sample(t)
	for n := 0; n < len(archive); n += blockBytes {
		_, err := readOurs(archive[:n], 4096)
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrNoTrailer) {
			t.Errorf("cut at %d of %d: %v", n, len(archive), err)
		}
		if n > 0 {
			if _, err := readOurs(archive[:n-1], 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut at %d of %d: %v", n-1, len(archive), err)
			}
		}
	}
}

func TestTrailing(t *testing.T) {
	archive := sample(t)
	if _, err := readOurs(append(bytes.Clone(archive), make([]byte, 9000)...), 4096); err != nil {
		t.Errorf("zeros after the end: %v", err)
	}
	if _, err := readOurs(append(bytes.Clone(archive), 0, 0, 1), 4096); !errors.Is(err, ErrTrailing) {
		t.Errorf("a byte after the end: %v", err)
	}
}

func TestEveryFlippedHeaderByteIsNoticed(t *testing.T) {
	archive := sample(t)[:512]
	for i := range 512 {
		if 148 <= i && i < 156 {
			continue // the checksum itself has several spellings
		}
		bad := bytes.Clone(archive)
		bad[i] ^= 0x10
		if _, err := readOurs(append(bad, make([]byte, 1024)...), 4096); err == nil {
			t.Errorf("byte %d flipped, nobody noticed", i)
		}
	}
}

func TestGNUTarSparse(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(40) { // more extents than fit in a header and one extension
		if _, err := f.WriteAt([]byte(fmt.Sprint("data", i)), i*65536); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(3<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"} {
		args := []string{"-C", dir, "-S", "-cf", "-", "sparse"}
		if strings.HasPrefix(format, "--sparse") {
			args = append([]string{"--format=posix"}, args...)
		}
		archive, err := exec.CommandContext(t.Context(), "tar", append([]string{format}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		standard, err := readStandard(archive)
		if err != nil || len(standard) != 1 {
			t.Fatalf("%s: archive/tar: %v", format, err)
		}
		for _, size := range []int{1 << 20, 512, 100} {
			ours, err := readOurs(archive, size)
			if err == nil {
				err = diff(ours, standard)
			}
			if err != nil {
				t.Errorf("%s in pieces of %d: %v", format, size, err)
			}
		}
		r := NewReader(&pieces{archive, 1 << 20}, Limits{})
		if h, err := r.Next(); err != nil || !h.Sparse || len(h.Extents) != 40 || h.Size != 3<<20 {
			t.Errorf("%s: %+v, %v", format, h, err)
		}
	}
}

// pax is an archive of one file with the given PAX records (format %d %s=%s\n is the caller's) and data.
func pax(t testing.TB, records map[string]string, data string) []byte {
	var b bytes.Buffer
	body := ""
	for k, v := range records {
		n := len(k) + len(v) + 3
		n += len(fmt.Sprint(n + len(fmt.Sprint(n))))
		body += fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	rawEntry(&b, typePAX, "x", body)
	rawEntry(&b, TypeReg, "file", data)
	b.Write(make([]byte, 2*blockBytes))
	return b.Bytes()
}

func rawEntry(w *bytes.Buffer, typ byte, name, data string) {
	b := make([]byte, blockBytes)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(data)))
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	sum := 8 * int(' ')
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	w.Write(b)
	w.WriteString(data)
	w.Write(make([]byte, int(padded(int64(len(data))))-len(data)))
}

func TestBadSparseMaps(t *testing.T) {
	for what, m := range map[string]map[string]string{
		"overlap":      {"GNU.sparse.map": "0,5,4,5", "GNU.sparse.numblocks": "2", "GNU.sparse.size": "100"},
		"descending":   {"GNU.sparse.map": "10,5,0,5", "GNU.sparse.numblocks": "2", "GNU.sparse.size": "100"},
		"outside":      {"GNU.sparse.map": "95,10", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "100"},
		"overflow":     {"GNU.sparse.map": "9223372036854775807,10", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "9223372036854775807"},
		"negative":     {"GNU.sparse.map": "-5,10", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "100"},
		"negative len": {"GNU.sparse.map": "5,-10", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "100"},
		"count":        {"GNU.sparse.map": "0,10", "GNU.sparse.numblocks": "2", "GNU.sparse.size": "100"},
		"huge count":   {"GNU.sparse.map": "0,10", "GNU.sparse.numblocks": "9223372036854775807", "GNU.sparse.size": "100"},
		"too little":   {"GNU.sparse.map": "0,9", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "100"},
		"not a number": {"GNU.sparse.map": "0,ten", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "100"},
		"neg size":     {"GNU.sparse.map": "0,10", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "-1"},
		"1.0 too long": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"},
	} {
		if got, err := readOurs(pax(t, m, "0123456789"), 4096); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func TestHugeMeta(t *testing.T) {
	archive := pax(t, map[string]string{"comment": strings.Repeat("x", defaultMetaBytes)}, "")
	if _, err := readOurs(archive, 4096); !errors.Is(err, ErrTooLarge) {
		t.Errorf("PAX header of more than 1 MiB: %v", err)
	}
	var b bytes.Buffer
	rawEntry(&b, typeLongName, "x", "")
	copy(b.Bytes()[124:], "77777777777\x00")
	fixChecksums(b.Bytes())
	if _, err := readOurs(b.Bytes(), 4096); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a long name of 8 GiB: %v", err)
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[string]Time{
		"0": {}, "-1": {-1, 0}, "-0.5": {-1, 5e8}, "-86400.000000001": {-86401, 999999999}, "12.": {12, 0},
		"1.1234567899": {1, 123456789},
	} {
		if got, err := parseTime(s); err != nil || got != want {
			t.Errorf("parseTime(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", ".5", "1.x", "1,5", "1e3", "99999999999999999999"} {
		if got, err := parseTime(s); err == nil {
			t.Errorf("parseTime(%q) = %v", s, got)
		}
	}
}

// FuzzReader holds this reader to archive/tar: what it accepts, that accepts too, and with the same entries.
func FuzzReader(f *testing.F) {
	f.Add(sample(f), uint16(511))
	f.Add(pax(f, map[string]string{"GNU.sparse.map": "5,5,50,5", "GNU.sparse.numblocks": "2", "GNU.sparse.size": "100"}, "0123456789"), uint16(999))
	f.Add(pax(f, map[string]string{"path": "a\x00b", "mtime": "-1.5"}, "0"), uint16(4095))
	f.Fuzz(func(t *testing.T, archive []byte, pieceBytes uint16) {
		size := int(pieceBytes) + 1
		archive = bytes.Clone(archive) // the fuzzer's own must stay as it is
		fixChecksums(archive)
		ours, err := readOurs(archive, size)
		if err != nil {
			return
		}
		standard, serr := readStandard(archive)
		if serr != nil {
			t.Fatalf("read, but archive/tar says %v", serr)
		}
		if err := diff(ours, standard); err != nil {
			t.Error(err)
		}
	})
}

// fixChecksums lets mutations get past the checksum: every block that looks like a header gets a right one.
func fixChecksums(archive []byte) {
	for i := 0; i+blockBytes <= len(archive); i += blockBytes {
		b := archive[i : i+blockBytes]
		if string(b[257:262]) != "ustar" {
			continue
		}
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
}
