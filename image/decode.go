package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds on documents from outside.
const (
	// MaxDocumentBytes is the size that registries accept for a manifest
	// (distribution-spec, "Pushing Manifests"). It holds for configs too.
	MaxDocumentBytes = 4 << 20
	// MaxLayers is twice what overlayfs can stack (500 lower directories).
	MaxLayers = 1000
	// MaxBlobBytes bounds the size that a descriptor may give: 1 PiB, so that no
	// sum over the layers of an image overflows.
	MaxBlobBytes = 1 << 50
	// MaxManifests bounds the entries of one index.
	MaxManifests = 8192
)

// ErrSchema1 is in the chain of the error for a Docker schema 1 manifest,
// which has no digests of configs and cannot be run by anything of today.
var ErrSchema1 = errors.New("schema 1 manifests of Docker are not supported: pull the image with an old docker and push it again, or ask its publisher to")

// ErrArtifact is in the chain of the error for a manifest that carries
// something else than an image: a chart, a signature, a module, or, with an
// image's config but layers of other types, BuildKit's statements about one.
var ErrArtifact = errors.New("not an image but an artifact")

// probe has the fields by which the documents can be told apart.
type probe struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
	Manifests     json.RawMessage `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

// kind refuses documents that could be read as two things: CVE-2021-41190 is
// about a manifest to one tool that is an index to the next.
func (p *probe) kind() (Kind, error) {
	switch {
	case p.SchemaVersion == 1 || p.FSLayers != nil || LookupMediaType(p.MediaType).Kind == KindSchema1:
		return KindSchema1, ErrSchema1
	case p.Manifests != nil && (p.Layers != nil || p.Config != nil):
		return KindUnknown, errors.New("ambiguous: has the fields of a manifest (config, layers) and of an index (manifests)")
	case p.SchemaVersion != 2:
		return KindUnknown, fmt.Errorf("schemaVersion: %d, want 2", p.SchemaVersion)
	case p.Manifests != nil:
		return KindIndex, nil
	case p.Layers != nil || p.Config != nil:
		return KindManifest, nil
	}
	return KindUnknown, errors.New("neither a manifest (config, layers) nor an index (manifests)")
}

// DetectMediaType tells what a document is that came without a usable media type.
func DetectMediaType(data []byte) (string, error) {
	if len(data) > MaxDocumentBytes {
		return "", fmt.Errorf("detect media type: %w", tooLarge(int64(len(data))))
	}
	var p probe
	if err := Unmarshal(data, &p); err != nil {
		return "", fmt.Errorf("detect media type: %w", err)
	}
	kind, err := p.kind()
	switch {
	case err != nil:
		return "", fmt.Errorf("detect media type: %w", err)
	case p.MediaType == "":
		return MediaType{Kind: kind}.OCI().Name, nil
	case LookupMediaType(p.MediaType).Kind != kind:
		return "", fmt.Errorf("detect media type: mediaType: %s, but the fields are those of an image %s", quote(p.MediaType), kind)
	}
	return p.MediaType, nil
}

func tooLarge(sizeBytes int64) error {
	return fmt.Errorf("size: %d bytes, more than the %d that a document may have", sizeBytes, MaxDocumentBytes)
}

// CheckDocument says whether desc can be the descriptor of a document of the
// given kind: what a reader asks before it fetches anything.
func CheckDocument(desc v1.Descriptor, kind Kind) error {
	err := CheckDescriptor(desc)
	if err == nil {
		switch got := KindOf(desc); {
		case got == KindSchema1:
			err = ErrSchema1
		case got != kind:
			err = fmt.Errorf("mediaType: %s is not that of an image %s", quote(desc.MediaType), kind)
		case desc.Size > MaxDocumentBytes:
			err = tooLarge(desc.Size)
		}
	}
	return decodeError(kind, desc.Digest, err)
}

func decodeError(kind Kind, d digest.Digest, err error) error {
	if err == nil {
		return nil
	}
	if CheckDigest(d) != nil {
		return fmt.Errorf("decode %s: %w", kind, err)
	}
	return fmt.Errorf("decode %s %s: %w", kind, d, err)
}

// DecodeManifest decodes the image manifest that desc describes, after
// checking that data is what desc says.
func DecodeManifest(desc v1.Descriptor, data []byte) (v1.Manifest, error) {
	var m v1.Manifest
	if err := decodeReferring(desc, KindManifest, data, &m); err != nil {
		return v1.Manifest{}, err
	}
	if err := checkManifest(&m); err != nil {
		return v1.Manifest{}, decodeError(KindManifest, desc.Digest, err)
	}
	return m, nil
}

// DecodeIndex decodes the image index that desc describes, after checking
// that data is what desc says.
func DecodeIndex(desc v1.Descriptor, data []byte) (v1.Index, error) {
	var x v1.Index
	if err := decodeReferring(desc, KindIndex, data, &x); err != nil {
		return v1.Index{}, err
	}
	if err := checkIndex(&x); err != nil {
		return v1.Index{}, decodeError(KindIndex, desc.Digest, err)
	}
	return x, nil
}

// decodeReferring decodes a manifest or an index.
func decodeReferring(desc v1.Descriptor, kind Kind, data []byte, v any) error {
	if err := CheckDocument(desc, kind); err != nil {
		return err
	}
	err := CheckContent(desc, data)
	if err != nil {
		return decodeError(kind, desc.Digest, err)
	}
	var p probe
	if err = Unmarshal(data, &p); err == nil {
		var got Kind
		switch got, err = p.kind(); {
		case err != nil:
		case got != kind:
			err = fmt.Errorf("mediaType: %s, but the fields are those of an image %s", quote(desc.MediaType), got)
		case p.MediaType != "" && p.MediaType != desc.MediaType:
			err = fmt.Errorf("mediaType: %s, but its descriptor says %s", quote(p.MediaType), quote(desc.MediaType))
		}
	}
	if err == nil {
		err = decodeTyped(data, v)
	}
	return decodeError(kind, desc.Digest, err)
}

// decodeTyped decodes data whose keys have been checked.
func decodeTyped(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var base64Err base64.CorruptInputError
	if errors.As(err, &base64Err) {
		return fmt.Errorf("data: %w", err) // the only such field; encoding/json does not name it
	}
	if err != nil {
		return explainJSON(err)
	}
	return nil
}

func checkManifest(m *v1.Manifest) error {
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("layers: %d, more than %d", len(m.Layers), MaxLayers)
	}
	if err := CheckDescriptor(m.Config); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	for i, l := range m.Layers {
		if err := CheckDescriptor(l); err != nil {
			return fmt.Errorf("layers[%d].%w", i, err)
		}
	}
	return checkAssociated(m.ArtifactType, m.Subject)
}

func checkIndex(x *v1.Index) error {
	if len(x.Manifests) > MaxManifests {
		return fmt.Errorf("manifests: %d, more than %d", len(x.Manifests), MaxManifests)
	}
	for i, d := range x.Manifests {
		if err := CheckDescriptor(d); err != nil {
			return fmt.Errorf("manifests[%d].%w", i, err)
		}
	}
	return checkAssociated(x.ArtifactType, x.Subject)
}

func checkAssociated(artifactType string, subject *v1.Descriptor) error {
	if artifactType != "" {
		if err := checkMediaType(artifactType); err != nil {
			return fmt.Errorf("artifactType: %w", err)
		}
	}
	if subject != nil {
		if err := CheckDescriptor(*subject); err != nil {
			return fmt.Errorf("subject.%w", err)
		}
	}
	return nil
}

// DecodeConfig decodes the image configuration that desc describes, after
// checking that data is what desc says. Fields that the specification does
// not know are allowed, as config.md demands.
func DecodeConfig(desc v1.Descriptor, data []byte) (v1.Image, error) {
	if err := CheckDocument(desc, KindConfig); err != nil {
		return v1.Image{}, err
	}
	var c v1.Image
	err := CheckContent(desc, data)
	if err == nil {
		err = Unmarshal(data, &c)
		var timeErr *time.ParseError
		if errors.As(err, &timeErr) {
			err = fmt.Errorf("%s: %w", badTimeField(data), err)
		}
	}
	if err == nil {
		err = checkConfig(&c)
	}
	if err != nil {
		return v1.Image{}, decodeError(KindConfig, desc.Digest, err)
	}
	return c, nil
}

func checkConfig(c *v1.Image) error {
	if c.RootFS.Type != "layers" {
		return fmt.Errorf("rootfs.type: %s, want \"layers\"", quote(c.RootFS.Type))
	}
	if n := len(c.RootFS.DiffIDs); n > MaxLayers {
		return fmt.Errorf("rootfs.diff_ids: %d, more than %d", n, MaxLayers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := CheckDigest(d); err != nil {
			return fmt.Errorf("rootfs.diff_ids[%d]: %w", i, err)
		}
	}
	return nil
}

// badTimeField finds which field held a time that does not parse, which
// encoding/json does not say.
func badTimeField(data []byte) string {
	var top struct {
		Created *time.Time `json:"created"`
	}
	if json.Unmarshal(data, &top) != nil {
		return "created"
	}
	return "history.created"
}

// ChainIDs returns the identity of each layer applied on those before it
// (config.md, "Layer ChainID"): the last one names the whole file system.
func ChainIDs(diffIDs []digest.Digest) []digest.Digest {
	chain := make([]digest.Digest, len(diffIDs))
	for i, d := range diffIDs {
		if i == 0 {
			chain[i] = d
			continue
		}
		chain[i] = digest.FromString(string(chain[i-1]) + " " + string(d))
	}
	return chain
}
