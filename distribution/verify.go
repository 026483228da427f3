package distribution

import (
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Verify reads r, which must hold exactly what desc describes: where r ends,
// or goes on past desc.Size, the reader fails with ErrDigestMismatch or
// ErrSizeMismatch unless all is right. Only the final io.EOF vouches for the
// bytes before it.
func Verify(r io.Reader, desc ocispec.Descriptor) io.Reader {
	v := &verifier{r: r, desc: desc}
	if _, v.err = ParseDigest(desc.Digest.String()); v.err == nil {
		v.hash = desc.Digest.Algorithm().Digester()
	}
	return v
}

type verifier struct {
	r    io.Reader
	desc ocispec.Descriptor
	hash digest.Digester
	n    int64
	err  error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.n > v.desc.Size {
		v.err = fmt.Errorf("blob %s: more than %d bytes: %w", v.desc.Digest, v.desc.Size, ErrSizeMismatch)
		return 0, v.err
	}
	v.hash.Hash().Write(p[:n])
	if err == io.EOF {
		err = v.verdict()
	}
	v.err = err
	return n, err
}

func (v *verifier) verdict() error {
	if v.n != v.desc.Size {
		return fmt.Errorf("blob %s: %d bytes, not %d: %w", v.desc.Digest, v.n, v.desc.Size, ErrSizeMismatch)
	}
	if got := v.hash.Digest(); got != v.desc.Digest {
		return fmt.Errorf("blob %s: content is %s: %w", v.desc.Digest, got, ErrDigestMismatch)
	}
	return io.EOF
}
