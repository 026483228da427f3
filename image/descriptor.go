package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrMismatch is in the chain of every error that says some content is not
// what its descriptor promised: another digest, or another size.
var ErrMismatch = errors.New("content does not match its descriptor")

// CheckDigest says whether d is well formed and of an algorithm that images
// may use here: sha256 or sha512, in lower-case hexadecimal (descriptor.md,
// "Digests"). Only such a digest may become part of a file name.
func CheckDigest(d digest.Digest) error {
	alg, enc, ok := strings.Cut(string(d), ":")
	var want int
	switch {
	case !ok:
		return fmt.Errorf("digest %s: not of the form algorithm:hex", quote(string(d)))
	case alg == "sha256":
		want = sha256.Size
	case alg == "sha512":
		want = sha512.Size
	default:
		return fmt.Errorf("digest %s: algorithm %s is not sha256 or sha512", quote(string(d)), quote(alg))
	}
	if len(enc) != 2*want {
		return fmt.Errorf("digest %s: %d hexadecimal digits, want %d", quote(string(d)), len(enc), 2*want)
	}
	if i := strings.IndexFunc(enc, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }); i >= 0 {
		return fmt.Errorf("digest %s: not lower-case hexadecimal", quote(string(d)))
	}
	return nil
}

// NewHash returns the hash that computes d's algorithm.
func NewHash(d digest.Digest) (hash.Hash, error) {
	if err := CheckDigest(d); err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(d), "sha512:") {
		return sha512.New(), nil
	}
	return sha256.New(), nil
}

// CheckSum compares a finished hash with d.
func CheckSum(d digest.Digest, h hash.Hash) error {
	got := hex.EncodeToString(h.Sum(nil))
	if alg, enc, _ := strings.Cut(string(d), ":"); enc != got {
		return fmt.Errorf("%w: content has digest %s:%s", ErrMismatch, alg, got)
	}
	return nil
}

// CheckContent compares data with what desc says of it.
func CheckContent(desc v1.Descriptor, data []byte) error {
	h, err := NewHash(desc.Digest)
	if err != nil {
		return err
	}
	if int64(len(data)) != desc.Size {
		return sizeMismatch(desc.Size, int64(len(data)))
	}
	h.Write(data)
	return CheckSum(desc.Digest, h)
}

func sizeMismatch(wantBytes, gotBytes int64) error {
	return fmt.Errorf("%w: %d bytes, descriptor says %d", ErrMismatch, gotBytes, wantBytes)
}

// CheckDescriptor says whether desc is one that descriptor.md allows. Errors
// begin with the field.
func CheckDescriptor(desc v1.Descriptor) error {
	if err := checkMediaType(desc.MediaType); err != nil {
		return fmt.Errorf("mediaType: %w", err)
	}
	if err := CheckDigest(desc.Digest); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	if desc.Size < 0 {
		return fmt.Errorf("size: %d is negative", desc.Size)
	}
	if desc.Size > MaxBlobBytes {
		return fmt.Errorf("size: %d is more than %d", desc.Size, int64(MaxBlobBytes))
	}
	if desc.ArtifactType != "" {
		if err := checkMediaType(desc.ArtifactType); err != nil {
			return fmt.Errorf("artifactType: %w", err)
		}
	}
	if desc.Data != nil {
		if err := CheckContent(desc, desc.Data); err != nil {
			return fmt.Errorf("data: %w", err)
		}
	}
	return nil
}

// checkMediaType holds s to RFC 6838 section 4.2, without parameters.
func checkMediaType(s string) error {
	typ, sub, ok := strings.Cut(s, "/")
	if !ok || !restrictedName(typ) || !restrictedName(sub) {
		return fmt.Errorf("%s is not a media type", quote(s))
	}
	return nil
}

func restrictedName(s string) bool {
	if s == "" || len(s) > 127 || !alphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !alphanumeric(s[i]) && !strings.ContainsRune("!#$&-^_.+", rune(s[i])) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// quote makes a string from outside fit to be printed: on one line, without
// control characters, and not longer than a digest.
func quote(s string) string {
	const max = 160
	if len(s) > max {
		return fmt.Sprintf("%q…", s[:max])
	}
	return fmt.Sprintf("%q", s)
}

// VerifyReader returns a reader of r that checks on the way that the content
// is desc's: where r ends, it reports io.EOF only for the right size and
// digest, otherwise an error with ErrMismatch. It never returns more than
// desc.Size bytes. Content is verified once io.EOF was seen, not before.
func VerifyReader(r io.Reader, desc v1.Descriptor) (io.Reader, error) {
	h, err := NewHash(desc.Digest)
	if err != nil {
		return nil, err
	}
	return &verifyReader{r: r, desc: desc, hash: h, left: desc.Size}, nil
}

type verifyReader struct {
	r    io.Reader
	desc v1.Descriptor
	hash hash.Hash
	left int64
	err  error // the last one, kept
}

func (v *verifyReader) Read(p []byte) (int, error) {
	if v.err != nil || len(p) == 0 {
		return 0, v.err
	}
	if v.left == 0 {
		v.err = v.end()
		return 0, v.err
	}
	if int64(len(p)) > v.left {
		p = p[:v.left]
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.left -= int64(n)
	switch {
	case err == io.EOF && v.left > 0:
		v.err = v.named(sizeMismatch(v.desc.Size, v.desc.Size-v.left))
	case err != nil && err != io.EOF:
		v.err = v.named(err)
	}
	return n, v.err
}

// end is called after the last promised byte: nothing may follow.
func (v *verifyReader) end() error {
	var one [1]byte
	switch n, err := io.ReadFull(v.r, one[:]); {
	case n > 0:
		return v.named(fmt.Errorf("%w: more than the %d bytes of its descriptor", ErrMismatch, v.desc.Size))
	case err != io.EOF:
		return v.named(err)
	}
	if err := CheckSum(v.desc.Digest, v.hash); err != nil {
		return v.named(err)
	}
	return io.EOF
}

func (v *verifyReader) named(err error) error {
	return fmt.Errorf("read blob %s: %w", v.desc.Digest, err)
}
