package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

const (
	// monolithicBytes is how large a blob may be to be sent in one request,
	// which then has to be repeated whole.
	monolithicBytes = 4 << 20
	// smallChunkBytes is for registries behind something that limits requests.
	smallChunkBytes = 16 << 20
	maxChunkBytes   = 1 << 40
)

// upload is one session of the registry's.
type upload struct {
	client *Client
	repo   distribution.Repository
	desc   ocispec.Descriptor
	open   func() (io.ReadCloser, error)
	url    *url.URL // where it goes on
	offset int64    // how much of the blob the registry has
	chunk  int64    // the most to send in a request

	failures int // since offset was at mark
	mark     int64
}

// uploadBlob is one session from its start to its end.
func (c *Client) uploadBlob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, chunk int64, open func() (io.ReadCloser, error)) error {
	u := &upload{client: c, repo: repo, desc: desc, open: open, chunk: chunk}
	if err := u.start(ctx); err != nil {
		return err
	}
	if desc.Size <= monolithicBytes && (u.chunk == 0 || desc.Size <= u.chunk) {
		return u.finish(ctx)
	}
	for u.offset < desc.Size {
		if err := u.send(ctx); err != nil {
			if err := u.recover(ctx, err); err != nil {
				return err
			}
		}
	}
	return u.finish(ctx)
}

func (u *upload) start(ctx context.Context) error {
	e := distribution.Endpoint{Route: distribution.RouteUploads, Name: u.repo.Name}
	resp, err := u.client.do(ctx, u.client.newCall(u.repo, http.MethodPost, push, e, http.StatusAccepted))
	if err != nil {
		return err
	}
	resp.Body.Close()
	if least, err := strconv.ParseInt(resp.Header.Get(distribution.HeaderChunkMinLength), 10, 64); err == nil && u.chunk > 0 {
		u.chunk = max(u.chunk, min(least, maxChunkBytes))
	}
	u.url, err = u.client.location(resp)
	return err
}

// request is a call on the session. It is made once: what became of one that
// failed has to be asked first.
func (u *upload) request(method string, want ...int) *call {
	call := u.client.newCall(u.repo, method, push, distribution.Endpoint{}, want...)
	call.url = func() *url.URL { return u.url }
	call.once = true
	return call
}

// body gives call the blob's bytes from the offset on.
func (u *upload) body(call *call, sizeBytes int64) {
	call.header.Set("Content-Type", "application/octet-stream")
	call.bodySize = sizeBytes
	call.body = func() (io.ReadCloser, error) {
		r, err := u.open()
		if err != nil {
			return nil, err
		}
		if err := skip(r, u.offset); err != nil {
			r.Close()
			return nil, fmt.Errorf("read blob from byte %d: %w", u.offset, err)
		}
		return &limitedReader{io.LimitReader(r, sizeBytes), r}, nil
	}
}

type limitedReader struct {
	io.Reader
	io.Closer
}

func skip(r io.Reader, n int64) error {
	if n == 0 {
		return nil
	}
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}

// send sends the next chunk: all the rest, where there is no limit.
func (u *upload) send(ctx context.Context) error {
	n := u.desc.Size - u.offset
	if u.chunk > 0 {
		n = min(n, u.chunk)
	}
	call := u.request(http.MethodPatch, http.StatusAccepted, http.StatusNoContent)
	u.body(call, n)
	if n < u.desc.Size {
		// What is whole goes as Docker's clients have always sent it, without a range.
		call.header.Set("Content-Range", distribution.UploadRange{First: u.offset, Last: u.offset + n - 1}.String())
	}
	resp, err := u.client.attempt(ctx, call)
	if err != nil {
		return err
	}
	resp.Body.Close()
	before := u.offset
	if err := u.goOn(resp, before+n); err != nil {
		return err
	}
	if u.offset <= before {
		return errNothingTaken // counts as a failure: else it might go on for ever
	}
	return nil
}

var errNothingTaken = errors.New("registry took a chunk and says that it has nothing of it")

// goOn takes from an answer where the session goes on, and how much of the
// blob the registry has: as much as was sent, unless it says that it is less.
func (u *upload) goOn(resp *http.Response, sent int64) error {
	if resp.Header.Get("Location") != "" {
		next, err := u.client.location(resp)
		if err != nil {
			return err
		}
		u.url = next
	}
	if have := resp.Header.Get("Range"); have != "" {
		r, err := distribution.ParseUploadRange(have)
		if err != nil || r.First != 0 || r.Last >= u.desc.Size {
			return permanent{fmt.Errorf("registry says it has bytes %q of %d", have, u.desc.Size)}
		}
		sent = min(sent, r.Last+1)
	}
	u.offset = sent
	return nil
}

// lost is for a session of which the registry knows nothing any more, or
// nothing of what was sent: another one may go better, whatever the cause was,
// which is therefore told and not wrapped.
func lost(cause error) error { return fmt.Errorf("registry has lost the upload: %v", cause) }

// recover asks, after a failure, what the registry has, so that the upload can
// go on from there. An error means that the session has ended.
func (u *upload) recover(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(cause, distribution.ErrTooLarge) {
		return cause
	}
	if u.offset-u.mark >= progressBytes {
		u.failures, u.mark = 0, u.offset
	}
	u.failures++
	var refusal *distribution.ResponseError
	wait, again := u.client.retry(u.failures, cause, false)
	if errors.As(cause, &refusal) && u.failures < u.client.opts.MaxAttempts {
		switch refusal.Status {
		case http.StatusRequestedRangeNotSatisfiable: // we and the registry count differently
			wait, again = 0, true
		case http.StatusNotFound:
			return lost(cause)
		}
	}
	if !again {
		return permanent{cause}
	}
	if err := sleep(ctx, wait); err != nil {
		return err
	}
	resp, err := u.client.do(ctx, u.status())
	if err != nil {
		return lost(cause)
	}
	resp.Body.Close()
	// "0-0" is one byte, or none: registries say so of an empty upload.
	if r, err := distribution.ParseUploadRange(resp.Header.Get("Range")); err != nil || r.Last == 0 {
		return lost(cause)
	}
	return u.goOn(resp, u.desc.Size)
}

// status asks for the session's state.
func (u *upload) status() *call {
	call := u.request(http.MethodGet, http.StatusNoContent, http.StatusOK)
	call.once = false
	return call
}

// finish ends the session with what has not been sent, and the digest.
func (u *upload) finish(ctx context.Context) error {
	u.url = withDigest(u.url, u.desc.Digest)
	call := u.request(http.MethodPut, http.StatusCreated, http.StatusNoContent)
	if n := u.desc.Size - u.offset; n > 0 {
		u.body(call, n)
	}
	resp, err := u.client.attempt(ctx, call)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
