package layer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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
		tree := unpackedTree(t, image)
		if name == "medium" {
			medium = tree
		}
		t.Run(name+" as umoci", func(t *testing.T) {
			bundle := filepath.Join(testenv.MemoryDir(t), "bundle")
			testenv.Run(t, testenv.Tool(t, "umoci"), "unpack", "--image", image+":"+tag, bundle)
			testenv.SameTree(t, tree, testenv.Tree(t, filepath.Join(bundle, "rootfs")), "ours", "umoci's")
		})
		t.Run(name+" as overlay and tar", func(t *testing.T) { overlayImage(t, image, tree) })
	}
	t.Run("zstd", func(t *testing.T) { testenv.SameTree(t, unpackedTree(t, testImage(t, "zstd")), medium, "zstd", "gzip") })
}

// unpackedTree describes what an image is unpacked to.
func unpackedTree(t *testing.T, image string) map[string]string {
	t.Helper()
	dir := testenv.MemoryDir(t)
	applyImage(t, image, dir)
	return testenv.Tree(t, dir)
}

// layerAsTar compares a layer that was applied to a directory of its own with what GNU tar makes of it. tar knows nothing of
// whiteouts: in its tree they are files, in ours overlayfs's marks.
func layerAsTar(t *testing.T, blob, dir string) {
	t.Helper()
	theirs := testenv.MemoryDir(t)
	testenv.Run(t, testenv.Tool(t, "tar"), "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", theirs, "-xzf", blob)
	got, want := testenv.Tree(t, dir), testenv.Tree(t, theirs)
	for name := range want {
		parent, base := filepath.Split(name)
		if base == opaqueBase {
			got[filepath.Clean(parent)] = strings.Replace(got[filepath.Clean(parent)], ` trusted.overlay.opaque="y"`, "", 1)
			delete(want, name)
		} else if hidden, is := strings.CutPrefix(base, whiteoutPrefix); is {
			if line := got[parent+hidden]; !strings.HasPrefix(line, "char ") || !strings.HasSuffix(line, " dev 0:0") {
				t.Errorf("whiteout of %s: %s", parent+hidden, line)
			}
			delete(got, parent+hidden)
			delete(want, name)
		}
	}
	testenv.SameTree(t, got, want, "ours", "tar's")
}
