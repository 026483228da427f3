package mutate_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
)

// memory is a Store without a disk.
type memory map[digest.Digest][]byte

func (m memory) Fetch(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	data, ok := m[desc.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m memory) Put(_ context.Context, mediaType string, data []byte) (v1.Descriptor, error) {
	d := digest.FromBytes(data)
	m[d] = data
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, nil
}

func layer(name, mediaType string) mutate.Layer {
	return mutate.Layer{
		Desc:    v1.Descriptor{MediaType: mediaType, Digest: digest.FromString("blob of " + name), Size: 7},
		DiffID:  digest.FromString(name),
		History: v1.History{CreatedBy: name},
	}
}

func apply(t *testing.T, st mutate.Store, base *v1.Descriptor, c mutate.Change) (v1.Descriptor, *image.Image) {
	t.Helper()
	desc, err := mutate.Apply(context.Background(), st, base, c)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(context.Background(), st, desc)
	if err != nil {
		t.Fatal(err)
	}
	return desc, img
}

func TestFromNothing(t *testing.T) {
	created := time.Date(2025, 1, 2, 3, 4, 5, 0, time.FixedZone("x", 3600))
	change := mutate.Change{
		Layers: []mutate.Layer{layer("one", v1.MediaTypeImageLayerGzip)},
		Config: func(c *v1.Image) {
			c.Config.Cmd = []string{"/tare"}
			c.Config.Labels = map[string]string{"b": "2", "a": "1"}
		},
		History:     []v1.History{{CreatedBy: "CMD"}},
		Created:     &created,
		Annotations: map[string]string{"x": "y", "absent": ""},
	}
	desc, img := apply(t, memory{}, nil, change)
	again, _ := apply(t, memory{}, nil, change)
	if desc.Digest != again.Digest {
		t.Error("the same change made different bytes")
	}
	if desc.Platform == nil || image.MatchPlatform(image.HostPlatform(), *desc.Platform) != 0 {
		t.Errorf("platform %v", desc.Platform)
	}
	if got := img.Config.History; len(got) != 2 || got[0].EmptyLayer || !got[1].EmptyLayer {
		t.Errorf("history %+v", got)
	}
	if got := img.Config.Created.Format(time.RFC3339); got != "2025-01-02T02:04:05Z" {
		t.Errorf("created %s", got)
	}
	if len(img.Manifest.Annotations) != 1 || img.Manifest.MediaType != v1.MediaTypeImageManifest {
		t.Errorf("manifest %+v", img.Manifest)
	}
	// The bytes are part of the contract: they are what reproducible means.
	const want = `{"architecture":"arm64","config":{"Cmd":["/tare"],"Labels":{"a":"1","b":"2"}},"created":"2025-01-02T02:04:05Z",` +
		`"history":[{"created":"2025-01-02T02:04:05Z","created_by":"one"},{"created":"2025-01-02T02:04:05Z","created_by":"CMD","empty_layer":true}],"os":"linux",` +
		`"rootfs":{"diff_ids":["sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"],"type":"layers"}}`
	change.Config = func(c *v1.Image) {
		c.Platform = v1.Platform{OS: "linux", Architecture: "arm64"}
		c.Config.Cmd = []string{"/tare"}
		c.Config.Labels = map[string]string{"b": "2", "a": "1"}
	}
	st := memory{}
	_, img = apply(t, st, nil, change)
	if got := string(st[img.Manifest.Config.Digest]); got != want {
		t.Errorf("config\n%s, want\n%s", got, want)
	}
}

func TestKeepsWhatItDoesNotKnow(t *testing.T) {
	ctx := context.Background()
	st := memory{}
	config := `{ "architecture":"amd64","os":"linux","docker_version":"20.10","config":{"Healthcheck":{"Test":["CMD","x"],"Interval":30000000000},` +
		`"Env":["A=1"],"Volumes":null,"OnBuild":["RUN x"],"Labels":{"gone":"1","stays":"2"}},"rootfs":{"type":"layers","diff_ids":["` + string(digest.FromString("base")) + `"]}}`
	c, _ := st.Put(ctx, image.MediaTypeDockerConfig, []byte(config))
	base := layer("base", image.MediaTypeDockerLayerGzip)
	m, _ := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: image.MediaTypeDockerManifest, Config: c, Layers: []v1.Descriptor{base.Desc}})
	desc, _ := st.Put(ctx, image.MediaTypeDockerManifest, m)

	_, copied := apply(t, st, &desc, mutate.Change{})
	if copied.Manifest.Config.Digest != c.Digest {
		t.Errorf("a change of nothing made another config: %s", st[copied.Manifest.Config.Digest])
	}
	if got := copied.Manifest.Layers[0].MediaType; got != v1.MediaTypeImageLayerGzip {
		t.Errorf("layer has media type %s", got)
	}
	_, img := apply(t, st, &desc, mutate.Change{
		Layers: []mutate.Layer{layer("top", v1.MediaTypeImageLayerZstd)},
		Config: func(c *v1.Image) {
			c.Config.Env = append(c.Config.Env, "B=2")
			c.Config.User = "1000"
			delete(c.Config.Labels, "gone")
			c.RootFS.DiffIDs = nil // not for an edit to change
		},
	})
	if len(img.Config.RootFS.DiffIDs) != 2 || len(img.Config.History) != 2 {
		t.Errorf("config %+v", img.Config)
	}
	var got map[string]any
	if err := json.Unmarshal(st[img.Manifest.Config.Digest], &got); err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(got["config"])
	const want = `{"Env":["A=1","B=2"],"Healthcheck":{"Interval":30000000000,"Test":["CMD","x"]},"Labels":{"stays":"2"},"OnBuild":["RUN x"],"User":"1000","Volumes":null}`
	if string(text) != want || got["docker_version"] != "20.10" {
		t.Errorf("config\n%s, want\n%s", text, want)
	}
}

func TestRefuses(t *testing.T) {
	ctx := context.Background()
	bad := layer("x", "application/zip")
	noDiff := layer("x", v1.MediaTypeImageLayer)
	noDiff.DiffID = "sha256:12"
	missing := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("m"), Size: 9}
	for _, c := range []struct {
		base   *v1.Descriptor
		change mutate.Change
		want   string
	}{
		{nil, mutate.Change{Layers: []mutate.Layer{bad}}, `make image: new layer 0: mediaType: "application/zip"`},
		{nil, mutate.Change{Layers: []mutate.Layer{noDiff}}, `new layer 0: DiffID: digest "sha256:12"`},
		{&missing, mutate.Change{}, "change image " + string(missing.Digest) + ": "},
	} {
		if _, err := mutate.Apply(ctx, memory{}, c.base, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
