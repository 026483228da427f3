package tree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
	"github.com/tare-oci/tare/internal/testenv"
)

// inMemory makes an image of uncompressed layers.
func inMemory(layers [][]byte) (*image.Image, tree.Opener) {
	img := &image.Image{}
	blobs := map[digest.Digest][]byte{}
	for _, l := range layers {
		d := digest.FromBytes(l)
		blobs[d] = l
		img.Manifest.Layers = append(img.Manifest.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: int64(len(l))})
		img.Config.RootFS.DiffIDs = append(img.Config.RootFS.DiffIDs, d)
	}
	return img, func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blobs[d.Digest])), nil
	}
}

func spool(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(testenv.MemoryDir(t), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// squash writes the layer that stands for all above the lowest keep.
func squash(t testing.TB, img *image.Image, open tree.Opener, keep int) []byte {
	t.Helper()
	below := *img
	below.Manifest.Layers = img.Manifest.Layers[:keep]
	base := tree.New(tree.Limits{})
	if err := base.Read(t.Context(), &below, open, tree.Options{Sums: true}); err != nil {
		t.Fatal(err)
	}
	top := base.Clone()
	if err := top.Read(t.Context(), img, open, tree.Options{Sums: true}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := top.WriteLayer(t.Context(), tarstream.NewWriter(&b), base, img, open, spool(t), tree.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSquashRandom: random stacks of layers are the same tree with one layer in
// place of the upper ones, on disk, whatever those have hidden and linked; and
// that layer is the same when it is made again.
func TestSquashRandom(t *testing.T) {
	testenv.Root(t)
	seed := uint64(time.Now().UnixNano())
	made := 0
	for i := uint64(0); i < 3000 && made < 60; i++ {
		rnd := rand.New(rand.NewPCG(seed, i))
		var layers [][]byte
		var headers [][]*tar.Header
		merged := tree.New(tree.Limits{})
		for range 4 {
			hs := anyLayer(rnd)
			blob := archive(t, hs)
			next := merged.Clone()
			l := next.AddLayer()
			if _, err := layer.Scan(t.Context(), bytes.NewReader(blob), layer.Options{}, summing(l)); err != nil {
				continue // most random layers are refused
			}
			merged, layers, headers = next, append(layers, blob), append(headers, hs)
		}
		if len(layers) < 2 {
			continue
		}
		made++
		img, open := inMemory(layers)
		keep := rnd.IntN(len(layers))
		squashed := squash(t, img, open, keep)
		if again := squash(t, img, open, keep); !bytes.Equal(again, squashed) {
			t.Error("the same layers made another archive")
		}
		dir := testenv.MemoryDir(t)
		applyAll(t, dir, append(layers[:keep:keep], squashed))
		same(t, ofTree(merged), ofDir(t, dir, !merged.Root().File().Implied))
		if t.Failed() {
			for n, hs := range headers {
				for _, h := range hs {
					t.Logf("layer %d: %c %s %s", n, h.Typeflag, h.Name, h.Linkname)
				}
			}
			t.Fatalf("seed %d, round %d, keep %d", seed, i, keep)
		}
	}
	if made < 60 {
		t.Errorf("only %d stacks were made", made)
	}
}

func applyAll(t testing.TB, dir string, layers [][]byte) {
	t.Helper()
	root := openRoot(t, dir)
	for _, l := range layers {
		if _, err := layer.Apply(t.Context(), bytes.NewReader(l), root, layer.Options{Devices: layer.DevicesCreate}); err != nil {
			t.Fatal(err)
		}
	}
}
