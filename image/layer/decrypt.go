package layer

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Decrypter turns the blobs of encrypted layers into what they were before. No encryption of layers is part of the Image
// Spec; the one that is met, of the ocicrypt project, adds "+encrypted" to the media type and keeps the keys, wrapped for
// those who may have them, in annotations of the layer's descriptor.
type Decrypter interface {
	// Decrypt returns what blob holds, a layer of the descriptor's media type less the suffix. Whatever is wrong, with the
	// keys for one, is an error of Decrypt, or of a Read before io.EOF: what is read up to io.EOF is all of it. Close
	// ends everything that was started, also in the middle. The blob may be read until then.
	Decrypt(ctx context.Context, desc v1.Descriptor, blob io.Reader) (io.ReadCloser, error)
}

const (
	encryptedSuffix = "+encrypted"
	// wrappedKeys begins the annotations that hold the wrapped keys; what follows is the way they are wrapped.
	wrappedKeys = "org.opencontainers.image.enc.keys."
)

// IsEncrypted says whether a media type is that of an encrypted layer.
func IsEncrypted(mediaType string) bool { return strings.HasSuffix(mediaType, encryptedSuffix) }

// Decrypt returns the plain form of a layer's blob and its media type: the blob itself if it is not encrypted. d may be
// nil; an encrypted layer is then refused with ErrEncrypted, and so is one within another.
func Decrypt(ctx context.Context, desc v1.Descriptor, blob io.Reader, d Decrypter) (plain io.ReadCloser, mediaType string, err error) {
	if !IsEncrypted(desc.MediaType) {
		return io.NopCloser(blob), desc.MediaType, nil
	}
	mediaType = strings.TrimSuffix(desc.MediaType, encryptedSuffix)
	if d == nil {
		return nil, "", fmt.Errorf("layer %s: %w: media type %q%s", desc.Digest, ErrEncrypted, desc.MediaType, keyWraps(desc))
	}
	if err := checkMediaType(mediaType); err != nil {
		return nil, "", fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	if plain, err = d.Decrypt(ctx, desc, blob); err != nil {
		return nil, "", fmt.Errorf("decrypt layer %s: %w", desc.Digest, err)
	}
	return decrypted{plain, desc}, mediaType, nil
}

// keyWraps says for what kinds of keys a layer is encrypted, as far as its descriptor tells.
func keyWraps(desc v1.Descriptor) string {
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(desc.Annotations)) {
		if kind, ok := strings.CutPrefix(name, wrappedKeys); ok {
			kinds = append(kinds, quote(kind))
		}
	}
	if len(kinds) == 0 {
		return ""
	}
	const maxShown = 8
	return ", its keys wrapped by " + strings.Join(kinds[:min(len(kinds), maxShown)], ", ")
}

// decrypted names the layer in errors.
type decrypted struct {
	io.ReadCloser
	desc v1.Descriptor
}

func (d decrypted) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("decrypt layer %s: %w", d.desc.Digest, err)
	}
	return n, err
}
