package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// documents is a Fetcher over a map, which counts.
type documents struct {
	data    map[digest.Digest][]byte
	fetched int
}

func (m *documents) Fetch(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	m.fetched++
	data, ok := m.data[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("fetch %s: %w", desc.Digest, fs.ErrNotExist)
	}
	return data, nil
}

func (m *documents) add(t *testing.T, mediaType string, v any) v1.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if m.data == nil {
		m.data = map[digest.Digest][]byte{}
	}
	desc := describe(mediaType, string(data))
	m.data[desc.Digest] = data
	return desc
}

func platform(t *testing.T, s string) v1.Platform {
	t.Helper()
	p, err := image.ParsePlatform(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// image adds an image whose descriptor does not tell its platform.
func (m *documents) image(t *testing.T, p string) v1.Descriptor {
	t.Helper()
	config := m.add(t, v1.MediaTypeImageConfig, v1.Image{Platform: platform(t, p), RootFS: v1.RootFS{Type: "layers"}})
	return m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: config, Layers: []v1.Descriptor{}})
}

func (m *documents) marked(t *testing.T, p string) v1.Descriptor {
	desc := m.image(t, p)
	pl := platform(t, p)
	desc.Platform = &pl
	return desc
}

func (m *documents) index(t *testing.T, entries ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	return m.add(t, v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: entries})
}

func TestSelect(t *testing.T) {
	ctx := context.Background()
	var m documents
	v5, v6, amd, arm64 := m.marked(t, "linux/arm/v5"), m.marked(t, "linux/arm/v6"), m.marked(t, "linux/amd64"), m.marked(t, "linux/arm64")
	attest := m.image(t, "linux/386")
	attest.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	artifact := m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		Config: v1.DescriptorEmptyJSON, Layers: []v1.Descriptor{}})
	statement := m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		Config: m.add(t, v1.MediaTypeImageConfig, v1.Image{Platform: platform(t, "linux/386"), RootFS: v1.RootFS{Type: "layers"}}),
		Layers: []v1.Descriptor{describe("application/vnd.in-toto+json", "{}")}})
	featured := m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		Config: m.add(t, v1.MediaTypeImageConfig, v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64", OSFeatures: []string{"gpu"}}, RootFS: v1.RootFS{Type: "layers"}}),
		Layers: []v1.Descriptor{}})
	absent := describe(v1.MediaTypeImageIndex, "absent")
	flat := m.index(t, attest, v5, v6, amd)
	nested := m.index(t, v5, m.index(t, m.index(t, m.marked(t, "linux/arm/v7")), arm64))
	for _, c := range []struct {
		name    string
		desc    v1.Descriptor
		want    string
		picked  v1.Descriptor
		indexes int
		err     string
	}{
		{"exact", flat, "linux/amd64", amd, 1, ""},
		{"best variant", flat, "linux/arm/v7", v6, 1, ""},
		{"nested beats a worse variant outside", nested, "linux/arm/v7", m.marked(t, "linux/arm/v7"), 3, ""},
		{"nested", nested, "linux/arm64", arm64, 2, ""},
		{"direct", m.image(t, "linux/arm64"), "linux/arm64", m.image(t, "linux/arm64"), 0, ""},
		{"unmarked", m.index(t, artifact, statement, m.image(t, "linux/s390x"), m.image(t, "linux/arm64")), "linux/arm64", m.image(t, "linux/arm64"), 1, ""},
		{"sparse, not needed", m.index(t, absent, amd), "linux/amd64", amd, 1, ""},

		{"other platforms", flat, "linux/arm64", v1.Descriptor{}, 0, "nothing for linux/arm64: it is for linux/arm/v5, linux/arm/v6, linux/amd64"},
		{"nested, other platforms", nested, "linux/386", v1.Descriptor{}, 0, "it is for linux/arm/v5, linux/arm64, linux/arm/v7"},
		{"direct, other platform", m.image(t, "linux/arm64"), "linux/amd64", v1.Descriptor{}, 0, "nothing for linux/amd64: it is for linux/arm64"},
		{"attestation only", m.index(t, attest), "linux/386", v1.Descriptor{}, 0, "it has none"},
		{"sparse", m.index(t, absent), "linux/386", v1.Descriptor{}, 0, string(absent.Digest)},
		{"artifact", artifact, "linux/386", v1.Descriptor{}, 0, "not an image but an artifact: config.mediaType is \"application/vnd.oci.empty.v1+json\""},
		{"statement", statement, "linux/386", v1.Descriptor{}, 0, "not an image but an artifact: layers[0].mediaType: \"application/vnd.in-toto+json\""},
		{"features", featured, "linux/amd64", v1.Descriptor{}, 0, `it is for linux/amd64 with the features "gpu"`},
		{"no manifest", describe("text/plain", "x"), "linux/386", v1.Descriptor{}, 0, `mediaType: "text/plain"`},
		{"large", v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: dig, Size: 100 << 20}, "linux/386", v1.Descriptor{}, 0, dig + ": size: 104857600 bytes"},
	} {
		img, err := image.Select(ctx, &m, c.desc, platform(t, c.want))
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case img.Descriptor.Digest != c.picked.Digest || len(img.Indexes) != c.indexes:
			t.Errorf("%s: %s through %d indexes", c.name, image.PlatformString(img.Config.Platform), len(img.Indexes))
		}
	}
	_, err := image.Select(ctx, &m, flat, platform(t, "linux/arm64"))
	var noPlatform *image.NoPlatformError
	if !errors.As(err, &noPlatform) || len(noPlatform.Have) != 3 {
		t.Errorf("%#v", err)
	}
}

func TestSelectIsBounded(t *testing.T) {
	ctx := context.Background()
	var m documents
	deep := m.index(t)
	for range 10_000 {
		deep = m.index(t, deep)
	}
	m.fetched = 0
	if _, err := image.Select(ctx, &m, deep, image.HostPlatform()); err == nil || !strings.Contains(err.Error(), "nested more than 8 deep") || m.fetched > 10 {
		t.Errorf("deep: %v after %d fetches", err, m.fetched)
	}
	var many []v1.Descriptor
	for i := range 1000 {
		d := m.add(t, v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{}, Annotations: map[string]string{"i": fmt.Sprint(i)}})
		many = append(many, d)
	}
	m.fetched = 0
	if _, err := image.Select(ctx, &m, m.index(t, many...), image.HostPlatform()); err == nil || !strings.Contains(err.Error(), "more than 64 documents") || m.fetched > 64 {
		t.Errorf("wide: %v after %d fetches", err, m.fetched)
	}
	// The same index over and over costs one look.
	twice := m.index(t, many[0])
	for range 5 {
		twice = m.index(t, twice, twice, twice)
	}
	m.fetched = 0
	if _, err := image.Select(ctx, &m, twice, image.HostPlatform()); err == nil || m.fetched != 7 {
		t.Errorf("diamonds: %v after %d fetches", err, m.fetched)
	}
}

func TestLoadIsConsistent(t *testing.T) {
	ctx := context.Background()
	var m documents
	config := m.add(t, v1.MediaTypeImageConfig, v1.Image{RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{dig}}})
	layer := describe(v1.MediaTypeImageLayerGzip, "x")
	odd := layer
	odd.MediaType = "application/x-odd"
	manifest := func(layers ...v1.Descriptor) v1.Descriptor {
		return m.add(t, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: config, Layers: layers})
	}
	if _, err := image.Load(ctx, &m, manifest(layer)); err != nil {
		t.Error(err)
	}
	for want, desc := range map[string]v1.Descriptor{
		"rootfs.diff_ids: 1 for 2 layers":                 manifest(layer, layer),
		`layers[0].mediaType: "application/x-odd" is not`: manifest(odd),
	} {
		if _, err := image.Load(ctx, &m, desc); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), string(desc.Digest)) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestReferences(t *testing.T) {
	data := `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[` + layDesc + `],"subject":` + manDesc + `}`
	refs, err := image.References(describe(v1.MediaTypeImageManifest, data), []byte(data))
	if err != nil || len(refs) != 3 || refs[0].Field != "config" || refs[1].Field != "layers[0]" || refs[2].Field != "subject" {
		t.Errorf("%+v, %v", refs, err)
	}
	if refs, err := image.References(v1.Descriptor{MediaType: "a/b"}, nil); refs != nil || err != nil {
		t.Errorf("%+v, %v", refs, err)
	}
}
