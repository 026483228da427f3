package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
)

// entry is a member of an archive to be made: a file, or a link.
type entry struct {
	name, content, link string
	typ                 byte
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Size: int64(len(e.content)), Linkname: e.link, Mode: 0o644}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadAll copies all of an archive to a new store, which must then be sound.
func loadAll(ctx context.Context, t testing.TB, path string, form archive.Form) ([]layout.Name, error) {
	t.Helper()
	a, err := archive.Open(ctx, path, form, archive.Options{SpoolDir: t.TempDir()})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	store, err := layout.Open(t.TempDir(), layout.Options{Create: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	session, err := store.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, n := range a.Names() {
		dst, err := session.Destination(n.Name)
		if err != nil {
			return nil, err
		}
		if _, err := transfer.Copy(ctx, dst, a.Source(n.Desc, false), transfer.Options{All: true, Sparse: true}); err != nil {
			return nil, err
		}
	}
	report, err := store.Fsck(ctx, layout.FsckOptions{DiffIDs: true})
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("the store that %s was loaded into: %v, %v", path, report.Problems, err)
	}
	return store.List(ctx)
}

// layerTar is a layer with one file.
func layerTar(t testing.TB, name string) string {
	return string(tarOf(t, entry{name: name, content: name}))
}

// configFor is the config of an image with these layers.
func configFor(layers ...string) string {
	var ids []string
	for _, l := range layers {
		ids = append(ids, fmt.Sprintf("%q", digest.FromString(l)))
	}
	return fmt.Sprintf(`{"architecture":"amd64","os":"linux","docker_version":"1.12","config":{"Cmd":["x"]},"rootfs":{"type":"layers","diff_ids":[%s]}}`,
		strings.Join(ids, ","))
}

// TestDockerGenerations reads the forms that docker save had, and what docker
// load takes besides: layers that are links to others, and compressed ones.
func TestDockerGenerations(t *testing.T) {
	one, two := layerTar(t, "one"), layerTar(t, "two")
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	io.WriteString(zw, two)
	zw.Close()
	manifest := func(layers string) string {
		return `[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":[` + layers + `]}]`
	}
	for name, entries := range map[string][]entry{
		"manifest": {{name: "manifest.json", content: manifest(`"x/layer.tar","y/layer.tar"`)}, {name: "c.json", content: configFor(one, two)},
			{name: "x/", typ: tar.TypeDir}, {name: "x/layer.tar", content: one}, {name: "y/layer.tar", content: two}},
		"symlink": {{name: "manifest.json", content: manifest(`"x/layer.tar","y/layer.tar","z/layer.tar"`)}, {name: "c.json", content: configFor(one, two, one)},
			{name: "z/layer.tar", typ: tar.TypeSymlink, link: "../x/layer.tar"}, {name: "x/layer.tar", content: one}, {name: "y/layer.tar", content: two}},
		"compressed": {{name: "manifest.json", content: manifest(`"x","y"`)}, {name: "c.json", content: configFor(one, two)},
			{name: "x", content: one}, {name: "y", content: zipped.String()}},
		"legacy": {{name: "repositories", content: `{"a":{"1":"top"},"b":{"2":"top"}}`},
			{name: "top/json", content: `{"id":"top","parent":"low","architecture":"amd64","os":"linux","config":{"Cmd":["x"]},"container_config":{"Cmd":["make"]}}`},
			{name: "top/layer.tar", content: two}, {name: "low/json", content: `{"id":"low","created":"2014-01-01T00:00:00Z"}`}, {name: "low/layer.tar", content: one}},
	} {
		names, err := loadAll(t.Context(), t, write(t, tarOf(t, entries...)), archive.Any)
		if err != nil || len(names) != 2 || names[0].Name != "a:1" || names[1].Name != "b:2" || names[0].Desc.Digest != names[1].Desc.Digest {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
}

func TestBadArchives(t *testing.T) {
	one := layerTar(t, "one")
	ok := func(more ...entry) []entry {
		return append([]entry{{name: "manifest.json", content: `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`}, {name: "c", content: configFor(one)}}, more...)
	}
	whole := tarOf(t, ok(entry{name: "l", content: one})...)
	oci := func(index string, more ...entry) []byte {
		return tarOf(t, append([]entry{{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, {name: "index.json", content: index}}, more...)...)
	}
	missing := digest.FromString("missing")
	for name, bad := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "is empty"},
		"text":              {[]byte(strings.Repeat("no archive ", 100)), "not a tar archive"},
		"no image":          {tarOf(t, entry{name: "etc/passwd"}), `neither an OCI archive (oci-layout) nor a docker archive (manifest.json): it has "etc/passwd"`},
		"truncated":         {whole[:len(whole)-3000], `member "l": truncated`},
		"twice":             {tarOf(t, ok(entry{name: "l", content: one}, entry{name: "./l", content: one})...), `member "./l": is there twice`},
		"dot dot":           {tarOf(t, entry{name: "../manifest.json", content: "[]"}), `member "../manifest.json": name leads out`},
		"link out":          {tarOf(t, ok(entry{name: "l", typ: tar.TypeSymlink, link: "../../etc/passwd"})...), `member "l": link to "../../etc/passwd"`},
		"absolute link":     {tarOf(t, ok(entry{name: "l", typ: tar.TypeSymlink, link: "/etc/passwd"})...), `link to "/etc/passwd": is absolute`},
		"links in a circle": {tarOf(t, ok(entry{name: "l", typ: tar.TypeSymlink, link: "m"}, entry{name: "m", typ: tar.TypeSymlink, link: "l"})...), `member "l": more links`},
		"long name":         {tarOf(t, entry{name: strings.Repeat("n/", 512) + "n"}), "name longer than 1024 bytes"},
		"long link":         {tarOf(t, ok(entry{name: "l", typ: tar.TypeSymlink, link: strings.Repeat("n/", 513)})...), "invalid argument"},
		"link to nothing":   {tarOf(t, ok(entry{name: "l", typ: tar.TypeLink, link: "m"})...), `leads to "m", which is missing`},
		"device":            {tarOf(t, entry{name: "l", typ: tar.TypeChar}), "neither a file nor a directory"},
		"missing layer":     {tarOf(t, ok()...), `member "l" is missing`},
		"missing config":    {tarOf(t, entry{name: "manifest.json", content: `[{"Config":"../../etc/passwd","Layers":[]}]`}), `member "../../etc/passwd": name leads out`},
		"wrong layer":       {tarOf(t, ok(entry{name: "l", content: layerTar(t, "two")})...), "content has digest"},
		"layers short":      {tarOf(t, entry{name: "manifest.json", content: `[{"Config":"c","Layers":[]}]`}, entry{name: "c", content: configFor(one)}), "0 layers, but the config has 1"},
		"not a list":        {tarOf(t, entry{name: "manifest.json", content: `{"a":1}`}), "not a list of images"},
		"huge manifest":     {tarOf(t, entry{name: "manifest.json", content: "[" + strings.Repeat(" ", 17<<20) + "]"}), `member "manifest.json": 17825794 bytes, more than`},
		"bad tag":           {tarOf(t, entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["a\nb"],"Layers":[]}]`}, entry{name: "c", content: configFor()}), "RepoTags"},
		"many tags":         {tarOf(t, entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["a:1"` + strings.Repeat(`,"a:1"`, 1<<14) + `],"Layers":[]}]`}, entry{name: "c", content: configFor()}), "more than 16384 tags"},
		"parents":           {tarOf(t, entry{name: "repositories", content: `{"a":{"1":"x"}}`}, entry{name: "x/json", content: `{"parent":"x","throwaway":true}`}), "circle of parents"},
		"layout version":    {tarOf(t, entry{name: "oci-layout", content: `{"imageLayoutVersion":"9"}`}, entry{name: "index.json", content: "{}"}), "imageLayoutVersion"},
		"no index":          {tarOf(t, entry{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}), `member "index.json" is missing`},
		"missing blob":      {oci(`{"schemaVersion":2,"manifests":[{"mediaType":"` + v1.MediaTypeImageManifest + `","digest":"` + string(missing) + `","size":7}]}`), "blobs/sha256/" + missing.Encoded()},
		"bad digest":        {oci(`{"schemaVersion":2,"manifests":[{"mediaType":"` + v1.MediaTypeImageManifest + `","digest":"sha256:../../x","size":7}]}`), "manifests[0].digest"},
		"size lies": {oci(`{"schemaVersion":2,"manifests":[{"mediaType":"`+v1.MediaTypeImageManifest+`","digest":"`+string(missing)+`","size":8}]}`,
			entry{name: "blobs/sha256/" + missing.Encoded(), content: "missing"}), "7 bytes, descriptor says 8"},
		"xz":         {[]byte("\xfd7zXZ\x00 and so on"), "xz"},
		"bad gzip":   {[]byte("\x1f\x8b\x08 and so on, and on"), "put aside"},
		"bad member": {append(bytes.Clone(whole[:512]), bytes.Repeat([]byte{0xff}, 4096)...), "member 2"},
	} {
		_, err := loadAll(t.Context(), t, write(t, bad.data), archive.Any)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %q", name, err, bad.want)
		}
		if err != nil && !errors.Is(err, image.ErrMismatch) && !strings.Contains(err.Error(), "a.tar") { // a blob has its digest for a name
			t.Errorf("%s: %v does not name the archive", name, err)
		}
	}
}

// TestFileByLink: a symbolic link stays what it is, and what one of our open
// files is called is no name to replace, as /dev/stdout has one.
func TestFileByLink(t *testing.T) {
	dir := t.TempDir()
	for _, link := range [][2]string{{"there", "file"}, {"missing", "new"}, {"chain", dir + "/there"}} {
		if err := os.Symlink(link[1], filepath.Join(dir, link[0])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	before, err := open.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fd := fmt.Sprintf("/proc/self/fd/%d", open.Fd())
	if err := os.Symlink(fd, filepath.Join(dir, "stdout")); err != nil {
		t.Fatal(err)
	}
	for path, target := range map[string]string{"there": "file", "missing": "new", "chain": "file", "stdout": "open"} {
		path = filepath.Join(dir, path)
		f, err := archive.NewFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, path); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Commit(), f.Close()); err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(path)
		got, rerr := os.ReadFile(filepath.Join(dir, target))
		if err != nil || st.Mode()&fs.ModeSymlink == 0 || rerr != nil || string(got) != path {
			t.Errorf("%s: %v, %v; %s has %q, %v", path, st, err, target, got, rerr)
		}
	}
	if after, err := os.Stat(filepath.Join(dir, "open")); err != nil || !os.SameFile(before, after) {
		t.Errorf("an open file was replaced: %v", err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.NewFile(filepath.Join(dir, "loop")); err == nil {
		t.Error("a link to itself was written to")
	}
}

// TestTruncated cuts an archive everywhere: each is an error, or whole.
func TestTruncated(t *testing.T) {
	one := layerTar(t, "one")
	whole := tarOf(t, entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`},
		entry{name: "c", content: configFor(one)}, entry{name: "l", content: one})
	end := len(whole) - 1024 // what follows is the mark of the end
	for n := 0; n < end; n += 256 {
		if _, err := loadAll(t.Context(), t, write(t, whole[:n]), archive.Any); err == nil && n < end-512 {
			t.Errorf("the first %d of %d bytes were taken", n, len(whole))
		}
	}
}

// TestBomb is a small file that unpacks to a large one.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 400 {
		if _, err := zw.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	zw.Close()
	dir := t.TempDir()
	_, err := archive.Open(t.Context(), write(t, b.Bytes()), archive.Any, archive.Options{SpoolDir: dir})
	if err == nil || !strings.Contains(err.Error(), "more than 500 times") {
		t.Errorf("%v", err)
	}
	_, err = archive.Open(t.Context(), write(t, b.Bytes()), archive.Any, archive.Options{SpoolDir: dir, MaxSpoolBytes: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestUnfinished: an archive that was not committed was never there, and one
// that could not be written whole does not take the place of another.
func TestUnfinished(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "out.tar")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := archive.Create(path, archive.WriteOptions{Form: archive.OCI})
	if err != nil {
		t.Fatal(err)
	}
	dst := w.Destination(archive.Name{Ref: "x"}, true)
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("right"), Size: 5}
	wrong := func(int64) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("wrong")), nil }
	if err := dst.PutBlob(ctx, desc, wrong); !errors.Is(err, image.ErrMismatch) {
		t.Errorf("wrong content: %v", err)
	}
	right := func(int64) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("right")), nil }
	if err := dst.PutBlob(ctx, desc, right); err != nil {
		t.Errorf("right content after wrong: %v", err)
	}
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestRealImages takes each of the test images through both forms, and has
// skopeo and umoci read them.
func TestRealImages(t *testing.T) {
	ctx := t.Context()
	for _, name := range []string{"small", "medium", "zstd"} {
		store, err := layout.Open(filepath.Join(testenv.Images(t), name), layout.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		desc, err := store.Resolve(ctx, "latest")
		if err != nil {
			t.Fatal(err)
		}
		img, err := image.Load(ctx, store, desc)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []archive.Form{archive.OCI, archive.Docker} {
			path := filepath.Join(t.TempDir(), "a.tar")
			w, err := archive.Create(path, archive.WriteOptions{Form: form})
			if err != nil {
				t.Fatal(err)
			}
			full := "localhost/" + name + ":v1"
			dst := w.Destination(archive.Name{Ref: full, Image: full, Tag: full}, true)
			_, err = transfer.Copy(ctx, dst, store.Source(desc), transfer.Options{})
			if err := errors.Join(err, dst.Commit(ctx), dst.Close()); err != nil {
				t.Fatal(err)
			}
			from := "oci-archive:" + path + ":" + full
			if form == archive.Docker {
				from = "docker-archive:" + path + ":" + full
			}
			testenv.Run(t, "skopeo", "--insecure-policy", "copy", "--quiet", from, "dir:"+t.TempDir()) // it verifies all
			ours, err := store.Fetch(ctx, img.Manifest.Config)
			if theirs := testenv.Run(t, "skopeo", "inspect", "--config", "--raw", from); err != nil || theirs != string(ours) {
				t.Errorf("%s: skopeo finds the config %s, it is %s, %v", from, theirs, ours, err)
			}
			names, err := loadAll(ctx, t, path, form)
			if err != nil || len(names) != 1 || names[0].Name != full {
				t.Errorf("%s: %v, %v", from, names, err)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	one := layerTar(f, "one")
	f.Add(tarOf(f, entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`},
		entry{name: "c", content: configFor(one)}, entry{name: "l", content: one}))
	f.Add(tarOf(f, entry{name: "repositories", content: `{"a":{"1":"x"}}`}, entry{name: "x/json", content: `{"id":"x"}`}, entry{name: "x/layer.tar", content: one}))
	f.Add(tarOf(f, entry{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, entry{name: "index.json", content: `{"schemaVersion":2,"manifests":[]}`}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := loadAll(t.Context(), t, write(t, data), archive.Any)
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			t.Errorf("a path was looked up: %v", err)
		}
	})
}
