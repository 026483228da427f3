package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

// TestPinnedNames: no archive and no copy can put something else under a name
// that has a digest.
func TestPinnedNames(t *testing.T) {
	e, path := newEngine(t), filepath.Join(t.TempDir(), "a.tar")
	small := "oci:" + testLayout(t, "small") + ":latest"
	wrong := "docker.io/library/debian@sha256:" + strings.Repeat("0", 64)
	if _, err := e.Copy(t.Context(), small, "oci-archive:"+path+":"+wrong, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	loaded, err := e.Load(t.Context(), path, transfer.Options{All: true, Sparse: true})
	if !errors.Is(err, distribution.ErrDigestMismatch) || len(loaded) > 0 {
		t.Errorf("loaded %v, %v", loaded, err)
	}
	r, err := e.Copy(t.Context(), small, wrong, CopyOptions{})
	if !errors.Is(err, distribution.ErrDigestMismatch) {
		t.Errorf("copied as %s: %v", wrong, err)
	}
	if _, err := e.Resolve(t.Context(), wrong, nil); !errors.Is(err, ErrNoImage) {
		t.Errorf("%s is there: %v", wrong, err)
	}
	if r, err = e.Copy(t.Context(), small, "small", CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	right := "docker.io/library/small@" + string(r.Root.Digest)
	if _, err := e.Copy(t.Context(), small, right, CopyOptions{}); err != nil {
		t.Error(err)
	}
	checkClean(t, e)
}

// TestEditKeepsOthers: what else is in an archive in which an image is changed,
// or to which one of its images is copied by another name, stays.
func TestEditKeepsOthers(t *testing.T) {
	e, path := newEngine(t), filepath.Join(t.TempDir(), "a.tar")
	for name, from := range map[string]string{"one:v1": "small", "two:v1": "small"} {
		putImage(t, e, testLayout(t, from)+":latest", name)
	}
	if err := e.Save(t.Context(), []string{"one:v1", "two:v1"}, path, SaveOptions{Format: OCIArchive}); err != nil {
		t.Fatal(err)
	}
	names := func() (all []string, byName map[string]v1.Descriptor) {
		a, err := archive.Open(t.Context(), path, archive.OCI, archive.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		byName = map[string]v1.Descriptor{}
		for _, n := range a.Names() {
			all, byName[n.Name] = append(all, n.Name), n.Desc
		}
		slices.Sort(all)
		return all, byName
	}
	_, before := names()
	const one, two = "docker.io/library/one:v1", "docker.io/library/two:v1"
	in := func(name string) string { return "oci-archive:" + path + ":" + name }
	if _, err := e.EditImage(t.Context(), in(one), EditOptions{}, editConfig(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.EditImage(t.Context(), in(two), EditOptions{Tag: "new"}, editConfig(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Copy(t.Context(), in(two), in("copy"), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	all, after := names()
	if want := []string{"copy", one, two, "new"}; !slices.Equal(all, want) {
		t.Fatalf("the archive has %q, want %q", all, want)
	}
	if after[two].Digest != before[two].Digest || after["copy"].Digest != before[two].Digest || after[one].Digest == before[one].Digest ||
		after["new"].Digest != after[one].Digest {
		t.Errorf("before: %v, after: %v", before, after)
	}
	testenv.Run(t, "skopeo", "inspect", "--config", in("new"))
}

// TestRefreshToDockerArchive: a bundle goes on from an image in a form where
// it has another digest.
func TestRefreshToDockerArchive(t *testing.T) {
	testenv.Root(t)
	e, path := newEngine(t), filepath.Join(t.TempDir(), "a.tar")
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	for i, name := range []string{"docker-archive:" + path, "small:v2"} {
		if err := os.WriteFile(filepath.Join(bundle, "rootfs", strings.Repeat("x", i+1)), []byte("new"), 0o644); err != nil {
			t.Fatal(err)
		}
		o := repackOptions()
		o.Refresh = true
		if n := repacked(t, e, bundle, name, o); n.Changes != 2 { // and the directory's time
			t.Errorf("%s: %d changes", name, n.Changes)
		}
	}
	img, err := e.Resolve(t.Context(), "small:v2", nil)
	if err != nil || len(img.Manifest.Layers) != 3 {
		t.Errorf("%v, %v", img.Image, err)
	}
}

// TestRefreshFails: a bundle that could not be made one of the new image loses
// none of its changes.
func TestRefreshFails(t *testing.T) {
	testenv.Root(t)
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	if err := os.WriteFile(bundle+"/rootfs/new", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(bundle, recordFile+".new"), 0o755); err != nil { // in the way
		t.Fatal(err)
	}
	o := repackOptions()
	o.Refresh = true
	if _, err := e.Repack(t.Context(), bundle, "small:v2", o); err == nil {
		t.Fatal("the record was written")
	}
	_ = os.Remove(filepath.Join(bundle, recordFile+".new"))
	repacked(t, e, bundle, "small:v3", repackOptions())
	c := contentsOf(t, e, "small:v3")
	tree, err := c.Tree(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Lookup("new", false); err != nil {
		t.Errorf("the change is lost: %v", err)
	}
}

// TestStalledPipe: who loads or imports from a pipe that nothing comes from can
// be interrupted.
func TestStalledPipe(t *testing.T) {
	e := newEngine(t)
	for what, read := range map[string]func(context.Context, *os.File) error{
		"load": func(ctx context.Context, f *os.File) error {
			_, err := e.LoadFrom(ctx, "pipe", f, transfer.Options{})
			return err
		},
		"import": func(ctx context.Context, f *os.File) error {
			_, err := e.Import(ctx, "pipe", f, "x", ImportOptions{})
			return err
		},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
		if err := read(ctx, r); !errors.Is(err, why) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
		r.Close()
		w.Close()
	}
}

// TestOverwriteArtifact: a file that is replaced is there all the time.
func TestOverwriteArtifact(t *testing.T) {
	root, err := safepath.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	src, err := layoutSource(t.Context(), transport.Location{Kind: transport.Layout, Path: testLayout(t, "small"), Name: "latest"})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := image.Load(t.Context(), src, src.Root())
	if err != nil {
		t.Fatal(err)
	}
	put := func(overwrite bool) error {
		return writeArtifact(t.Context(), src, root, "a/b", img.Manifest.Config, overwrite, transfer.Silent{})
	}
	if err := put(true); err != nil {
		t.Fatal(err)
	}
	if err := put(false); !errors.Is(err, os.ErrExist) {
		t.Errorf("not to overwrite: %v", err)
	}
	if err := put(true); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(root.Name(), "a"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "b" {
		t.Errorf("%v, %v", entries, err)
	}
}
