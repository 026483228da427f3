package layout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
	absent := describe("text/plain", []byte("absent"))
	wantError(t, "tag what is not there", p.Tag(ctx, "x", absent), fs.ErrNotExist, string(absent.Digest))
	for _, bad := range []string{"", "a b", "a\nb", "\x1b[m", "\xff", strings.Repeat("x", 2000)} {
		wantError(t, "bad name", p.Tag(ctx, bad, one), nil, "name")
	}
	if dir, name := layout.SplitName("/x/y:127.0.0.1:5000/a:b"); dir != "/x/y" || name != "127.0.0.1:5000/a:b" {
		t.Errorf("SplitName = %q, %q", dir, name)
	}
}

// ingest writes data to an Ingest, from where it stands.
func ingest(ctx context.Context, p *layout.Session, desc v1.Descriptor, data []byte) error {
	in, err := p.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Write(data[in.Offset():]); err != nil {
		return err
	}
	return in.Commit()
}

func TestIngestResumes(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	data := []byte("0123456789")
	for _, desc := range []v1.Descriptor{describe("a/b", data), {MediaType: "a/b", Digest: digest.SHA512.FromBytes(data), Size: 10}} {
		in, err := p.Ingest(ctx, desc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(data[:4]); err != nil {
			t.Fatal(err)
		}
		wantError(t, "commit too early", in.Commit(), image.ErrMismatch, "4 bytes", string(desc.Digest))
		if has, err := s.Has(ctx, desc); has || err != nil {
			t.Errorf("a partial blob is there: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "commit after close", in.Commit(), fs.ErrClosed)
		_, err = in.Write(data[4:])
		wantError(t, "write after close", err, fs.ErrClosed)

		if in, err = p.Ingest(ctx, desc); err != nil || in.Offset() != 4 {
			t.Fatalf("resumed at %d, %v", in.Offset(), err)
		}
		_, err = in.Write(append(data[4:], 'x'))
		wantError(t, "too much", err, image.ErrMismatch, "more than the 10 bytes", string(desc.Digest))
		if _, err := in.Write(data[4:]); err != nil {
			t.Fatal(err)
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(in.Commit(), in.Close(), in.Discard()); err != nil {
			t.Errorf("after a commit: %v", err)
		}
		if in, err = p.Ingest(ctx, desc); err != nil || in.Offset() != 10 || in.Restart() != nil || in.Commit() != nil {
			t.Errorf("ingest of what is there: at %d, %v", in.Offset(), err)
		}
	}
	if report := checkClean(t, s); report.Blobs != 2 {
		t.Errorf("%d blobs", report.Blobs)
	}
}

func TestIngestThrowsAwayWhatIsWrong(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	good := []byte("the right content")
	desc := describe("a/b", good)
	flipped := slices.Clone(good)
	flipped[3] ^= 1
	err := ingest(ctx, p, desc, flipped)
	wantError(t, "flipped byte", err, image.ErrMismatch, string(desc.Digest))
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("kept for resuming: %v", left)
	}
	// Poison that was left by a write that never came to its Commit.
	in, err := p.Ingest(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(flipped[:8]); err != nil {
		t.Fatal(err)
	}
	in.Close()
	wantError(t, "resumed on poison", ingest(ctx, p, desc, good), image.ErrMismatch)
	if err := ingest(ctx, p, desc, good); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
	// A partial file larger than the blob starts anew.
	other := describe("a/b", []byte("x"))
	partial := filepath.Join(s.Dir(), ".tare/partial", "sha256-"+other.Digest.Encoded())
	if err := os.WriteFile(partial, make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ingest(ctx, p, other, []byte("x")); err != nil {
		t.Error(err)
	}
	for _, bad := range []v1.Descriptor{{}, {MediaType: "a/b", Digest: "sha256:../../x", Size: 1}, {MediaType: "a/b", Digest: desc.Digest, Size: -1}} {
		_, err := p.Ingest(ctx, bad)
		wantError(t, "bad descriptor", err, nil, "ingest blob")
	}
	checkClean(t, s)
}

func TestIngestReplacesDamage(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	data := []byte("what a power failure truncates")
	desc := describe("a/b", data)
	if err := ingest(ctx, p, desc, data); err != nil {
		t.Fatal(err)
	}
	lying := desc
	lying.Size--
	wantError(t, "wrong size in the descriptor", ingest(ctx, p, lying, data), image.ErrMismatch, "descriptor says 29")
	if err := os.Truncate(blobFile(s, desc.Digest), 5); err != nil {
		t.Fatal(err)
	}
	if err := ingest(ctx, p, desc, data); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s)
}

func TestIngestOfOneBlobByMany(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	data := make([]byte, 1<<20)
	desc := describe("a/b", data)
	var writers sync.WaitGroup
	for range 16 {
		p := begin(t, s)
		writers.Go(func() {
			if err := ingest(ctx, p, desc, data); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	p := begin(t, s)
	held, err := p.Ingest(ctx, describe("a/b", []byte("held")))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = p.Ingest(short, describe("a/b", []byte("held")))
	wantError(t, "waiting", err, context.DeadlineExceeded, string(describe("", []byte("held")).Digest))
	// When the first gives up, the second gets its chance.
	second := make(chan error)
	go func() { second <- ingest(ctx, p, describe("a/b", []byte("held")), []byte("held")) }()
	time.Sleep(5 * time.Millisecond)
	if err := held.Discard(); err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if report := checkClean(t, s); report.Blobs != 2 {
		t.Errorf("%d blobs, want 2", report.Blobs)
	}
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
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
}

func TestFsckAndGC(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	images := map[string]v1.Descriptor{}
	for _, name := range []string{"named", "rooted", "indexed", "gone"} {
		desc, err := putImage(ctx, p, []byte("layer of "+name))
		if err != nil {
			t.Fatal(err)
		}
		images[name] = desc
	}
	absent := describe(v1.MediaTypeImageManifest, []byte("absent"))
	text := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d},{"mediaType":%[1]q,"digest":%[4]q,"size":9}]}`,
		v1.MediaTypeImageManifest, images["indexed"].Digest, images["indexed"].Size, absent.Digest)
	sparse, err := p.Put(ctx, v1.MediaTypeImageIndex, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	// An index around it, too deep for any recursion and for image.Select.
	for range 2000 {
		text := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, sparse.MediaType, sparse.Digest, sparse.Size)
		if sparse, err = p.Put(ctx, v1.MediaTypeImageIndex, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Tag(ctx, "a", images["named"]), p.Tag(ctx, "b", sparse)); err != nil {
		t.Fatal(err)
	}
	in, err := p.Ingest(ctx, describe("a/b", []byte("interrupted")))
	if err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("inter"))
	in.Close()
	checkClean(t, s)

	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = s.GC(short, layout.GCOptions{})
	wantError(t, "gc beside a session", err, context.DeadlineExceeded)
	opts := layout.GCOptions{Roots: []v1.Descriptor{images["rooted"]}, DryRun: true}
	dry, err := s.GC(ctx, opts)
	if err != nil || len(dry.Removed) != 3 || dry.Partials != 1 {
		t.Fatalf("dry run %+v, %v", dry, err)
	}
	p.Close()
	young := opts
	young.DryRun, young.MinAge, young.PartialAge = false, time.Hour, time.Hour
	if report, err := s.GC(ctx, young); err != nil || len(report.Removed)+report.Partials != 0 {
		t.Fatalf("gc of the old only %+v, %v", report, err)
	}
	opts.DryRun = false
	report, err := s.GC(ctx, opts)
	if err != nil || fmt.Sprint(report) != fmt.Sprint(dry) || report.Kept != 2001+9 {
		t.Fatalf("gc %+v, dry run %+v, %v", report, dry, err)
	}
	checkClean(t, s)
	for name, desc := range images {
		_, err := image.Load(ctx, s, desc)
		if (err == nil) == (name == "gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if report, err := s.GC(ctx, opts); err != nil || len(report.Removed) != 0 {
		t.Errorf("second gc %+v, %v", report, err)
	}
}

// damage is something done to a store, and what has to be said of it.
type damage struct {
	do       func(t *testing.T, s *layout.Store, img *image.Image)
	blob     func(img *image.Image) digest.Digest
	want     string
	loads    bool // the image still loads; the layer is to blame
	repaired bool
	gcFails  bool
}

func manifestOf(img *image.Image) digest.Digest { return img.Descriptor.Digest }
func layerOf(img *image.Image) digest.Digest    { return img.Manifest.Layers[0].Digest }

func damages() map[string]damage {
	overwrite := func(which func(*image.Image) digest.Digest, change func([]byte) []byte) func(*testing.T, *layout.Store, *image.Image) {
		return func(t *testing.T, s *layout.Store, img *image.Image) {
			file := blobFile(s, which(img))
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, change(data), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x20; return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	config := func(img *image.Image) digest.Digest { return img.Manifest.Config.Digest }
	return map[string]damage{
		"layer flipped":      {overwrite(layerOf, flip), layerOf, "content has digest", true, true, false},
		"layer truncated":    {overwrite(layerOf, half), layerOf, "content has digest", true, true, false},
		"config flipped":     {overwrite(config, flip), config, "content has digest", false, true, false},
		"manifest flipped":   {overwrite(manifestOf, flip), manifestOf, "content has digest", false, true, true},
		"manifest truncated": {overwrite(manifestOf, half), manifestOf, "content has digest", false, true, true},
		"manifest of 100 MiB": {func(t *testing.T, s *layout.Store, img *image.Image) {
			if err := os.Truncate(blobFile(s, manifestOf(img)), 100<<20); err != nil {
				t.Fatal(err)
			}
		}, manifestOf, "content has digest", false, true, true},
		"layer missing": {func(t *testing.T, s *layout.Store, img *image.Image) {
			if err := os.Remove(blobFile(s, layerOf(img))); err != nil {
				t.Fatal(err)
			}
		}, layerOf, "missing", true, false, false},
		"layer is a FIFO": {func(t *testing.T, s *layout.Store, img *image.Image) {
			file := blobFile(s, layerOf(img))
			if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o644)); err != nil {
				t.Fatal(err)
			}
		}, layerOf, "missing", true, false, false},
	}
}

func TestDamageIsFound(t *testing.T) {
	ctx := context.Background()
	for name, d := range damages() {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			p := begin(t, s)
			desc, err := putImage(ctx, p, []byte("a layer, and not an empty one"))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Tag(ctx, "victim", desc); err != nil {
				t.Fatal(err)
			}
			img, err := image.Load(ctx, s, desc)
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			d.do(t, s, img)
			blob := string(d.blob(img))

			_, err = image.Load(ctx, s, desc)
			if d.loads {
				var r io.ReadCloser
				if r, err = s.OpenVerified(ctx, img.Manifest.Layers[0]); err == nil {
					_, err = io.Copy(io.Discard, r)
					r.Close()
				}
			}
			wantError(t, "use", err, nil, blob)
			if _, err := s.GC(ctx, layout.GCOptions{}); (err != nil) != d.gcFails || err != nil && !strings.Contains(err.Error(), blob) {
				t.Errorf("gc: %v", err)
			}
			for _, repair := range []bool{false, true} {
				report, err := s.Fsck(ctx, layout.FsckOptions{Repair: repair})
				if err != nil || len(report.Problems) != 1 {
					t.Fatalf("fsck: %+v, %v", report, err)
				}
				problem := report.Problems[0]
				if text := problem.String(); problem.Blob != d.blob(img) || !strings.Contains(text, d.want) ||
					len(problem.Referrers) != 1 || problem.Removed != (repair && d.repaired) {
					t.Errorf("repair %v: %s", repair, text)
				}
			}
			if d.repaired { // what was bad can be had anew
				if _, err := putImage(ctx, begin(t, s), []byte("a layer, and not an empty one")); err != nil {
					t.Fatal(err)
				}
				checkClean(t, s)
			}
		})
	}
}

// TestHostileDocuments has documents in a store whose digests are right: they
// came so from outside.
func TestHostileDocuments(t *testing.T) {
	ctx := context.Background()
	layer := describe(v1.MediaTypeImageLayer, []byte("layer"))
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"not JSON":      {"<html>", "not JSON"},
		"100 MiB":       {strings.Repeat(" ", 100<<20), "size: 104857600 bytes"},
		"missing layer": {`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + string(layer.Digest) + `","size":5},"layers":[]}`, "missing"},
		"schema 1":      {`{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
	} {
		s := newStore(t)
		p := begin(t, s)
		desc, err := p.Put(ctx, v1.MediaTypeImageManifest, []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Tag(ctx, "hostile", desc); err != nil {
			t.Fatal(err)
		}
		if _, err := image.Select(ctx, s, desc, image.HostPlatform()); err == nil || !strings.Contains(err.Error(), "sha256:") {
			t.Errorf("%s: select: %v", name, err)
		}
		report, err := s.Fsck(ctx, layout.FsckOptions{})
		if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), c.want) {
			t.Errorf("%s: fsck: %+v, %v", name, report.Problems, err)
		}
	}
	// A descriptor with a wrong size: the blob is sound, who refers to it is not.
	s := newStore(t)
	p := begin(t, s)
	good, err := putImage(ctx, p, []byte("layer"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, good.MediaType, good.Digest, good.Size+1)
	index, err := p.Put(ctx, v1.MediaTypeImageIndex, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tag(ctx, "lies", index); err != nil {
		t.Fatal(err)
	}
	p.Close()
	_, err = image.Select(ctx, s, index, image.HostPlatform())
	wantError(t, "wrong size", err, image.ErrMismatch, string(good.Digest))
	if report, err := s.GC(ctx, layout.GCOptions{}); err != nil || len(report.Removed) != 0 {
		t.Errorf("gc was led astray by a wrong size: %+v, %v", report, err)
	}
	report, err := s.Fsck(ctx, layout.FsckOptions{})
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), "index "+string(index.Digest)+": manifests[0]") {
		t.Errorf("fsck: %+v, %v", slices.Collect(maps.Values(map[int]any{0: report.Problems})), err)
	}
}
