package tree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
)

// TestBounds: what a layer makes us keep in memory is bounded, also where many short names make long paths.
func TestBounds(t *testing.T) {
	var deep, names, attributes, wide []*tar.Header
	for i := range 100 {
		deep = append(deep, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s%d", strings.Repeat("d/", 500), i)})
		names = append(names, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%0250d", i)})
		attributes = append(attributes, &tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 300)}})
		wide = append(wide, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i)})
	}
	for what, c := range map[string]struct {
		headers []*tar.Header
		limits  tree.Limits
	}{
		"paths": {deep, tree.Limits{Bytes: 20_000}}, "names": {names, tree.Limits{Bytes: 20_000}},
		"attributes": {attributes, tree.Limits{Bytes: 20_000}}, "files": {wide, tree.Limits{Files: 99}},
	} {
		img, open := inMemory([][]byte{archive(t, c.headers)})
		if err := tree.New(c.limits).Read(t.Context(), img, open, tree.Options{}); !errors.Is(err, tree.ErrLimit) {
			t.Errorf("%s: %v", what, err)
		}
		if err := tree.New(tree.Limits{}).Read(t.Context(), img, open, tree.Options{}); err != nil {
			t.Errorf("%s without limits: %v", what, err)
		}
	}
}

// TestNotOnDisk: what a file system cannot hold is refused here, too.
func TestNotOnDisk(t *testing.T) {
	for what, bad := range map[string]*tarstream.Header{
		"owner":       {Type: tarstream.TypeReg, UID: 1<<32 - 1},
		"group":       {Type: tarstream.TypeDir, GID: 1<<32 - 1},
		"empty link":  {Type: tarstream.TypeSymlink},
		"long link":   {Type: tarstream.TypeSymlink, Linkname: strings.Repeat("x", 4096)},
		"NUL in link": {Type: tarstream.TypeSymlink, Linkname: "a\x00b"},
		"device":      {Type: tarstream.TypeChar, Major: 1 << 12},
	} {
		bad.Name = "f"
		if _, err := tree.New(tree.Limits{}).AddLayer().Add(bad); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	good := &tarstream.Header{Name: "f", Type: tarstream.TypeSymlink, Linkname: strings.Repeat("x", 4095), UID: 1<<32 - 2}
	if _, err := tree.New(tree.Limits{}).AddLayer().Add(good); err != nil {
		t.Error(err)
	}
}

// TestManyOpaque: whiteouts that say the same again take no time. With a look at all files for each it would be hours.
func TestManyOpaque(t *testing.T) {
	const n = 100_000
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	merged := tree.New(tree.Limits{})
	l := merged.AddLayer()
	for i := range n {
		if _, err := l.Add(&tarstream.Header{Type: tarstream.TypeReg, Name: fmt.Sprint("d/", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 * n {
		name := "d/.wh..wh..opq"
		if i%2 == 1 {
			name = ".wh.d"
		}
		if _, err := l.Add(&tarstream.Header{Type: tarstream.TypeReg, Name: name}); err != nil || ctx.Err() != nil {
			t.Fatal(i, err, ctx.Err())
		}
	}
	if d, err := merged.Lookup("/d", true); err != nil || len(d.Children()) != n {
		t.Error("its own files are gone", err)
	}
}

// TestHolesBeyondTheLimit: of two files too sparse to be read, nobody says that they are the same.
func TestHolesBeyondTheLimit(t *testing.T) {
	sparse := func(content string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		records := map[string]string{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "f", "GNU.sparse.size": "4096", "GNU.sparse.map": "0,4", "GNU.sparse.numblocks": "1"}
		var body strings.Builder
		for k, v := range records {
			record := fmt.Sprintf(" %s=%s\n", k, v)
			size := len(record) + 2
			fmt.Fprintf(&body, "%d%s", size, record)
		}
		head := make([]byte, 512)
		copy(head, "pax\x00")
		copy(head[100:], "0000644\x000000000\x000000000\x00")
		copy(head[124:], fmt.Sprintf("%011o\x0000000000000\x00", body.Len()))
		head[156] = 'x'
		copy(head[257:], "ustar\x0000")
		sum := 8 * int(' ')
		for _, c := range head {
			sum += int(c)
		}
		copy(head[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(head)
		b.WriteString(body.String())
		b.Write(make([]byte, -body.Len()&511))
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 4, Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	read := func(blob []byte, limits tree.Limits) *tree.Tree {
		merged := tree.New(limits)
		img, open := inMemory([][]byte{blob})
		if err := merged.Read(t.Context(), img, open, tree.Options{Sums: true, Layers: layer.Limits{}}); err != nil {
			t.Fatal(err)
		}
		return merged
	}
	for _, c := range []struct {
		a, b   string
		limits tree.Limits
		differ int
	}{
		{"same", "same", tree.Limits{}, 0}, {"this", "that", tree.Limits{}, 1},
		{"this", "that", tree.Limits{HolesBytes: 4091}, 1}, {"this", "that", tree.Limits{HolesBytes: 4092}, 1}, {"same", "same", tree.Limits{HolesBytes: 4092}, 0},
	} {
		if changes := tree.Compare(read(sparse(c.a), c.limits), read(sparse(c.b), c.limits)); len(changes) != c.differ {
			t.Errorf("%q and %q: %v", c.a, c.b, changes)
		}
	}
}
