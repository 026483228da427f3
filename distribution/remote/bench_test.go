package remote_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/remote"
)

// BenchmarkTransfer moves blobs and manifests between our client and our
// registry over loopback, both in this process.
func BenchmarkTransfer(b *testing.B) {
	ref := parse(b, ourRegistry(b)+"/a/b:v1")
	c := remote.New(remote.Options{})
	defer c.Close()
	content := make([]byte, 64<<20)
	rand.Read(content)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	if err := c.PushBlob(b.Context(), ref.Repository, desc, open); err != nil {
		b.Fatal(err)
	}
	if _, err := c.PushManifest(b.Context(), ref, ocispec.MediaTypeImageManifest, []byte(`{"layers":[]}`)); err != nil {
		b.Fatal(err)
	}
	b.Run("manifest", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := c.Resolve(b.Context(), ref); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(desc.Size)
		for b.Loop() {
			r, err := c.Blob(b.Context(), ref.Repository, desc, 0)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 256<<10)); n != desc.Size || err != nil {
				b.Fatal(n, err)
			}
			r.Close()
		}
	})
	b.Run("push", func(b *testing.B) {
		b.SetBytes(desc.Size)
		for n := byte(0); b.Loop(); n++ {
			b.StopTimer()
			content[0], content[1] = content[0]+1, n
			desc.Digest = digest.FromBytes(content)
			b.StartTimer()
			if err := c.PushBlob(b.Context(), ref.Repository, desc, open); err != nil {
				b.Fatal(err)
			}
		}
	})
}
