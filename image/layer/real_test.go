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
	for index.Manifests[0].MediaType == ocispec.MediaTypeImageIndex {
		read(blob(index.Manifests[0].Digest), &index)
	}
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

// TestImages unpacks each test image flat, and compares that, name by name, with what umoci makes of the image, with the
// overlay mount of its layers, and each of its layers with what GNU tar makes of it. The image zstd has the archives of medium
// in another wrapping, which umoci cannot read: its tree is medium's.
func TestImages(t *testing.T) {
	var medium map[string]string
	for name, tag := range map[string]string{"small": "latest", "medium": "latest", "manyfiles": "latest", "multiarch": "amd64"} {
		image := testImage(t, name)
		ours := t.TempDir()
		applyImage(t, image, ours)
		tree := testenv.Tree(t, ours)
		if name == "medium" {
			medium = tree
		}
		t.Run(name+" as umoci", func(t *testing.T) {
			bundle := filepath.Join(t.TempDir(), "bundle")
			testenv.Run(t, testenv.Tool(t, "umoci"), "unpack", "--image", image+":"+tag, bundle)
			testenv.SameTree(t, tree, testenv.Tree(t, filepath.Join(bundle, "rootfs")), "ours", "umoci's")
		})
		t.Run(name+" as overlay", func(t *testing.T) { overlayImage(t, image, ours) })
		t.Run(name+" as tar", func(t *testing.T) { layersAsTar(t, image, tree) })
	}
	t.Run("zstd", func(t *testing.T) {
		ours := t.TempDir()
		applyImage(t, testImage(t, "zstd"), ours)
		testenv.SameTree(t, testenv.Tree(t, ours), medium, "zstd", "gzip")
	})
}

// layersAsTar compares each layer of an image by itself with what GNU tar makes of it. tar knows nothing of whiteouts, so
// ours is given the layer in the one form in which it has nothing to hide, and tar's files named as whiteouts are removed.
// tree is that of them all.
func layersAsTar(t *testing.T, image string, tree map[string]string) {
	t.Helper()
	layers, _ := imageLayers(t, image)
	for _, l := range layers {
		theirs := t.TempDir()
		path := filepath.Join(image, "blobs/sha256", l.Digest.Encoded())
		got := tree
		if len(layers) > 1 {
			ours := t.TempDir()
			blob, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Apply(t.Context(), blob, openRoot(t, ours), Options{Name: l.Digest.String(), Devices: DevicesCreate}); err != nil {
				t.Fatal(err)
			}
			blob.Close()
			got = testenv.Tree(t, ours)
		}
		testenv.Run(t, testenv.Tool(t, "tar"), "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", theirs, "-xzf", path)
		want := testenv.Tree(t, theirs)
		for name := range want {
			if base := filepath.Base(name); len(base) > len(whiteoutPrefix) && base[:len(whiteoutPrefix)] == whiteoutPrefix {
				delete(want, name)
			}
		}
		testenv.SameTree(t, got, want, "ours", "tar's")
	}
}
