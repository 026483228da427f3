package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds on a search through nested indexes.
const (
	maxIndexDepth = 8
	maxDocuments  = 64 // fetched for one search
)

// Fetcher gets documents: from a store, from a registry, or from the one
// through the other.
type Fetcher interface {
	// Fetch returns the content of a manifest, index or config, at most
	// MaxDocumentBytes of it. Who asks checks the content against desc, so
	// Fetch need not. An error with fs.ErrNotExist means that it is not there.
	Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error)
}

// Image is a manifest with its config, fit to be unpacked and run: every layer
// has a known media type and a DiffID.
type Image struct {
	Descriptor v1.Descriptor // of the manifest
	Manifest   v1.Manifest
	Config     v1.Image
	Indexes    []v1.Descriptor // through which Select came, the outermost first
}

// Load reads the image whose manifest is desc.
func Load(ctx context.Context, f Fetcher, desc v1.Descriptor) (*Image, error) {
	if err := CheckDocument(desc, KindManifest); err != nil {
		return nil, err
	}
	data, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	m, err := DecodeManifest(desc, data)
	if err != nil {
		return nil, err
	}
	if KindOf(m.Config) != KindConfig {
		return nil, fmt.Errorf("load image %s: %w: config.mediaType is %s", desc.Digest, ErrArtifact, quote(m.Config.MediaType))
	}
	if err := CheckDocument(m.Config, KindConfig); err != nil {
		return nil, fmt.Errorf("load image %s: %w", desc.Digest, err)
	}
	if data, err = f.Fetch(ctx, m.Config); err != nil {
		return nil, fmt.Errorf("load image %s: %w", desc.Digest, err)
	}
	c, err := DecodeConfig(m.Config, data)
	if err != nil {
		return nil, fmt.Errorf("load image %s: %w", desc.Digest, err)
	}
	img := &Image{Descriptor: desc, Manifest: m, Config: c}
	if err := img.check(); err != nil {
		return nil, fmt.Errorf("load image %s: %w", desc.Digest, err)
	}
	return img, nil
}

func (img *Image) check() error {
	for i, l := range img.Manifest.Layers {
		if KindOf(l) != KindLayer {
			return fmt.Errorf("%w: layers[%d].mediaType: %s is not that of a layer", ErrArtifact, i, quote(l.MediaType))
		}
	}
	if n, m := len(img.Config.RootFS.DiffIDs), len(img.Manifest.Layers); n != m {
		return fmt.Errorf("config %s: rootfs.diff_ids: %d for %d layers", img.Manifest.Config.Digest, n, m)
	}
	return nil
}

// NoPlatformError says that there is an image, but for other platforms only.
type NoPlatformError struct {
	Digest digest.Digest
	Want   v1.Platform
	Have   []v1.Platform
}

func (e *NoPlatformError) Error() string {
	const most = 32
	var have []string
	for _, p := range e.Have {
		s := PlatformString(NormalizePlatform(p))
		if len(p.OSFeatures) > 0 {
			s += " with the features " + quote(strings.Join(p.OSFeatures, ","))
		}
		if e.Want.OSVersion != "" {
			s += " in version " + quote(p.OSVersion)
		}
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	if len(have) > most {
		have = append(have[:most], "…")
	}
	list := "it has none"
	if len(have) > 0 {
		list = "it is for " + strings.Join(have, ", ")
	}
	return fmt.Sprintf("select image %s: nothing for %s: %s", e.Digest, PlatformString(e.Want), list)
}

// Select finds the image for a platform. Desc may be an index, which may hold
// further indexes, or a manifest, which then has to be for that platform.
func Select(ctx context.Context, f Fetcher, desc v1.Descriptor, want v1.Platform) (*Image, error) {
	if KindOf(desc) != KindIndex {
		img, err := Load(ctx, f, desc)
		if err != nil {
			return nil, err
		}
		if MatchPlatform(want, img.Config.Platform) < 0 {
			return nil, &NoPlatformError{Digest: desc.Digest, Want: want, Have: []v1.Platform{img.Config.Platform}}
		}
		return img, nil
	}
	s := search{fetch: f, want: want, bestRank: -1, seen: map[digest.Digest]bool{}}
	if err := s.index(ctx, desc, nil); err != nil {
		return nil, err
	}
	if s.bestRank < 0 {
		if err := s.unmarkedImages(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case s.img != nil:
		return s.img, nil
	case s.bestRank < 0 && s.absent != nil:
		return nil, s.absent
	case s.bestRank < 0:
		return nil, &NoPlatformError{Digest: desc.Digest, Want: want, Have: s.have}
	}
	img, err := Load(ctx, f, s.best.desc)
	if err != nil {
		return nil, err
	}
	img.Indexes = s.best.path
	return img, nil
}

// candidate is a manifest and the indexes that lead to it.
type candidate struct {
	desc v1.Descriptor
	path []v1.Descriptor
}

// search is one walk through an index and those in it.
type search struct {
	fetch    Fetcher
	want     v1.Platform
	seen     map[digest.Digest]bool // indexes
	fetched  int
	best     candidate
	bestRank int
	have     []v1.Platform
	unmarked []candidate // manifests without a platform
	img      *Image      // an unmarked one that turned out to be right
	absent   error       // a part that was not there: an index may be sparse
}

// index looks at the manifests of an index and then, unless one of them is
// just right, at the indexes in it.
func (s *search) index(ctx context.Context, desc v1.Descriptor, path []v1.Descriptor) error {
	if s.seen[desc.Digest] {
		return nil
	}
	s.seen[desc.Digest] = true
	if len(path) >= maxIndexDepth {
		return fmt.Errorf("select image: index %s: nested more than %d deep", desc.Digest, maxIndexDepth)
	}
	x, err := s.open(ctx, desc)
	if errors.Is(err, fs.ErrNotExist) && len(path) > 0 {
		s.absent = err
		return nil
	}
	if err != nil {
		return err
	}
	path = append(slices.Clip(path), desc)
	for _, d := range x.Manifests {
		if KindOf(d) == KindManifest {
			s.consider(candidate{d, path})
		}
	}
	for _, d := range x.Manifests {
		if s.bestRank == 0 {
			return nil
		}
		if KindOf(d) != KindIndex || d.Platform != nil && MatchPlatform(s.want, *d.Platform) < 0 {
			continue
		}
		if err := s.index(ctx, d, path); err != nil {
			return err
		}
	}
	return nil
}

func (s *search) open(ctx context.Context, desc v1.Descriptor) (v1.Index, error) {
	if err := s.count(desc); err != nil {
		return v1.Index{}, err
	}
	if err := CheckDocument(desc, KindIndex); err != nil {
		return v1.Index{}, err
	}
	data, err := s.fetch.Fetch(ctx, desc)
	if err != nil {
		return v1.Index{}, err
	}
	return DecodeIndex(desc, data)
}

func (s *search) count(desc v1.Descriptor) error {
	if s.fetched++; s.fetched > maxDocuments {
		return fmt.Errorf("select image: %s %s: more than %d documents to look at", KindOf(desc), desc.Digest, maxDocuments)
	}
	return nil
}

func (s *search) consider(c candidate) {
	if attestation(c.desc) {
		return
	}
	if c.desc.Platform == nil {
		if c.desc.ArtifactType == "" {
			s.unmarked = append(s.unmarked, c)
		}
		return
	}
	s.have = append(s.have, *c.desc.Platform)
	if rank := MatchPlatform(s.want, *c.desc.Platform); rank >= 0 && (s.bestRank < 0 || rank < s.bestRank) {
		s.best, s.bestRank = c, rank
	}
}

// attestation tells BuildKit's statements about an image from the image: they
// stand in the index like manifests, for the platform unknown/unknown.
func attestation(desc v1.Descriptor) bool {
	p := desc.Platform
	return p != nil && p.OS == "unknown" && p.Architecture == "unknown" ||
		desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// unmarkedImages asks the configs of manifests whose descriptors say nothing
// of a platform, which the specification allows.
func (s *search) unmarkedImages(ctx context.Context) error {
	for _, c := range s.unmarked {
		if err := s.count(c.desc); err != nil {
			return err
		}
		img, err := Load(ctx, s.fetch, c.desc)
		switch {
		case errors.Is(err, ErrArtifact):
			continue
		case errors.Is(err, fs.ErrNotExist):
			s.absent = err
			continue
		case err != nil:
			return err
		}
		s.have = append(s.have, img.Config.Platform)
		if rank := MatchPlatform(s.want, img.Config.Platform); rank >= 0 && (s.bestRank < 0 || rank < s.bestRank) {
			img.Indexes = c.path
			s.img, s.bestRank = img, rank
		}
	}
	return nil
}

// Reference is a descriptor in a document and the name of its field.
type Reference struct {
	Field string
	Desc  v1.Descriptor
}

// References lists what a document refers to: an index's manifests, a
// manifest's config and layers, and the subject of either. For any other kind
// of content there is nothing, and data is not looked at.
func References(desc v1.Descriptor, data []byte) ([]Reference, error) {
	var refs []Reference
	var subject *v1.Descriptor
	switch KindOf(desc) {
	case KindManifest:
		m, err := DecodeManifest(desc, data)
		if err != nil {
			return nil, err
		}
		refs = append(refs, Reference{"config", m.Config})
		for i, l := range m.Layers {
			refs = append(refs, Reference{fmt.Sprintf("layers[%d]", i), l})
		}
		subject = m.Subject
	case KindIndex:
		x, err := DecodeIndex(desc, data)
		if err != nil {
			return nil, err
		}
		for i, d := range x.Manifests {
			refs = append(refs, Reference{fmt.Sprintf("manifests[%d]", i), d})
		}
		subject = x.Subject
	}
	if subject != nil {
		refs = append(refs, Reference{"subject", *subject})
	}
	return refs, nil
}
