package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// blobPath is the only place where a digest becomes a path.
func blobPath(d digest.Digest) (string, error) {
	if err := image.CheckDigest(d); err != nil {
		return "", err
	}
	return blobsDir + "/" + string(d.Algorithm()) + "/" + d.Encoded(), nil
}

// Blob is an open blob of the size that its descriptor says. It stays readable
// when the store removes it.
type Blob struct {
	*io.SectionReader // Read, ReadAt, Seek, Size
	file              *os.File
}

// Close closes the blob.
func (b *Blob) Close() error { return b.file.Close() }

// Open opens a blob. Its size is checked, its digest was when it was written.
// An error with fs.ErrNotExist means that the store doesn't have it.
func (s *Store) Open(ctx context.Context, desc v1.Descriptor) (*Blob, error) {
	b, err := s.open(ctx, desc)
	if err != nil {
		return nil, s.blobError("open", desc.Digest, err)
	}
	return b, nil
}

func (s *Store) open(ctx context.Context, desc v1.Descriptor) (*Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := blobPath(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, st, err := s.openRegular(path)
	if err != nil {
		return nil, err
	}
	if st.Size() != desc.Size {
		f.Close()
		return nil, fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, st.Size(), desc.Size)
	}
	return &Blob{io.NewSectionReader(f, 0, desc.Size), f}, nil
}

// blobError names the blob and the store. The digest may be anything.
func (s *Store) blobError(op string, d digest.Digest, err error) error {
	if image.CheckDigest(d) != nil {
		return fmt.Errorf("%s blob in %s: %w", op, s.dir, err)
	}
	return fmt.Errorf("%s blob %s in %s: %w", op, d, s.dir, plain(err))
}

// OpenVerified is Open for content that must be right to the last bit: the
// reader reports io.EOF only after the digest was found to be right, and
// otherwise an error with image.ErrMismatch.
func (s *Store) OpenVerified(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	b, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	r, err := image.VerifyReader(b, desc)
	if err != nil {
		b.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{r, b}, nil
}

// Fetch reads a document, checked against desc. It makes a Store an
// image.Fetcher.
func (s *Store) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	data, err := s.fetch(ctx, desc)
	if err != nil {
		return nil, s.blobError("read", desc.Digest, err)
	}
	return data, nil
}

func (s *Store) fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Size > image.MaxDocumentBytes {
		return nil, fmt.Errorf("size: %d bytes, more than the %d that a document may have", desc.Size, image.MaxDocumentBytes)
	}
	b, err := s.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data := make([]byte, desc.Size)
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, err
	}
	return data, image.CheckContent(desc, data)
}

// Has says whether the store has the blob, in the right size.
func (s *Store) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	switch st, err := s.Stat(ctx, desc.Digest); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	default:
		return st.Size() == desc.Size, nil
	}
}

// Stat looks at a blob's file.
func (s *Store) Stat(ctx context.Context, d digest.Digest) (fs.FileInfo, error) {
	path, err := blobPath(d)
	if err == nil {
		err = ctx.Err()
	}
	var st fs.FileInfo
	if err == nil {
		st, err = s.root.Stat(path)
	}
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, s.blobError("stat", d, err)
	}
	return st, nil
}

// hashBlob reads a whole blob. It returns its size, and an error with
// image.ErrMismatch when the content is not what the name says.
func (s *Store) hashBlob(ctx context.Context, d digest.Digest) (sizeBytes int64, err error) {
	path, err := blobPath(d)
	if err != nil {
		return 0, err
	}
	f, _, err := s.openRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h, err := image.NewHash(d)
	if err != nil {
		return 0, err
	}
	if sizeBytes, err = copyContext(ctx, h, f); err != nil {
		return sizeBytes, err
	}
	return sizeBytes, image.CheckSum(d, h)
}

// copyContext is io.Copy that ends with ctx.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		m, err := r.Read(buf)
		if _, writeErr := w.Write(buf[:m]); writeErr != nil {
			return n, writeErr
		}
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
