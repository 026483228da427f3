package layout_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/testenv"
)

// testImages opens the real images, by the name of their layout.
func testImages(t *testing.T) map[string]*layout.Store {
	t.Helper()
	stores := map[string]*layout.Store{}
	for _, name := range []string{"small", "medium", "zstd", "multiarch"} {
		stores[name] = openStore(t, filepath.Join(testenv.Images(t), name), layout.Options{ReadOnly: true})
	}
	return stores
}

func TestRealImages(t *testing.T) {
	for name, s := range testImages(t) {
		report := checkClean(t, s)
		t.Logf("%s: %d blobs, %d bytes", name, report.Blobs, report.BlobBytes)
		if names, err := s.List(t.Context()); err != nil || len(names) == 0 || report.Blobs == 0 {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
}

// TestChoosesAsSkopeo compares the config of the image chosen with the one that
// skopeo chooses.
func TestChoosesAsSkopeo(t *testing.T) {
	ctx := t.Context()
	s := testImages(t)["multiarch"]
	for platform, override := range map[string][]string{
		"linux/amd64":   {"--override-arch=amd64"},
		"linux/arm64":   {"--override-arch=arm64", "--override-variant=v8"},
		"linux/arm/v7":  {"--override-arch=arm", "--override-variant=v7"},
		"linux/arm/v6":  {"--override-arch=arm", "--override-variant=v6"}, // there is only v5
		"linux/386":     {"--override-arch=386"},
		"linux/ppc64el": {"--override-arch=ppc64le"},
		"linux/s390x":   {"--override-arch=s390x"},
	} {
		want, err := image.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		args := append(override, "--override-os=linux", "inspect", "--config", "--raw", "oci:"+s.Dir()+":latest")
		theirs := testenv.Run(t, "skopeo", args...)
		for _, tag := range []string{"latest", "nested"} {
			desc, err := s.Resolve(ctx, tag)
			if err != nil {
				t.Fatal(err)
			}
			img, err := image.Select(ctx, s, desc, want)
			if err != nil {
				t.Errorf("%s, %s: %v", tag, platform, err)
				continue
			}
			if ours, err := s.Fetch(ctx, img.Manifest.Config); err != nil || string(ours) != theirs {
				t.Errorf("%s, %s: ours is %s, skopeo's %s", tag, platform, ours, theirs)
			}
		}
	}
	desc, err := s.Resolve(ctx, "nested")
	if err != nil {
		t.Fatal(err)
	}
	_, err = image.Select(ctx, s, desc, v1.Platform{OS: "linux", Architecture: "riscv64"})
	wantError(t, "other platforms only", err, nil, "nothing for linux/riscv64", "linux/amd64, linux/arm64, linux/arm/v7, linux/arm/v5, linux/386, linux/ppc64le, linux/s390x")
}

// copyImage brings all that desc leads to from one store to the other.
func copyImage(ctx context.Context, from *layout.Store, to *layout.Session, desc v1.Descriptor) error {
	r, err := from.OpenVerified(ctx, desc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of a sparse index
	}
	if err != nil {
		return err
	}
	defer r.Close()
	in, err := to.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if in.Offset() < desc.Size {
		if _, err := io.Copy(in, r); err != nil {
			return err
		}
	}
	if err := in.Commit(); err != nil {
		return err
	}
	if kind := image.KindOf(desc); kind != image.KindManifest && kind != image.KindIndex {
		return nil
	}
	data, err := from.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	refs, err := image.References(desc, data)
	for _, r := range refs {
		err = errors.Join(err, copyImage(ctx, from, to, r.Desc))
	}
	return err
}

func TestOthersReadOurStore(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	p := begin(t, s)
	want := map[string]v1.Descriptor{}
	for layoutName, from := range testImages(t) {
		names, err := from.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			name := "127.0.0.1:5000/" + layoutName + ":" + n.Name
			if err := errors.Join(copyImage(ctx, from, p, n.Desc), p.Tag(ctx, name, n.Desc)); err != nil {
				t.Fatal(err)
			}
			want[name] = n.Desc
		}
	}
	checkClean(t, s)
	listed := strings.Fields(testenv.Run(t, "umoci", "ls", "--layout", s.Dir()))
	if len(listed) != len(want) {
		t.Errorf("umoci lists %v", listed)
	}
	out := t.TempDir()
	for name, desc := range want {
		raw := testenv.Run(t, "skopeo", "inspect", "--raw", "oci:"+s.Dir()+":"+name)
		if ours, err := s.Fetch(ctx, desc); err != nil || string(ours) != raw {
			t.Errorf("%s: skopeo reads %q, we %q, %v", name, raw, ours, err)
		}
		if image.KindOf(desc) != image.KindManifest {
			continue
		}
		testenv.Run(t, "umoci", "stat", "--image", s.Dir()+":"+name)
		if !strings.Contains(name, "/medium:latest") && !strings.Contains(name, "/small:") {
			continue // skopeo reads every layer: two are enough
		}
		testenv.Run(t, "skopeo", "copy", "--quiet", "oci:"+s.Dir()+":"+name, "oci:"+filepath.Join(out, "copy")+":"+name)
		theirs := openStore(t, filepath.Join(out, "copy"), layout.Options{ReadOnly: true})
		got, err := theirs.Resolve(ctx, name)
		if err != nil || got.Digest != desc.Digest {
			t.Errorf("%s: copied by skopeo: %v, %v", name, got, err)
		}
		checkClean(t, theirs)
	}
}

func TestOthersWriteToOurStore(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	p := begin(t, s)
	ours, err := putImage(ctx, p, []byte("ours"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tag(ctx, "ours:1", ours); err != nil {
		t.Fatal(err)
	}
	small := testImages(t)["small"]
	testenv.Run(t, "skopeo", "copy", "--quiet", "oci:"+small.Dir()+":latest", "oci:"+s.Dir()+":127.0.0.1:5000/by-skopeo:1")
	testenv.Run(t, "umoci", "config", "--image", s.Dir()+":127.0.0.1:5000/by-skopeo:1", "--tag", "by-umoci", "--config.cmd", "/bin/true", "--config.user", "7:8")
	checkClean(t, s)
	wanted, _ := small.Resolve(ctx, "latest")
	if got, err := s.Resolve(ctx, "127.0.0.1:5000/by-skopeo:1"); err != nil || got.Digest != wanted.Digest {
		t.Errorf("by skopeo: %v, %v", got, err)
	}
	desc, err := s.Resolve(ctx, "by-umoci")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Select(ctx, s, desc, image.HostPlatform())
	if err != nil || img.Config.Config.User != "7:8" || len(img.Config.Config.Cmd) != 1 {
		t.Errorf("by umoci: %+v, %v", img, err)
	}
	// umoci's gc and ours agree: neither removes what the other needs.
	p.Close()
	testenv.Run(t, "umoci", "gc", "--layout", s.Dir())
	checkClean(t, s)
	if report, err := s.GC(ctx, layout.GCOptions{}); err != nil || len(report.Removed) != 0 {
		t.Errorf("gc after umoci's: %+v, %v", report, err)
	}
	if names, err := s.List(ctx); err != nil || len(names) != 3 {
		t.Errorf("names %v, %v", names, err)
	}
}

// tarLayer is a layer with one file.
func tarLayer(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOthersReadWhatMutateMakes(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	p := begin(t, s)
	small := testImages(t)["small"]
	base, err := small.Resolve(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := copyImage(ctx, small, p, base); err != nil {
		t.Fatal(err)
	}
	layer, err := p.Put(ctx, v1.MediaTypeImageLayer, tarLayer(t, "hello.txt", "hello"))
	if err != nil {
		t.Fatal(err)
	}
	created := time.Unix(1700000000, 0)
	change := mutate.Change{
		Created: &created,
		Layers:  []mutate.Layer{{Desc: layer, DiffID: layer.Digest, History: v1.History{CreatedBy: "test"}}},
		Config:  func(c *v1.Image) { c.Config.Cmd = []string{"/hello"} },
	}
	for name, from := range map[string]*v1.Descriptor{"new:1": nil, "changed:1": &base} {
		desc, err := mutate.Apply(ctx, p, from, change)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Tag(ctx, name, desc); err != nil {
			t.Fatal(err)
		}
		config := testenv.Run(t, "skopeo", "inspect", "--config", "oci:"+s.Dir()+":"+name)
		if !strings.Contains(config, `"/hello"`) {
			t.Errorf("%s: skopeo reads %s", name, config)
		}
		testenv.Run(t, "umoci", "stat", "--image", s.Dir()+":"+name)
		bundle := filepath.Join(t.TempDir(), "bundle")
		testenv.Run(t, "umoci", "unpack", "--rootless", "--image", s.Dir()+":"+name, bundle)
		if got, err := os.ReadFile(filepath.Join(bundle, "rootfs/hello.txt")); err != nil || string(got) != "hello" {
			t.Errorf("%s: umoci unpacked %q, %v", name, got, err)
		}
	}
	checkClean(t, s)
}

// TestNamesOthersCanSay holds what the package documentation says about them.
func TestNamesOthersCanSay(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	p := begin(t, s)
	desc, err := putImage(ctx, p, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	skopeo := testenv.Tool(t, "skopeo")
	for name, canSay := range map[string]bool{
		"127.0.0.1:5000/medium:latest":                       true,
		"docker.io/library/debian:12@" + string(desc.Digest): true,
		"registry.example:5000/a_b-c.d/e:v1_2":               true,
		"localhost/foo:1.0--rc":                              true,
		"registry.example/a__b:1":                            false,
		"registry.example/a---b:1":                           false,
		"registry.example/a:_1":                              false,
		"[::1]:5000/a:b":                                     false,
	} {
		if err := p.Tag(ctx, name, desc); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve(ctx, name); err != nil {
			t.Error(err)
		}
		err := runQuietly(skopeo, "inspect", "--raw", "oci:"+s.Dir()+":"+name)
		if (err == nil) != canSay {
			t.Errorf("%s: skopeo: %v", name, err)
		}
	}
}
