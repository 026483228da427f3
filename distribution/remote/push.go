package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// PushBlob uploads a blob unless repo has it. open gives the content from its
// start, once for each attempt; where it can seek, what the registry has
// already is skipped that way. A small blob goes in one request, a large one as
// a stream that is taken up again where it broke ("Pushing a blob in chunks").
func (c *Client) PushBlob(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	fail := func(err error) error { return fmt.Errorf("push blob %s@%s: %w", repo, desc.Digest, err) }
	chunk := c.opts.ChunkBytes
	for attempt := 1; ; attempt++ {
		// Also after a failure: the answer may be all that was lost.
		has, err := c.HasBlob(ctx, repo, desc)
		if err != nil {
			return fail(err)
		}
		if has {
			return nil
		}
		if err = c.uploadBlob(ctx, repo, desc, chunk, open); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fail(context.Cause(ctx))
		}
		if chunk == 0 && desc.Size > smallChunkBytes && errors.Is(err, distribution.ErrTooLarge) {
			chunk = smallChunkBytes // something on the way has a limit on requests
			continue
		}
		wait, again := c.retry(attempt, err, false)
		if !again {
			return fail(err)
		}
		if err := sleep(ctx, wait); err != nil {
			return fail(err)
		}
	}
}

// location is where an upload goes on: opaque, relative or absolute. It may be
// on another host, which is then sent no credentials.
func (c *Client) location(resp *http.Response) (*url.URL, error) {
	asked := resp.Request.URL
	u, err := asked.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, permanent{errors.New("registry names no place for the upload")}
	}
	// Behind a proxy that ends TLS, registries answer with http and their own port.
	if asked.Scheme == "https" && u.Scheme == "http" && u.Hostname() == asked.Hostname() {
		u.Scheme, u.Host = asked.Scheme, asked.Host
	}
	u.User = nil
	if u.Scheme != "https" && (u.Scheme != "http" || !c.plainAllowed(u)) {
		return nil, permanent{fmt.Errorf("registry wants the upload on %s without TLS", u.Host)}
	}
	return u, nil
}

// withDigest leaves the rest of the query as the registry wrote it.
func withDigest(session *url.URL, d digest.Digest) *url.URL {
	u := *session
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.Values{"digest": {d.String()}}.Encode()
	return &u
}

// Mount asks the registry to take a blob from another of its repositories,
// and reports whether it did; if not, the blob has to be pushed.
func (c *Client) Mount(ctx context.Context, repo distribution.Repository, from string, d digest.Digest) (bool, error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("mount blob %s@%s from %s: %w", repo, d, from, err)
	}
	if err := distribution.ValidateName(from); err != nil {
		return fail(err)
	}
	e := distribution.Endpoint{Route: distribution.RouteUploads, Name: repo.Name}
	call := c.newCall(repo, http.MethodPost, push, e, http.StatusCreated, http.StatusAccepted)
	call.scopes = append(call.scopes, scope(from, pull))
	call.url = func() *url.URL {
		u := c.endpoint(repo, e)
		u.RawQuery = url.Values{"mount": {d.String()}, "from": {from}}.Encode()
		return u
	}
	resp, err := c.do(ctx, call)
	if err != nil {
		return fail(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	// The registry began an upload instead. Leaving it open would cost it a
	// session; that closing it fails costs us nothing.
	if session, err := c.location(resp); err == nil {
		cancel := c.newCall(repo, http.MethodDelete, push, e, http.StatusNoContent)
		cancel.url = func() *url.URL { return session }
		if resp, err := c.attempt(ctx, cancel); err == nil {
			resp.Body.Close()
		}
	}
	return false, nil
}

// PushManifest puts a manifest at ref: under its tag, or by digest when it
// has none. A reference with both must have the body's digest. Where the
// manifest has a subject and the registry no list of referrers, the referrers
// tag is kept ("Pushing Manifests with Subject").
func (c *Client) PushManifest(ctx context.Context, ref distribution.Reference, mediaType string, body []byte) (ocispec.Descriptor, error) {
	fail := func(err error) (ocispec.Descriptor, error) {
		return ocispec.Descriptor{}, fmt.Errorf("push manifest %s: %w", ref, err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	if ref.Digest != "" {
		desc.Digest = ref.Digest
		if got := ref.Digest.Algorithm().FromBytes(body); got != ref.Digest {
			return fail(fmt.Errorf("manifest is %s: %w", got, distribution.ErrDigestMismatch))
		}
	}
	if len(body) > distribution.MaxManifestSizeBytes {
		return fail(fmt.Errorf("%d bytes: %w", len(body), distribution.ErrTooLarge))
	}
	subject, referrer, err := subjectOf(desc, body)
	if err != nil {
		return fail(err)
	}
	kept, err := c.putManifest(ctx, ref, mediaType, body)
	if err == nil && subject != nil && !kept {
		err = c.refer(ctx, ref.Repository, subject.Digest, referrer)
	}
	if err != nil {
		return fail(err)
	}
	return desc, nil
}

// putManifest sends a manifest, and returns whether the registry says that it
// keeps the list of the subject's referrers itself.
func (c *Client) putManifest(ctx context.Context, ref distribution.Reference, mediaType string, body []byte) (listed bool, err error) {
	target := ref.WithDefaultTag().Tag
	if target == "" {
		target = ref.Digest.String()
	}
	e := distribution.Endpoint{Route: distribution.RouteManifest, Name: ref.Name, Argument: target}
	call := c.newCall(ref.Repository, http.MethodPut, push, e, http.StatusCreated)
	call.header.Set("Content-Type", mediaType)
	call.body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	call.bodySize = int64(len(body))
	resp, err := c.do(ctx, call)
	if err != nil {
		return false, err
	}
	return resp.Header.Get(distribution.HeaderSubject) != "", resp.Body.Close()
}
