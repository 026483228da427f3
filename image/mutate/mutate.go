// Package mutate makes a new image out of an old one, or of nothing, and a
// change: layers on top, edits of the configuration, annotations.
//
// It writes the manifest and the config of the OCI Image Format Specification
// 1.1.1 (manifest.md, config.md). The same base and the same change give the
// same bytes: no clock, host name or user comes in unless the change has it.
// What the base's config has beyond the specification, such as Docker's
// Healthcheck, is kept. A base in Docker's media types comes out in OCI's.
package mutate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Store is where the base is read from and the result is put. A
// layout.Session is one.
type Store interface {
	image.Fetcher
	// Put stores a document and returns its descriptor. Storing what is there
	// already is no error.
	Put(ctx context.Context, mediaType string, data []byte) (v1.Descriptor, error)
}

// Layer is a layer whose blob is in the store.
type Layer struct {
	Desc    v1.Descriptor
	DiffID  digest.Digest // of the uncompressed content
	History v1.History    // how it came about; EmptyLayer is not looked at
}

// Change says what is to be different. The zero Change makes a copy.
type Change struct {
	Steps     []Step          // in place of all layers and history of the base, unless nil
	Layers    []Layer         // to put on top, the lowest first
	Config    func(*v1.Image) // edits the configuration, but for RootFS and History
	History   []v1.History    // of the edits: entries without a layer, after those of Layers
	NoHistory bool            // leave the base's history out

	NoAnnotations bool              // leave the base's annotations out
	Created       *time.Time        // of the image, and of new history without a time of its own; nil keeps the base's
	Annotations   map[string]string // of the manifest, to add or replace; an empty value removes
}

// Apply makes the new image and returns the descriptor of its manifest. Base is
// that of a manifest, or nil to begin with no layers and this machine's
// platform.
func Apply(ctx context.Context, st Store, base *v1.Descriptor, c Change) (v1.Descriptor, error) {
	desc, err := apply(ctx, st, base, c)
	if err != nil && base != nil {
		return v1.Descriptor{}, fmt.Errorf("change image %s: %w", base.Digest, err)
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("make image: %w", err)
	}
	return desc, nil
}

func apply(ctx context.Context, st Store, base *v1.Descriptor, c Change) (v1.Descriptor, error) {
	old, err := load(ctx, st, base)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, platform, err := c.config(old)
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest := c.manifest(old)
	if manifest.Config, err = put(ctx, st, v1.MediaTypeImageConfig, config, func(d v1.Descriptor) error {
		_, err := image.DecodeConfig(d, config)
		return err
	}); err != nil {
		return v1.Descriptor{}, err
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc, err := put(ctx, st, v1.MediaTypeImageManifest, data, func(d v1.Descriptor) error {
		_, err := image.DecodeManifest(d, data)
		return err
	})
	desc.Platform = &platform
	return desc, err
}

// put stores a document after it was seen that it can be read again.
func put(ctx context.Context, st Store, mediaType string, data []byte, check func(v1.Descriptor) error) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := check(d); err != nil {
		return v1.Descriptor{}, err
	}
	return st.Put(ctx, mediaType, data)
}

// source is an image before the change.
type source struct {
	manifest v1.Manifest
	config   v1.Image
	raw      []byte // the config as it was written
}

func load(ctx context.Context, st Store, base *v1.Descriptor) (*source, error) {
	if base == nil {
		config := v1.Image{Platform: image.HostPlatform(), RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
		raw, err := json.Marshal(config)
		return &source{config: config, raw: raw}, err
	}
	img, err := image.Load(ctx, st, *base)
	if err != nil {
		return nil, err
	}
	raw, err := st.Fetch(ctx, img.Manifest.Config)
	return &source{img.Manifest, img.Config, raw}, err
}

// config is the changed configuration and the platform it is for.
func (c *Change) config(old *source) ([]byte, v1.Platform, error) {
	before, err := json.Marshal(old.config)
	if err != nil {
		return nil, v1.Platform{}, err
	}
	var cfg v1.Image // of its own: an edit must not reach into the base
	if err := json.Unmarshal(before, &cfg); err != nil {
		return nil, v1.Platform{}, err
	}
	rootFS, history := cfg.RootFS, cfg.History
	if c.Config != nil {
		c.Config(&cfg)
	}
	cfg.RootFS, cfg.History = rootFS, history
	for _, f := range []struct{ name, was, is string }{{"architecture", old.config.Architecture, cfg.Architecture}, {"os", old.config.OS, cfg.OS}} {
		if f.was != "" && f.is == "" {
			return nil, v1.Platform{}, fmt.Errorf("%s: an image must have one", f.name)
		}
	}
	if c.Steps != nil {
		cfg.RootFS.DiffIDs, cfg.History = splitSteps(c.Steps)
	}
	if c.NoHistory {
		cfg.History = nil
	}
	if c.Created != nil {
		cfg.Created = utc(c.Created)
	}
	if err := c.addLayers(&cfg); err != nil {
		return nil, v1.Platform{}, err
	}
	after, err := json.Marshal(cfg)
	if err != nil {
		return nil, v1.Platform{}, err
	}
	merged, err := merge(old.raw, before, after)
	return merged, cfg.Platform, err
}

func (c *Change) addLayers(cfg *v1.Image) error {
	if len(c.Layers) > 0 || len(c.History) > 0 {
		cfg.History = fullHistory(*cfg)
	}
	for i, l := range c.Layers {
		if image.KindOf(l.Desc) != image.KindLayer {
			return fmt.Errorf("new layer %d: mediaType: %q is not that of a layer", i, l.Desc.MediaType)
		}
		if err := image.CheckDigest(l.DiffID); err != nil {
			return fmt.Errorf("new layer %d: DiffID: %w", i, err)
		}
		l.History.EmptyLayer = false
		if l.History.Created == nil {
			l.History.Created = utc(c.Created)
		}
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		cfg.History = append(cfg.History, l.History)
	}
	for _, h := range c.History {
		h.EmptyLayer = true
		if h.Created == nil {
			h.Created = utc(c.Created)
		}
		cfg.History = append(cfg.History, h)
	}
	return nil
}

// utc is the same time in the form that does not depend on where we are.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// manifest is the changed manifest but for its config.
func (c *Change) manifest(old *source) v1.Manifest {
	m := old.manifest
	m.Versioned = specs.Versioned{SchemaVersion: 2}
	m.MediaType = v1.MediaTypeImageManifest
	base := m.Layers
	if c.Steps != nil {
		base = stepLayers(c.Steps)
	}
	m.Layers = make([]v1.Descriptor, 0, len(base)+len(c.Layers))
	for _, l := range base {
		l.MediaType = image.LookupMediaType(l.MediaType).OCI().Name
		m.Layers = append(m.Layers, l)
	}
	for _, l := range c.Layers {
		l.Desc.MediaType = image.LookupMediaType(l.Desc.MediaType).OCI().Name
		m.Layers = append(m.Layers, l.Desc)
	}
	if c.NoAnnotations {
		m.Annotations = nil
	}
	m.Annotations = Annotate(m.Annotations, c.Annotations)
	return m
}
