package layout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
)

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
		t.Errorf("fsck: %+v, %v", report.Problems, err)
	}
}

// What an encrypted layer has in it cannot be compared with anything, and is not damage.
func TestFsckEncrypted(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	p := begin(t, s)
	secret, err := p.Put(ctx, v1.MediaTypeImageLayerGzip+"+encrypted", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := p.Put(ctx, v1.MediaTypeImageLayer, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Apply(ctx, p, nil, mutate.Change{Layers: []mutate.Layer{
		{Desc: secret, DiffID: digest.FromString("what is in it")}, {Desc: plain, DiffID: plain.Digest}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tag(ctx, "secret", img); err != nil {
		t.Fatal(err)
	}
	report, err := s.Fsck(ctx, layout.FsckOptions{DiffIDs: true})
	if err != nil || len(report.Problems) > 0 || report.Layers != 1 || report.Encrypted != 1 {
		t.Errorf("fsck: %+v, %v", report, err)
	}
}
