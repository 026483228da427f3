package layout_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
)

func newStore(t *testing.T) *layout.Store {
	t.Helper()
	return openStore(t, t.TempDir(), layout.Options{Create: true, NoSync: true})
}

func openStore(t *testing.T, dir string, opts layout.Options) *layout.Store {
	t.Helper()
	s, err := layout.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t *testing.T, s *layout.Store) *layout.Session {
	t.Helper()
	p, err := s.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func describe(mediaType string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// blobFile is the file of a blob.
func blobFile(s *layout.Store, d digest.Digest) string {
	return filepath.Join(s.Dir(), "blobs", string(d.Algorithm()), d.Encoded())
}

// putImage makes an image of one layer in the store.
func putImage(ctx context.Context, p *layout.Session, layer []byte) (v1.Descriptor, error) {
	desc, err := p.Put(ctx, v1.MediaTypeImageLayer, layer)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return mutate.Apply(ctx, p, nil, mutate.Change{Layers: []mutate.Layer{{Desc: desc, DiffID: desc.Digest}}})
}

// checkClean fails the test when a full check finds anything.
func checkClean(t *testing.T, s *layout.Store) layout.FsckReport {
	t.Helper()
	report, err := s.Fsck(context.Background(), layout.FsckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Errorf("fsck: %s", p)
	}
	return report
}

// files lists what is in a directory of the store, or nothing.
func files(t *testing.T, s *layout.Store, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantError(t *testing.T, what string, err error, is error, parts ...string) {
	t.Helper()
	if err == nil || is != nil && !errors.Is(err, is) {
		t.Errorf("%s: error %v, want %v", what, err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q does not say %q", what, err, part)
		}
	}
}

func TestPutTagResolve(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	desc, err := putImage(ctx, p, []byte("layer"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "127.0.0.1:5000/medium:latest"
	if err := p.Tag(ctx, name, desc); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(ctx, name)
	if err != nil || got.Digest != desc.Digest || got.Annotations != nil {
		t.Fatalf("Resolve = %+v, %v", got, err)
	}
	img, err := image.Select(ctx, s, got, image.HostPlatform())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.OpenVerified(ctx, img.Manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "layer" {
		t.Fatalf("layer %q, %v", data, err)
	}
	b, err := s.Open(ctx, img.Manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	two := make([]byte, 2)
	if _, err := b.ReadAt(two, 3); err != nil || string(two) != "er" || b.Size() != 5 {
		t.Fatalf("ReadAt %q, %v", two, err)
	}
	if report := checkClean(t, s); report.Blobs != 3 {
		t.Errorf("%d blobs, want 3", report.Blobs)
	}
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNames(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	one, _ := p.Put(ctx, "text/plain", []byte("one"))
	two, _ := p.Put(ctx, "text/plain", []byte("two"))
	if _, err := s.Resolve(ctx, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the only name of an empty store: %v", err)
	}
	for i, c := range []struct {
		name string
		desc v1.Descriptor
	}{{"a", one}, {"b", one}, {"a", two}, {"a", two}} {
		if err := p.Tag(ctx, c.name, c.desc); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if got, err := s.Resolve(ctx, ""); err != nil || got.Digest != one.Digest {
				t.Errorf("the only name: %v, %v", got.Digest, err)
			}
		}
	}
	names, err := s.List(ctx)
	if err != nil || len(names) != 2 || names[0].Name != "a" || names[0].Desc.Digest != two.Digest || names[1].Name != "b" {
		t.Errorf("List = %+v, %v", names, err)
	}
	_, err = s.Resolve(ctx, "c")
	wantError(t, "no such name", err, fs.ErrNotExist, `resolve "c"`, `"a", "b"`)
	_, err = s.Resolve(ctx, "")
	wantError(t, "several names", err, nil, "ambiguous")
	if err := s.Untag(ctx, "a"); err != nil {
		t.Error(err)
	}
	wantError(t, "untag twice", s.Untag(ctx, "a"), fs.ErrNotExist)
	wantError(t, "untag nothing", s.Untag(ctx, ""), fs.ErrNotExist)
	for range 2 { // the second time there is one already
		if err := p.AddUnnamed(ctx, two); err != nil {
			t.Error(err)
		}
	}
	wantError(t, "unnamed, of another digest", s.RemoveUnnamed(ctx, one.Digest), fs.ErrNotExist, string(one.Digest))
	if err := s.RemoveUnnamed(ctx, two.Digest); err != nil {
		t.Error(err)
	}
	wantError(t, "unnamed, twice", s.RemoveUnnamed(ctx, two.Digest), fs.ErrNotExist)
	if names, err := s.List(ctx); err != nil || len(names) != 1 || names[0].Name != "b" {
		t.Errorf("List = %+v, %v", names, err)
	}
	absent := describe("text/plain", []byte("absent"))
	wantError(t, "tag what is not there", p.Tag(ctx, "x", absent), fs.ErrNotExist, string(absent.Digest))
	for _, bad := range []string{"", "a b", "a\nb", "\x1b[m", "\xff", strings.Repeat("x", 2000)} {
		wantError(t, "bad name", p.Tag(ctx, bad, one), nil, "name")
	}
	if dir, name := layout.SplitName("/x/y:127.0.0.1:5000/a:b"); dir != "/x/y" || name != "127.0.0.1:5000/a:b" {
		t.Errorf("SplitName = %q, %q", dir, name)
	}
}

func TestOpenForeign(t *testing.T) {
	ctx := context.Background()
	empty := t.TempDir()
	_, err := layout.Open(empty, layout.Options{})
	wantError(t, "no layout", err, nil, empty, "not an image layout")
	_, err = layout.Open(filepath.Join(empty, "absent"), layout.Options{})
	wantError(t, "no directory", err, fs.ErrNotExist, "absent")
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "letter.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = layout.Open(full, layout.Options{Create: true})
	wantError(t, "a directory with other things", err, nil, "letter.txt")
	if got, _ := os.ReadDir(full); len(got) != 1 {
		t.Errorf("made %v in it", got)
	}

	s := newStore(t)
	p := begin(t, s)
	desc, err := p.Put(ctx, "text/plain", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	ro := openStore(t, s.Dir(), layout.Options{ReadOnly: true})
	if _, err := ro.Fetch(ctx, desc); err != nil {
		t.Error(err)
	}
	checkClean(t, ro)
	_, err = ro.Begin(ctx)
	wantError(t, "session", err, layout.ErrReadOnly)
	_, err = ro.GC(ctx, layout.GCOptions{})
	wantError(t, "gc", err, layout.ErrReadOnly)
	wantError(t, "untag", ro.Untag(ctx, "x"), layout.ErrReadOnly)

	for name, change := range map[string]func(dir string) error{
		"version": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o644)
		},
		"huge": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`+strings.Repeat(" ", 64<<10)), 0o644)
		},
		"fifo": func(dir string) error {
			os.Remove(filepath.Join(dir, "oci-layout"))
			return syscall.Mkfifo(filepath.Join(dir, "oci-layout"), 0o644)
		},
		"link to outside": func(dir string) error {
			os.Remove(filepath.Join(dir, "oci-layout"))
			return os.Symlink("/etc/hostname", filepath.Join(dir, "oci-layout"))
		},
	} {
		dir := newStore(t).Dir()
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := layout.Open(dir, layout.Options{ReadOnly: true}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}

	index := `{"schemaVersion":2,"manifests":[]}` + strings.Repeat(" ", 64<<20)
	if err := os.WriteFile(filepath.Join(s.Dir(), "index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = ro.Resolve(ctx, "x")
	wantError(t, "huge index", err, nil, "index.json", "more than")
}
