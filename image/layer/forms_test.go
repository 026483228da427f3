package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// oddTree makes files of every type and with every attribute that some format of archive has a form of its own for.
func oddTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) error { return os.WriteFile(in(name), []byte(content), 0o644) }
	long := strings.Repeat("l", 120)
	sparse, err := os.Create(in("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(30) {
		if _, err := sparse.WriteAt([]byte("data"), i*200_000); err != nil {
			t.Fatal(err)
		}
	}
	old := []unix.Timespec{{Sec: -300000000, Nsec: 123456789}, {Sec: -300000000, Nsec: 123456789}}
	for _, err := range []error{
		sparse.Truncate(8 << 20), sparse.Close(), write("f", "f"), write("old", ""), write("latin1-\xe4", "l"), write("new\nline", "n"), write("= pax", "="),
		os.MkdirAll(in(long+"/"+long), 0o755), write(long+"/"+long+"/"+long, "deep"), os.Symlink(long+"/"+long+"/"+long, in("longlink")),
		os.Link(in("f"), in("hardlink")), os.Symlink("f", in("symlink")), os.Link(in("symlink"), in("hardlink-to-symlink")),
		os.Mkdir(in("dir"), 0o2751), os.Chmod(in("dir"), 0o2751|os.ModeSetgid), write("dir/mode0", "0"), os.Chmod(in("dir/mode0"), 0), write("suid", "s"), os.Chmod(in("suid"), 0o755|os.ModeSetuid),
		unix.Mkfifo(in("fifo"), 0o640), unix.Mknod(in("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(4, 300))), unix.Mknod(in("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))),
		write("owned", "o"), os.Lchown(in("owned"), 1<<21, 1<<21+1), write("nobody", "n"), os.Lchown(in("nobody"), 1<<32-2, 1<<31),
		unix.UtimesNanoAt(unix.AT_FDCWD, in("old"), old, 0),
		write("xattr", "x"), unix.Setxattr(in("xattr"), "user.a b", []byte("\x00\xff\n"), 0), unix.Setxattr(in("xattr"), "user.empty", nil, 0), write("capable", "c"), write("acl", "a"),
		unix.Setxattr(in("capable"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, testenv.Tool(t, "setfacl"), "-m", "u:70007:rw,g:70008:r", in("acl"))
	testenv.Run(t, testenv.Tool(t, "setfacl"), "-d", "-m", "u:70007:rwx", in("dir"))
	return dir
}

// TestFormsOfArchives has GNU tar and bsdtar make an archive in each of their formats, and compares what we make of it with
// what the same tool does.
func TestFormsOfArchives(t *testing.T) {
	testenv.Root(t)
	source := oddTree(t)
	gnu, bsd := testenv.Tool(t, "tar"), testenv.Tool(t, "bsdtar")
	for what, c := range map[string]struct {
		make    []string // up to the archive's name
		without []string // what the format cannot have
		tool    string
	}{
		"gnu":                 {tool: gnu, make: []string{"--format=gnu", "-S"}},
		"oldgnu":              {tool: gnu, make: []string{"--format=oldgnu", "-S"}},
		"ustar":               {tool: gnu, make: []string{"--format=ustar"}, without: []string{"old", "nobody", "owned", "lll*", "longlink"}},
		"v7":                  {tool: gnu, make: []string{"--format=v7"}, without: []string{"old", "nobody", "owned", "lll*", "longlink", "fifo", "char", "block"}},
		"posix":               {tool: gnu, make: []string{"--format=posix", "--xattrs", "--xattrs-include=*"}},
		"posix, 0.0":          {tool: gnu, make: []string{"--format=posix", "-S", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"}},
		"posix, 0.1":          {tool: gnu, make: []string{"--format=posix", "-S", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*"}},
		"posix, 1.0":          {tool: gnu, make: []string{"--format=posix", "-S", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"}},
		"posix, ACLs":         {tool: gnu, make: []string{"--format=posix", "--acls"}},
		"bsd pax":             {tool: bsd, make: []string{"--format=pax"}},
		"bsd pax, libarchive": {tool: bsd, make: []string{"--format=pax", "--options=pax:xattrheader=LIBARCHIVE"}},
		"bsd gnutar":          {tool: bsd, make: []string{"--format=gnutar"}},
		"bsd ustar":           {tool: bsd, make: []string{"--format=ustar"}, without: []string{"old", "nobody", "owned", "lll*", "longlink"}},
	} {
		t.Run(what, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "archive.tar")
			args := append(c.make, "--numeric-owner")
			for _, name := range c.without {
				args = append(args, "--exclude=./"+name)
			}
			testenv.Run(t, c.tool, append(args, "-C", source, "-cf", archive, ".")...)
			ours, theirs := t.TempDir(), t.TempDir()
			blob, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Apply(t.Context(), bytes.NewReader(blob), openRoot(t, ours), Options{Name: what, Devices: DevicesCreate})
			if err != nil || r.DroppedXattrs > 0 {
				t.Fatalf("%v, %d attributes dropped", err, r.DroppedXattrs)
			}
			extract := []string{"--numeric-owner", "--same-owner", "-p", "-C", theirs, "-xf", archive}
			switch {
			case c.tool == bsd || strings.Contains(what, "ACL"):
				extract = append(extract, "--acls", "--xattrs")
			default: // without --acls: it would take away those that are attributes
				extract = append(extract, "--xattrs", "--xattrs-include=*")
			}
			testenv.Run(t, c.tool, extract...)
			got, want := testenv.Tree(t, ours), testenv.Tree(t, theirs)
			if c.tool == bsd {
				// It leaves the directory it is called in alone, and counts nanoseconds before 1970 in the wrong direction.
				for _, name := range []string{".", "old"} {
					delete(got, name)
					delete(want, name)
				}
			}
			testenv.SameTree(t, got, want, "ours", "the tool's")
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(ours, "sparse"), &st); err != nil || strings.Contains(what, "0.") && st.Blocks*512 > 1<<20 {
				t.Errorf("a sparse file takes %d blocks, %v", st.Blocks, err)
			}
		})
	}
}

// stargz is a layer as eStargz has it: each entry in gzip members of its own, the table of contents as the last entry, and a
// footer that is an empty member with an extra field.
func stargz(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var blob bytes.Buffer
	member := func(part []byte) int64 {
		at := int64(blob.Len())
		blob.Write(compressGzip(t, part))
		return at
	}
	type tocEntry struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Size   int64  `json:"size,omitempty"`
		Offset int64  `json:"offset,omitempty"`
		Digest string `json:"digest,omitempty"`
	}
	toc := struct {
		Version int        `json:"version"`
		Entries []tocEntry `json:"entries"`
	}{Version: 1}
	for _, h := range headers {
		whole := archive(t, h)
		part := whole[:len(whole)-1024] // without the end mark
		toc.Entries = append(toc.Entries, tocEntry{Name: h.Name, Type: "reg", Offset: member(part), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(h.Name)))})
	}
	text, err := json.Marshal(toc)
	if err != nil {
		t.Fatal(err)
	}
	index := &tar.Header{Typeflag: tar.TypeReg, Name: "stargz.index.json", Size: int64(len(text)), Mode: 0o444}
	var last bytes.Buffer
	w := tar.NewWriter(&last)
	if err := errors.Join(w.WriteHeader(index), errorOf(w.Write(text)), w.Close()); err != nil {
		t.Fatal(err)
	}
	at := member(last.Bytes())
	footer, err := gzip.NewWriterLevel(&blob, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	footer.Extra = fmt.Appendf([]byte{'S', 'G', 22, 0}, "%016xSTARGZ", at)
	if err := footer.Close(); err != nil {
		t.Fatal(err)
	}
	return blob.Bytes()
}

func errorOf(_ int, err error) error { return err }

// zstdChunked is a layer as zstd:chunked has it: frames of their own for the files, then skippable frames with the manifest
// and a footer.
func zstdChunked(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	skippable := func(content []byte) []byte {
		n := len(content)
		return append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, content...)
	}
	var blob []byte
	whole := archive(t, headers...)
	for len(whole) > 0 { // a frame for each header and content: blocks here
		n := min(1024, len(whole))
		blob = w.EncodeAll(whole[:n], blob)
		whole = whole[n:]
	}
	blob = append(blob, skippable(w.EncodeAll([]byte(`{"version":1,"entries":[]}`), nil))...)
	return append(blob, skippable(append(make([]byte, 56), "GnUlInUx"...))...)
}

// TestLazyFormats: blobs that can be read at random are read as plain ones.
func TestLazyFormats(t *testing.T) {
	headers := []*tar.Header{dirEntry("d/"), file("d/f"), {Typeflag: tar.TypeReg, Name: "big", Size: 100_000}, file(".no.prefetch.landmark")}
	for what, blob := range map[string][]byte{"eStargz": stargz(t, headers...), "zstd:chunked": zstdChunked(t, headers...)} {
		root, dir, _ := sandbox(t)
		if err := applyTo(t, root, blob, Options{}); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got := contents(t, dir)
		if got["d/f"] != "d/f" || len(got["big"]) != 100_000 || len(got) < 4 {
			t.Errorf("%s: %d names", what, len(got))
		}
	}
}

// TestZstdChunkedOfSkopeo reads what the containers project's own writer makes.
func TestZstdChunkedOfSkopeo(t *testing.T) {
	image := testImage(t, "small")
	out := filepath.Join(t.TempDir(), "chunked")
	testenv.Run(t, testenv.Tool(t, "skopeo"), "copy", "--dest-compress-format=zstd:chunked", "--dest-compress", "oci:"+image+":latest", "oci:"+out+":latest")
	layers, _ := imageLayers(t, out)
	blob, err := os.ReadFile(filepath.Join(out, "blobs/sha256", layers[0].Digest.Encoded()))
	if err != nil || !bytes.HasSuffix(blob, []byte("GnUlInUx")) {
		t.Fatalf("skopeo wrote something else: %v, %q", err, blob[max(0, len(blob)-8):])
	}
	a, b := t.TempDir(), t.TempDir()
	applyImage(t, image, a)
	// Without the diffID: skopeo before 1.10 drops zeros after the archive's end mark, and does not tell the config.
	if err := applyTo(t, openRoot(t, b), blob, Options{MediaType: layers[0].MediaType}); err != nil {
		t.Fatal(err)
	}
	testenv.SameTree(t, testenv.Tree(t, b), testenv.Tree(t, a), "zstd:chunked", "gzip")
}
