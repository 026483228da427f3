package layer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/tare-oci/tare/image/layer/inflate"
)

const (
	// readAheadBytes is how much of the blob is read at once.
	readAheadBytes = 128 << 10
	// headBytes is as much as the beginnings of blobs, and of zstd's frames, are looked at.
	headBytes = 64
	// maxWindowBytes is how far back a zstd frame may refer, which is memory we have to hold: what `zstd --long` makes
	// and `zstd -d` takes without being asked.
	maxWindowBytes = 128 << 20
)

// Decompress opens a layer's blob, or another tar archive that is compressed as layers are, for reading what is in it. An
// empty media type says nothing. What comes out is as long as the blob wants: whoever reads it has to bound it.
func Decompress(blob io.Reader, mediaType string) (io.ReadCloser, error) {
	return decompress(bufio.NewReaderSize(blob, readAheadBytes), mediaType)
}

// decompress opens a blob for reading what is in it. What it is shows in its first bytes: images are common whose media
// type is wrong about that. The media type counts where it names something that we do not know.
func decompress(r *bufio.Reader, mediaType string) (io.ReadCloser, error) {
	if err := checkMediaType(mediaType); err != nil {
		return nil, err
	}
	head, err := r.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		z, err := inflate.NewGzipReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(z), nil
	case isZstd(head):
		return openZstd(r)
	}
	for name, magic := range map[string]string{"xz": "\xfd7zXZ\x00", "bzip2": "BZh", "lz4": "\x04\x22\x4d\x18"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, fmt.Errorf("%w: %s", ErrCompression, name)
		}
	}
	return io.NopCloser(r), nil
}

// openZstd reads all frames and skips the skippable ones, in which zstd:chunked keeps its table of contents.
func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	// With a buffer of twice the window, data is moved once for a window and not once for a block, which is a quarter of the time.
	const maxTwiceBytes = 8 << 20
	head, err := r.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var h zstd.Header
	tight := h.Decode(head) == nil && h.WindowSize > maxTwiceBytes
	// The stream is a goroutine of its own already; more of them make it slower.
	d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindowBytes), zstd.WithDecoderLowmem(tight), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func isZstd(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	skippable := head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
	return skippable || bytes.Equal(head[:4], []byte{0x28, 0xb5, 0x2f, 0xfd})
}

// checkMediaType refuses a layer that says it is something else than a tar archive, plain or in gzip or zstd, in the
// Image Spec's words or in Docker's.
func checkMediaType(mediaType string) error {
	if mediaType == "" {
		return nil
	}
	for _, suffix := range []string{".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip", ".tar.zstd"} {
		if strings.HasSuffix(mediaType, suffix) {
			return nil
		}
	}
	if strings.HasSuffix(mediaType, encryptedSuffix) {
		return fmt.Errorf("%w: media type %q", ErrEncrypted, mediaType)
	}
	return fmt.Errorf("%w: media type %q", ErrCompression, mediaType)
}
