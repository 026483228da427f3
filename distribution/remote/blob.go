package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// progressBytes is how much of a blob must have come for the attempts to be
// counted anew: a server that gives a byte a connection does not get far.
const progressBytes = 1 << 20

// HasBlob asks whether repo has the blob.
func (c *Client) HasBlob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor) (bool, error) {
	call := c.newCall(repo, http.MethodHead, pull, blobEndpoint(repo, desc.Digest), http.StatusOK)
	resp, err := c.do(ctx, call)
	if errors.Is(err, distribution.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat blob %s@%s: %w", repo, desc.Digest, err)
	}
	resp.Body.Close()
	return true, nil
}

func blobEndpoint(repo distribution.Repository, d digest.Digest) distribution.Endpoint {
	return distribution.Endpoint{Route: distribution.RouteBlob, Name: repo.Name, Argument: d.String()}
}

// Blob opens a blob from offset on. The reader yields exactly desc.Size-offset
// bytes or an error: it connects again where a connection broke, and never
// reads past the descriptor's size. The bytes are NOT verified, so that a
// caller which hashes while it writes does not pay twice; see
// distribution.Verify for the others.
func (c *Client) Blob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r := &blobReader{client: c, ctx: ctx, repo: repo, desc: desc, pos: offset, mark: offset}
	if _, err := distribution.ParseDigest(desc.Digest.String()); err != nil {
		return nil, r.failure(err)
	}
	if offset < 0 || offset > desc.Size {
		return nil, r.failure(fmt.Errorf("offset %d of %d bytes: %w", offset, desc.Size, distribution.ErrSizeMismatch))
	}
	if offset == desc.Size && offset > 0 {
		return r, nil // nothing is left to ask for
	}
	if err := r.connect(); err != nil {
		return nil, r.failure(err)
	}
	return r, nil
}

// OpenBlob is Blob from the beginning for who knows no more than the digest: the
// registry says how large the blob is, in the same answer. One that does not
// say is ErrUnsupported.
func (c *Client) OpenBlob(ctx context.Context, repo distribution.Repository, d digest.Digest) (ocispec.Descriptor, io.ReadCloser, error) {
	r := &blobReader{client: c, ctx: ctx, repo: repo, desc: ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d}}
	if _, err := distribution.ParseDigest(d.String()); err != nil {
		return ocispec.Descriptor{}, nil, r.failure(err)
	}
	call := c.newCall(repo, http.MethodGet, pull, blobEndpoint(repo, d), http.StatusOK)
	resp, err := c.do(ctx, call)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.failure(err)
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return ocispec.Descriptor{}, nil, r.failure(fmt.Errorf("registry does not say how large it is: %w", distribution.ErrUnsupported))
	}
	r.desc.Size, r.body = resp.ContentLength, resp.Body
	return r.desc, r, nil
}

// StatBlob asks how large a blob is, as far as the registry knows.
func (c *Client) StatBlob(ctx context.Context, repo distribution.Repository, d digest.Digest) (sizeBytes int64, err error) {
	call := c.newCall(repo, http.MethodHead, pull, blobEndpoint(repo, d), http.StatusOK)
	resp, err := c.do(ctx, call)
	if err == nil {
		resp.Body.Close()
		if sizeBytes = resp.ContentLength; sizeBytes < 0 {
			err = fmt.Errorf("registry does not say how large it is: %w", distribution.ErrUnsupported)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("stat blob %s@%s: %w", repo, d, err)
	}
	return sizeBytes, nil
}

// BlobBytes fetches a whole blob of at most limit bytes, verified: a config,
// say.
func (c *Client) BlobBytes(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("pull blob %s@%s: %d bytes, at most %d are wanted: %w", repo, desc.Digest, desc.Size, limit, distribution.ErrTooLarge)
	}
	r, err := c.Blob(ctx, repo, desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(distribution.Verify(r, desc))
}

// blobReader is one blob over as many connections as it takes.
type blobReader struct {
	client *Client
	ctx    context.Context
	repo   distribution.Repository
	desc   ocispec.Descriptor
	pos    int64         // of the next byte for the caller
	body   io.ReadCloser // nil between connections
	skip   int64         // bytes before pos that this body begins with

	failures int // since pos was at mark
	mark     int64
	err      error // what ended the reader

	meter  meter   // of the connection at hand
	paced  bool    // pieces have been tried
	alone  float64 // bytes a second of one connection, then
	pieces *pieces // nil when there is one connection
}

func (r *blobReader) failure(err error) error {
	return fmt.Errorf("pull blob %s@%s: %w", r.repo, r.desc.Digest, err)
}

func (r *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if r.pos == r.desc.Size {
			r.endPieces()
			r.err = r.end()
			break
		}
		if r.pieces != nil {
			if n, err := r.pieces.read(p); err == nil {
				r.pos += int64(n)
				return n, nil
			}
			r.endPieces() // whatever it was, one connection may do
			if r.ctx.Err() != nil {
				r.err = r.failure(context.Cause(r.ctx))
				break
			}
		}
		if r.body == nil {
			if err := r.connect(); err != nil {
				r.err = r.failure(err)
				break
			}
		}
		n, err := r.next(p[:min(int64(len(p)), r.desc.Size-r.pos)])
		if n > 0 {
			if r.wantsPieces() {
				r.inPieces()
			}
			return n, nil // an error that came with the bytes comes again
		}
		if err != nil {
			r.err = r.interrupted(err)
		}
	}
	return 0, r.err
}

// next takes bytes from the connection at hand.
func (r *blobReader) next(p []byte) (n int, err error) {
	if r.skip > 0 {
		skipped, err := io.CopyN(io.Discard, r.body, r.skip)
		r.skip -= skipped
		if err != nil {
			return 0, err
		}
	}
	since := time.Now()
	n, err = r.body.Read(p)
	r.meter.add(n, since)
	r.pos += int64(n)
	return n, err
}

// end looks whether the body ends where the descriptor says. A connection
// that breaks just there does no harm.
func (r *blobReader) end() error {
	if r.body == nil {
		return io.EOF
	}
	var one [1]byte
	if n, _ := io.ReadFull(r.body, one[:]); n > 0 {
		return r.failure(fmt.Errorf("registry sends more than %d bytes: %w", r.desc.Size, distribution.ErrSizeMismatch))
	}
	return io.EOF
}

// interrupted closes a connection that failed and returns nil if another is
// worth the try.
func (r *blobReader) interrupted(err error) error {
	r.body.Close()
	r.body = nil
	if r.ctx.Err() != nil {
		return r.failure(context.Cause(r.ctx))
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if r.pos-r.mark >= progressBytes {
		r.failures, r.mark = 0, r.pos
	}
	r.failures++
	if r.failures >= r.client.opts.MaxAttempts {
		return r.failure(fmt.Errorf("connection broke at byte %d of %d, %d times: %w", r.pos, r.desc.Size, r.failures, err))
	}
	if err := sleep(r.ctx, backoff(r.client.opts.RetryWait, r.failures)); err != nil {
		return r.failure(err)
	}
	return nil
}

// connect asks for the blob from pos on. Its errors are final: the request
// itself has been retried.
func (r *blobReader) connect() error {
	call := r.client.newCall(r.repo, http.MethodGet, pull, blobEndpoint(r.repo, r.desc.Digest), http.StatusOK)
	if r.pos > 0 {
		call.header.Set("Range", "bytes="+strconv.FormatInt(r.pos, 10)+"-")
		call.want = append(call.want, http.StatusPartialContent)
	}
	resp, err := r.client.do(r.ctx, call)
	if err != nil {
		return err
	}
	if r.skip, err = r.startOf(resp); err != nil {
		resp.Body.Close()
		return err
	}
	r.body = resp.Body
	return nil
}

// startOf checks what the answer says it holds, and returns how many bytes it
// has before pos: a registry may ignore Range and send the whole (RFC 9110, 14.2).
func (r *blobReader) startOf(resp *http.Response) (skip int64, err error) {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength != r.desc.Size {
			return 0, fmt.Errorf("registry says %d bytes, descriptor says %d: %w", resp.ContentLength, r.desc.Size, distribution.ErrSizeMismatch)
		}
		return r.pos, nil
	}
	got, err := distribution.ParseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return 0, err
	}
	if got.First != r.pos || got.Size >= 0 && got.Size != r.desc.Size {
		return 0, fmt.Errorf("asked for byte %d of %d, registry sends %q: %w", r.pos, r.desc.Size, got, distribution.ErrSizeMismatch)
	}
	return 0, nil
}

// Close ends the reader; reading on is an error.
func (r *blobReader) Close() error {
	if r.err == nil {
		r.err = r.failure(errClosed)
	}
	r.endPieces()
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

var errClosed = errors.New("reader is closed")
