package image_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// selfish is a store whose every index holds the one that was asked for: no digest allows it, but a store that does not
// verify does.
type selfish struct{ asked int }

func (s *selfish) Fetch(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	s.asked++
	return fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, desc.MediaType, desc.Digest, desc.Size), nil
}

// TestHostileImages are documents that come from outside with digests that are right, or from a store that does not look.
func TestHostileImages(t *testing.T) {
	ctx := context.Background()
	self := describe(v1.MediaTypeImageIndex, "x")
	s := &selfish{}
	if _, err := image.Select(ctx, s, self, image.HostPlatform()); err == nil || !strings.Contains(err.Error(), string(self.Digest)) || s.asked > 10 {
		t.Errorf("index that contains itself: %v after %d fetches", err, s.asked)
	}
	var m documents
	config := m.add(t, v1.MediaTypeImageConfig, v1.Image{RootFS: v1.RootFS{Type: "layers"}})
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: config}
	for range 100_000 {
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: "a/b", Digest: config.Digest})
	}
	many := m.add(t, v1.MediaTypeImageManifest, manifest)
	m.fetched = 0
	if _, err := image.Load(ctx, &m, many); err == nil || !strings.Contains(err.Error(), string(many.Digest)) || m.fetched > 1 {
		t.Errorf("manifest with 100,000 layers: %v after %d fetches", err, m.fetched)
	}
	for what, mediaType := range map[string]string{"config of another type": "application/vnd.cncf.helm.config.v1+json", "config that is a layer": v1.MediaTypeImageLayer, "config that is an index": v1.MediaTypeImageIndex} {
		other := config
		other.MediaType = mediaType
		desc := m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: other, Layers: []v1.Descriptor{}})
		if _, err := image.Load(ctx, &m, desc); err == nil || !strings.Contains(err.Error(), mediaType) || !strings.Contains(err.Error(), string(desc.Digest)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, mediaType := range []string{"application/x-layer", v1.MediaTypeImageManifest, v1.MediaTypeImageLayerGzip + "+encrypted+encrypted", ""} {
		desc := m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: config,
			Layers: []v1.Descriptor{{MediaType: mediaType, Digest: config.Digest, Size: config.Size}}})
		if _, err := image.Load(ctx, &m, desc); err == nil || !strings.Contains(err.Error(), "layers[0].mediaType") {
			t.Errorf("layer of media type %q: %v", mediaType, err)
		}
	}
}
