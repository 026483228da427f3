package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// flipper is a cipher for tests: each byte is inverted, and the first one counts as the check of the key.
type flipper struct{ key byte }

func (f flipper) Decrypt(_ context.Context, _ v1.Descriptor, blob io.Reader) (io.ReadCloser, error) {
	var key [1]byte
	if _, err := io.ReadFull(blob, key[:]); err != nil || key[0] != f.key {
		return nil, errors.New("wrong key")
	}
	return io.NopCloser(inverted{blob}), nil
}

type inverted struct{ r io.Reader }

func (i inverted) Read(b []byte) (int, error) {
	n, err := i.r.Read(b)
	for j := range b[:n] {
		b[j] ^= 0xff
	}
	return n, err
}

func encrypted(key byte, plain []byte) []byte {
	blob := []byte{key}
	for _, c := range plain {
		blob = append(blob, c^0xff)
	}
	return blob
}

const encryptedGzip = v1.MediaTypeImageLayerGzip + "+encrypted"

func TestDecrypt(t *testing.T) {
	desc := v1.Descriptor{MediaType: encryptedGzip, Digest: blobName, Annotations: map[string]string{wrappedKeys + "jwe": "…", "other": "x"}}
	blob := encrypted(7, compressGzip(t, archive(t, file("a"))))
	plain, mediaType, err := Decrypt(t.Context(), desc, bytes.NewReader(blob), flipper{7})
	if err != nil || mediaType != v1.MediaTypeImageLayerGzip {
		t.Fatal(mediaType, err)
	}
	root, dir, _ := sandbox(t)
	if _, err := Apply(t.Context(), plain, root, ownable(Options{Name: blobName, MediaType: mediaType})); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir); got["a"] != "a" {
		t.Error(got)
	}
	if _, _, err := Decrypt(t.Context(), desc, bytes.NewReader(blob), flipper{8}); err == nil || !strings.Contains(err.Error(), blobName+": wrong key") {
		t.Errorf("wrong key: %v", err)
	}
	if _, _, err := Decrypt(t.Context(), desc, bytes.NewReader(blob), nil); !errors.Is(err, ErrEncrypted) || !strings.Contains(err.Error(), encryptedGzip) || !strings.Contains(err.Error(), `by "jwe"`) {
		t.Errorf("without a decrypter: %v", err)
	}
	if err := applyTo(t, root, blob, Options{MediaType: encryptedGzip}); !errors.Is(err, ErrEncrypted) {
		t.Errorf("applied as it is: %v", err)
	}
	for _, mediaType := range []string{encryptedGzip + "+encrypted", "text/plain+encrypted"} {
		desc.MediaType = mediaType
		if _, _, err := Decrypt(t.Context(), desc, bytes.NewReader(blob), flipper{7}); !errors.Is(err, ErrEncrypted) && !errors.Is(err, ErrCompression) {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
	desc.MediaType = v1.MediaTypeImageLayer
	if plain, mediaType, err := Decrypt(t.Context(), desc, strings.NewReader("as it is"), nil); err != nil || mediaType != desc.MediaType {
		t.Error(mediaType, err)
	} else if b, err := io.ReadAll(plain); err != nil || string(b) != "as it is" {
		t.Errorf("%q, %v", b, err)
	}
}
