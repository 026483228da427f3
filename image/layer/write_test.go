package layer

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/testenv"
)

func TestWriteAndApply(t *testing.T) {
	testenv.Root(t)
	big := strings.Repeat("0123456789", 100_000)
	entries := []Entry{
		{Name: "bin/tool", Mode: fs.ModeSetuid | 0o755, SizeBytes: int64(len(big)), ModTime: time.Unix(1e9, 5),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(big)), nil }},
		{Name: "bin", Mode: fs.ModeDir | 0o755},
		{Name: "bin/sh", Mode: fs.ModeSymlink | 0o777, Linkname: "tool"},
		{Name: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0::/:/bin/sh\n"), UID: 7},
		{Name: strings.Repeat("long/", 60) + "n\xe4me", Mode: 0o600},
	}
	var first bytes.Buffer
	w, err := Write(&first, entries)
	if err != nil {
		t.Fatal(err)
	}
	if w.SizeBytes != int64(first.Len()) || w.Digest != digest.FromBytes(first.Bytes()) {
		t.Errorf("%+v does not describe the %d bytes written", w, first.Len())
	}
	slices.Reverse(entries)
	var second bytes.Buffer
	if _, err := Write(&second, entries); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("another order gave other bytes (%v)", err)
	}
	dir := t.TempDir()
	r, err := Apply(t.Context(), &first, openRoot(t, dir), Options{DiffID: w.DiffID})
	if err != nil || r.Entries != len(entries) {
		t.Fatalf("%+v, %v", r, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "bin/sh"))
	if err != nil || string(got) != big {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if s := testenv.Tree(t, dir)["bin/tool"]; !strings.HasPrefix(s, "file 4755 0:0 mtime 1000000000.000000005 size 1000000") {
		t.Error(s)
	}
}

func TestWriteRefuses(t *testing.T) {
	for what, entries := range map[string][]Entry{
		"escapes": {{Name: "../x"}},
		"slash":   {{Name: "/x"}},
		"twice":   {{Name: "x"}, {Name: "x"}},
		"socket":  {{Name: "x", Mode: fs.ModeSocket}},
		"mode":    {{Name: "x", Mode: 0o4755}},
		"short":   {{Name: "x", SizeBytes: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil }}},
	} {
		if _, err := Write(io.Discard, entries); err == nil {
			t.Errorf("%s: written", what)
		}
	}
}
