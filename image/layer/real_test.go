package layer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/testenv"
)

func testImage(t testing.TB, name string) string {
	t.Helper()
	testenv.Root(t)
	return filepath.Join(testenv.Images(t), name)
}

// imageLayers reads an image's first manifest and config.
func imageLayers(t testing.TB, dir string) (layers []ocispec.Descriptor, diffIDs []digest.Digest) {
	t.Helper()
	read := func(path string, v any) {
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d digest.Digest) string { return filepath.Join("blobs", d.Algorithm().String(), d.Encoded()) }
	var index ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	read("index.json", &index)
	read(blob(index.Manifests[0].Digest), &manifest)
	read(blob(manifest.Config.Digest), &config)
	return manifest.Layers, config.RootFS.DiffIDs
}

// applyImage applies all layers of an image to dir.
func applyImage(t testing.TB, image, dir string) {
	t.Helper()
	root := openRoot(t, dir)
	layers, diffIDs := imageLayers(t, image)
	for i, l := range layers {
		blob, err := os.Open(filepath.Join(image, "blobs/sha256", l.Digest.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		r, err := Apply(t.Context(), blob, root, Options{Name: l.Digest.String(), MediaType: l.MediaType, DiffID: diffIDs[i], Devices: DevicesCreate})
		if err != nil {
			t.Fatal(err)
		}
		if r.BlobBytes != l.Size || r.DroppedXattrs != 0 {
			t.Errorf("layer %d: read %d of %d bytes, %d extended attributes dropped", i, r.BlobBytes, l.Size, r.DroppedXattrs)
		}
	}
}

// TestImagesAsUmociUnpacksThem compares whole unpacked images with what umoci makes of them, name by name.
func TestImagesAsUmociUnpacksThem(t *testing.T) {
	for _, name := range []string{"small", "medium", "manyfiles"} {
		t.Run(name, func(t *testing.T) {
			image := testImage(t, name)
			ours, bundle := t.TempDir(), filepath.Join(t.TempDir(), "bundle")
			applyImage(t, image, ours)
			testenv.Run(t, testenv.Tool(t, "umoci"), "unpack", "--image", image+":latest", bundle)
			testenv.SameTree(t, testenv.Tree(t, ours), testenv.Tree(t, filepath.Join(bundle, "rootfs")), "ours", "umoci's")
		})
	}
}

// TestZstdImage: the same tar archives in another wrapping must give the same tree.
func TestZstdImage(t *testing.T) {
	gz, zst := testImage(t, "medium"), testImage(t, "zstd")
	a, b := t.TempDir(), t.TempDir()
	applyImage(t, gz, a)
	applyImage(t, zst, b)
	testenv.SameTree(t, testenv.Tree(t, b), testenv.Tree(t, a), "zstd", "gzip")
}

// TestLayersAsTarUnpacksThem compares each layer of the medium image by itself with what GNU tar makes of it. tar knows
// nothing of whiteouts, so ours is given the layer in the one form in which it has nothing to hide, and tar's files named
// as whiteouts are removed.
func TestLayersAsTarUnpacksThem(t *testing.T) {
	image := testImage(t, "medium")
	layers, _ := imageLayers(t, image)
	for _, l := range layers {
		ours, theirs := t.TempDir(), t.TempDir()
		path := filepath.Join(image, "blobs/sha256", l.Digest.Encoded())
		blob, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Apply(t.Context(), blob, openRoot(t, ours), Options{Name: l.Digest.String(), Devices: DevicesCreate}); err != nil {
			t.Fatal(err)
		}
		blob.Close()
		testenv.Run(t, testenv.Tool(t, "tar"), "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", theirs, "-xzf", path)
		want := testenv.Tree(t, theirs)
		for name := range want {
			if base := filepath.Base(name); len(base) > len(whiteoutPrefix) && base[:len(whiteoutPrefix)] == whiteoutPrefix {
				delete(want, name)
			}
		}
		testenv.SameTree(t, testenv.Tree(t, ours), want, "ours", "tar's")
	}
}
