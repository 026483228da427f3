package transfer

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// A Source is one image, index or artifact where it is kept. Its methods may
// be called concurrently.
type Source interface {
	// Fetch gets a manifest, index or config. An error with fs.ErrNotExist
	// means that the source does not have it: an index may be sparse.
	image.Fetcher
	// Root describes what the source was opened for: a manifest or an index.
	Root() v1.Descriptor
	// Blob opens a blob from offset on. What it yields need not be verified.
	// An error with fs.ErrNotExist means that the source does not have it.
	Blob(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error)
	// Close gives the source up.
	Close() error
}

// A Destination is a place for one image, index or artifact, under the name
// that the destination was opened with. Its methods, but for the last three,
// may be called concurrently. What has been put need not show before Commit.
type Destination interface {
	// HasBlob says whether a blob need not be put.
	HasBlob(ctx context.Context, desc v1.Descriptor) (bool, error)
	// PutBlob stores a blob after it has verified digest and size; a
	// mismatch is an error with image.ErrMismatch. It calls open for the
	// content from an offset on: 0, or where an earlier attempt ended; again
	// for another attempt; not at all if the blob turns out to be there.
	PutBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error
	// PutManifest stores a manifest or index that another index will lead to.
	// What it refers to itself was put before.
	PutManifest(ctx context.Context, desc v1.Descriptor, data []byte) error
	// PutRoot stores a manifest or index and gives it the destination's name.
	PutRoot(ctx context.Context, desc v1.Descriptor, data []byte) error
	// Commit makes it all last, and seen by others.
	Commit(ctx context.Context) error
	// Close gives the destination up. What was not committed leaves no name,
	// and nothing that looks whole and is not.
	Close() error
}

// An ImageWriter is a Destination whose form is not made of manifests and
// blobs: it takes images and brings them into its own form, in place of
// PutBlob and the like, which are not called.
type ImageWriter interface {
	Destination
	// PutImage stores an image, whose layers are read from src and verified,
	// and gives it the destination's name. It returns what describes the image
	// there.
	PutImage(ctx context.Context, src Source, img *image.Image, p Progress) (v1.Descriptor, error)
}

// Progress is told how a copy goes on, by several goroutines at once.
type Progress interface {
	// Start: a blob is about to be copied. Bytes of it that are at the
	// destination already are counted in haveBytes: all of them, if there is
	// nothing to copy. For another attempt, Start is called again.
	Start(blob v1.Descriptor, haveBytes int64)
	// Advance: more bytes of it have come.
	Advance(blob digest.Digest, bytes int64)
	// Done: it is there, verified.
	Done(blob digest.Digest)
}

// Silent is the Progress that tells nobody.
type Silent struct{}

// Start implements Progress.
func (Silent) Start(v1.Descriptor, int64) {}

// Advance implements Progress.
func (Silent) Advance(digest.Digest, int64) {}

// Done implements Progress.
func (Silent) Done(digest.Digest) {}

// Counted tells p of the bytes that are read from r.
func Counted(r io.ReadCloser, blob digest.Digest, p Progress) io.ReadCloser {
	return &counted{r, blob, p}
}

type counted struct {
	io.ReadCloser
	blob     digest.Digest
	progress Progress
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.progress.Advance(c.blob, int64(n))
	}
	return n, err
}
