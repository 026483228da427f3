package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// ErrThere says that an index has an entry of that digest or platform already.
var ErrThere = errors.New("is in the index already")

// ErrNotThere says that nothing in an index is what was asked for.
var ErrNotThere = errors.New("is not in the index")

// NewIndex is an image index without entries.
func NewIndex() v1.Index {
	return v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
}

// LoadIndex reads an index to be changed. One in Docker's media type becomes
// OCI's.
func LoadIndex(ctx context.Context, f image.Fetcher, desc v1.Descriptor) (v1.Index, error) {
	if err := image.CheckDocument(desc, image.KindIndex); err != nil {
		return v1.Index{}, err
	}
	data, err := f.Fetch(ctx, desc)
	if err != nil {
		return v1.Index{}, err
	}
	x, err := image.DecodeIndex(desc, data)
	x.MediaType = v1.MediaTypeImageIndex
	if x.Manifests == nil {
		x.Manifests = []v1.Descriptor{}
	}
	return x, err
}

// PutIndex stores an index, after it was seen that it can be read again.
func PutIndex(ctx context.Context, st Store, x v1.Index) (v1.Descriptor, error) {
	data, err := json.Marshal(x)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc, err := put(ctx, st, v1.MediaTypeImageIndex, data, func(d v1.Descriptor) error {
		_, err := image.DecodeIndex(d, data)
		return err
	})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("make index: %w", err)
	}
	return desc, nil
}

// Entry makes the entry of an index for a manifest or an index. The platform is
// that of the image's config unless one is given; an artifact and an index have
// none of themselves.
func Entry(ctx context.Context, f image.Fetcher, desc v1.Descriptor, platform *v1.Platform) (v1.Descriptor, error) {
	entry := v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Annotations: desc.Annotations, ArtifactType: desc.ArtifactType}
	if platform != nil {
		entry.Platform = platform
		return entry, nil
	}
	if image.KindOf(desc) == image.KindIndex {
		entry.Platform = desc.Platform
		return entry, nil
	}
	img, err := image.Load(ctx, f, desc)
	switch {
	case errors.Is(err, image.ErrArtifact):
		entry.Platform = desc.Platform
		return entry, nil
	case err != nil:
		return v1.Descriptor{}, err
	}
	p := img.Config.Platform
	entry.Platform = &p
	return entry, nil
}

// AddEntry puts an entry at the end of an index, or with replace in the place of
// the one for the same platform. What is there already is ErrThere.
func AddEntry(x *v1.Index, entry v1.Descriptor, replace bool) error {
	if len(x.Manifests) >= image.MaxManifests {
		return fmt.Errorf("index has %d entries, and may not have more", len(x.Manifests))
	}
	at := -1
	for i, have := range x.Manifests {
		samePlatform := entry.Platform != nil && have.Platform != nil && SamePlatform(*entry.Platform, *have.Platform)
		switch {
		case have.Digest == entry.Digest && (samePlatform || entry.Platform == nil || have.Platform == nil) && !replace:
			return fmt.Errorf("%s %w", entry.Digest, ErrThere)
		case samePlatform && !replace:
			return fmt.Errorf("platform %s %w, as %s", image.PlatformString(*entry.Platform), ErrThere, have.Digest)
		case (samePlatform || have.Digest == entry.Digest) && at < 0:
			at = i
		}
	}
	if at < 0 {
		x.Manifests = append(x.Manifests, entry)
		return nil
	}
	x.Manifests = slices.Clone(x.Manifests)
	x.Manifests[at] = entry
	return nil
}

// SamePlatform says whether two platforms are one, however they are written.
func SamePlatform(a, b v1.Platform) bool {
	a, b = image.NormalizePlatform(a), image.NormalizePlatform(b)
	return a.OS == b.OS && a.Architecture == b.Architecture && a.Variant == b.Variant && a.OSVersion == b.OSVersion &&
		slices.Equal(slices.Sorted(slices.Values(a.OSFeatures)), slices.Sorted(slices.Values(b.OSFeatures)))
}

// EditEntries has edit change each entry that match chooses, or take it out,
// where it returns nil. If there is none, that is ErrNotThere.
func EditEntries(x *v1.Index, what string, match func(v1.Descriptor) bool, edit func(v1.Descriptor) *v1.Descriptor) error {
	kept := []v1.Descriptor{}
	found := false
	for _, d := range x.Manifests {
		if !match(d) {
			kept = append(kept, d)
			continue
		}
		found = true
		d.Annotations = maps.Clone(d.Annotations)
		if e := edit(d); e != nil {
			kept = append(kept, *e)
		}
	}
	if !found {
		return fmt.Errorf("%s %w", what, ErrNotThere)
	}
	x.Manifests = kept
	return nil
}

// Annotate sets annotations, and removes those with an empty value.
func Annotate(have, change map[string]string) map[string]string {
	result := maps.Clone(have)
	for k, v := range change {
		if v == "" {
			delete(result, k)
			continue
		}
		if result == nil {
			result = map[string]string{}
		}
		result[k] = v
	}
	if len(result) == 0 {
		return nil
	}
	return result
}

// Each changes every image that an index, also a nested one, leads to, and
// makes the indexes around them anew; a manifest it changes by itself. What is
// not an image stays as it is, but for BuildKit's attestations: they speak of the
// image that was, and go with it. What is listed several times is changed once.
func Each(ctx context.Context, st Store, desc v1.Descriptor, change func(*image.Image) (v1.Descriptor, error)) (v1.Descriptor, error) {
	e := eacher{ctx: ctx, store: st, change: change, made: map[digest.Digest]v1.Descriptor{}}
	return e.document(desc, 0)
}

const (
	maxIndexDepth = 8 // as in package image
	maxDocuments  = 16384

	// BuildKit's annotations on the descriptor of an attestation.
	attestationType = "vnd.docker.reference.type"
	attestedDigest  = "vnd.docker.reference.digest"
)

// eacher is one call of Each.
type eacher struct {
	ctx    context.Context
	store  Store
	change func(*image.Image) (v1.Descriptor, error)
	made   map[digest.Digest]v1.Descriptor // what became of a document
}

// document says what becomes of an index or a manifest.
func (e *eacher) document(desc v1.Descriptor, depth int) (v1.Descriptor, error) {
	kind := image.KindOf(desc)
	if kind != image.KindIndex && (kind != image.KindManifest || desc.Annotations[attestationType] != "") {
		return desc, nil
	}
	made, known := e.made[desc.Digest]
	var err error
	switch {
	case known:
	case depth > maxIndexDepth:
		return v1.Descriptor{}, fmt.Errorf("index %s: nested more than %d deep", desc.Digest, maxIndexDepth)
	case len(e.made) >= maxDocuments:
		return v1.Descriptor{}, fmt.Errorf("more than %d images and indexes to change", maxDocuments)
	case kind == image.KindIndex:
		made, err = e.index(desc, depth)
	default:
		made, err = e.image(desc)
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	e.made[desc.Digest] = made
	if made.Digest == desc.Digest {
		return desc, nil
	}
	return made, nil
}

func (e *eacher) image(desc v1.Descriptor) (v1.Descriptor, error) {
	img, err := image.Load(e.ctx, e.store, desc)
	if errors.Is(err, image.ErrArtifact) {
		return desc, nil
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	return e.change(img)
}

func (e *eacher) index(desc v1.Descriptor, depth int) (v1.Descriptor, error) {
	x, err := LoadIndex(e.ctx, e.store, desc)
	if err != nil {
		return v1.Descriptor{}, err
	}
	gone := map[string]bool{} // digests of images that have been replaced
	for i, d := range x.Manifests {
		made, err := e.document(d, depth+1)
		if err != nil {
			return v1.Descriptor{}, err
		}
		made.Annotations, made.ArtifactType = d.Annotations, d.ArtifactType
		if made.Platform == nil || d.Platform != nil && made.Digest == d.Digest {
			made.Platform = d.Platform
		}
		x.Manifests[i] = made
		gone[string(d.Digest)] = made.Digest != d.Digest
	}
	x.Manifests = slices.DeleteFunc(x.Manifests, func(d v1.Descriptor) bool { return gone[d.Annotations[attestedDigest]] })
	return PutIndex(e.ctx, e.store, x)
}
