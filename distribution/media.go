package distribution

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's names for what the Image Spec standardised (schema 2).
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ManifestTypes are the manifests this program understands, in the order of
// preference in which a client asks for them.
func ManifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex,
		ocispec.MediaTypeImageManifest,
		MediaTypeDockerManifestList,
		MediaTypeDockerManifest,
	}
}

// ManifestType decides what a manifest is: by its Content-Type, parameters
// dropped, and by its own mediaType field, which must agree. A Content-Type
// that says nothing (as static file servers send) gives way to the field.
// The body must be one JSON object.
func ManifestType(contentType string, body []byte) (string, error) {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Config    json.RawMessage `json:"config"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return "", fmt.Errorf("not a JSON object: %w", ErrInvalidManifest)
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	if err := unambiguous(body); err != nil {
		return "", err
	}
	if base, _, err := mime.ParseMediaType(contentType); err == nil {
		contentType = base
	} else {
		contentType = ""
	}
	switch {
	case doc.MediaType != "" && !ValidMediaType(doc.MediaType):
		return "", fmt.Errorf("bad media type %q: %w", clean(doc.MediaType), ErrInvalidManifest)
	case vague(contentType) && doc.MediaType != "":
		return doc.MediaType, nil
	case vague(contentType) && doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case vague(contentType) && doc.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	case vague(contentType):
		return "", fmt.Errorf("no media type: %w", ErrInvalidManifest)
	case doc.MediaType != "" && !strings.EqualFold(doc.MediaType, contentType):
		return "", fmt.Errorf("Content-Type is %q but the manifest says %q: %w", contentType, clean(doc.MediaType), ErrInvalidManifest)
	}
	return contentType, nil
}

// unambiguous refuses an object with a key that is there twice, or once more in other
// letters: Go's decoder takes the last one, others the first or the exact one, so that
// a registry and its clients would read different manifests.
func unambiguous(object []byte) error {
	keys := json.NewDecoder(bytes.NewReader(object))
	if _, err := keys.Token(); err != nil { // the brace
		return fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	seen := map[string]bool{}
	for keys.More() {
		key, err := keys.Token()
		var value json.RawMessage
		if err == nil {
			err = keys.Decode(&value)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidManifest, err)
		}
		name, _ := key.(string)
		folded := strings.ToLower(strings.ToUpper(name)) // as encoding/json compares
		if seen[folded] {
			return fmt.Errorf("%q is there twice: %w", clean(name), ErrInvalidManifest)
		}
		seen[folded] = true
	}
	return nil
}

func vague(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain":
		return true
	}
	return false
}

// ValidMediaType bounds a media type to what can stand in a header and a file:
// RFC 6838's length and printable ASCII without spaces.
func ValidMediaType(s string) bool {
	if s == "" || len(s) > 255 || !strings.Contains(s, "/") {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
