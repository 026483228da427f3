package engine

import (
	"encoding/json"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestGCBesideWhatCannotRun: an index with BuildKit's statements about its
// images, and a manifest that nobody could unpack, do not stop GC, and are kept.
func TestGCBesideWhatCannotRun(t *testing.T) {
	e := newEngine(t)
	from := "oci:" + filepath.Join(testenv.Images(t), "multiarch") + ":latest"
	if _, err := e.Copy(t.Context(), from, "multi", CopyOptions{Options: transfer.Options{All: true}}); err != nil {
		t.Fatal(err)
	}
	putUnfit(t, e)
	for _, dry := range []bool{true, false} {
		report, err := e.GC(t.Context(), GCOptions{DryRun: dry})
		if err != nil || len(report.Blobs) != 0 {
			t.Errorf("gc, dry run %v: %v, %v", dry, report, err)
		}
	}
	checkClean(t, e)
}

// putUnfit gives the store an image with a layer that its config knows nothing of.
func putUnfit(t *testing.T, e *Engine) {
	t.Helper()
	s, err := e.images.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(mediaType string, v any) v1.Descriptor {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		desc, err := s.Put(t.Context(), mediaType, data)
		if err != nil {
			t.Fatal(err)
		}
		return desc
	}
	manifest := put(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: put(v1.MediaTypeImageConfig, map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}}),
		Layers: []v1.Descriptor{put(v1.MediaTypeImageLayer, "no tar")},
	})
	if err := s.Tag(t.Context(), "docker.io/library/unfit:latest", manifest); err != nil {
		t.Fatal(err)
	}
}
