package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// Resolve fetches the manifest ref names and returns it with its descriptor.
// Its bytes match the reference's digest, or, for a tag, the digest the
// registry states; they are one JSON object of at most 4 MiB.
func (c *Client) Resolve(ctx context.Context, ref distribution.Reference) (ocispec.Descriptor, []byte, error) {
	desc, body, err := c.getManifest(ctx, ref, distribution.MaxManifestSizeBytes)
	if err != nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("resolve %s: %w", ref, err)
	}
	return desc, body, nil
}

// Manifest fetches the manifest desc describes; its bytes match desc's digest
// and size.
func (c *Client) Manifest(ctx context.Context, repo distribution.Repository, desc ocispec.Descriptor) ([]byte, error) {
	ref := distribution.Reference{Repository: repo, Digest: desc.Digest}
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("get manifest %s: %w", ref, err)
	}
	if _, err := distribution.ParseDigest(desc.Digest.String()); err != nil {
		return fail(err)
	}
	if desc.Size > distribution.MaxManifestSizeBytes {
		return fail(fmt.Errorf("descriptor says %d bytes: %w", desc.Size, distribution.ErrTooLarge))
	}
	_, body, err := c.getManifest(ctx, ref, desc.Size)
	if err != nil {
		return fail(err)
	}
	if int64(len(body)) != desc.Size {
		return fail(fmt.Errorf("%d bytes, descriptor says %d: %w", len(body), desc.Size, distribution.ErrSizeMismatch))
	}
	return body, nil
}

// Stat asks for the descriptor of the manifest ref names without fetching it.
// Nothing in the answer has been verified; a registry that does not state a
// digest for a tag gives an error with ErrUnsupported.
func (c *Client) Stat(ctx context.Context, ref distribution.Reference) (ocispec.Descriptor, error) {
	fail := func(err error) (ocispec.Descriptor, error) {
		return ocispec.Descriptor{}, fmt.Errorf("stat %s: %w", ref, err)
	}
	call := c.manifestCall(ref, http.MethodHead)
	resp, err := c.do(ctx, call)
	if err != nil {
		return fail(err)
	}
	resp.Body.Close()
	desc := ocispec.Descriptor{
		MediaType: baseType(resp.Header.Get("Content-Type")),
		Digest:    ref.Digest,
		Size:      resp.ContentLength,
	}
	if desc.Digest == "" {
		if desc.Digest, err = distribution.ParseDigest(resp.Header.Get(distribution.HeaderContentDigest)); err != nil {
			return fail(fmt.Errorf("registry states no digest: %w", distribution.ErrUnsupported))
		}
	}
	if desc.Size < 0 || desc.Size > distribution.MaxManifestSizeBytes || !distribution.ValidMediaType(desc.MediaType) {
		return fail(fmt.Errorf("registry states no usable size and type: %w", distribution.ErrUnsupported))
	}
	return desc, nil
}

func baseType(contentType string) string {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(base))
}

func (c *Client) manifestCall(ref distribution.Reference, method string) *call {
	e := distribution.Endpoint{Route: distribution.RouteManifest, Name: ref.Name, Argument: ref.Target()}
	call := c.newCall(ref.Repository, method, pull, e, http.StatusOK)
	call.header.Set("Accept", strings.Join(distribution.ManifestTypes(), ", "))
	return call
}

// getManifest fetches and verifies. A body cut short is one more reason to
// try again, so the attempts are counted around the whole.
func (c *Client) getManifest(ctx context.Context, ref distribution.Reference, limit int64) (ocispec.Descriptor, []byte, error) {
	call := c.manifestCall(ref, http.MethodGet)
	for attempt := 1; ; attempt++ {
		resp, err := c.do(ctx, call)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		body, err := readBounded(resp, limit)
		if err == nil {
			desc, err := verifyManifest(ref, resp, body)
			return desc, body, err
		}
		if ctx.Err() != nil {
			return ocispec.Descriptor{}, nil, context.Cause(ctx)
		}
		wait, again := c.retry(attempt, err, false)
		if !again {
			return ocispec.Descriptor{}, nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
	}
}

// readBounded reads and closes a body of at most limit bytes.
func readBounded(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	tooLarge := permanent{fmt.Errorf("more than %d bytes: %w", limit, distribution.ErrTooLarge)}
	if resp.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(body)) > limit:
		return nil, tooLarge
	}
	return body, nil
}

// verifyManifest checks the bytes against the digest asked for, which decides,
// or else the one the registry states.
func verifyManifest(ref distribution.Reference, resp *http.Response, body []byte) (ocispec.Descriptor, error) {
	want := ref.Digest
	if stated := resp.Header.Get(distribution.HeaderContentDigest); want == "" && stated != "" {
		// One that cannot be verified (an unknown algorithm) is no help and no harm.
		want, _ = distribution.ParseDigest(stated)
	}
	if want == "" {
		want = digest.FromBytes(body)
	} else if got := want.Algorithm().FromBytes(body); got != want {
		return ocispec.Descriptor{}, fmt.Errorf("manifest is %s, not %s: %w", got, want, distribution.ErrDigestMismatch)
	}
	mediaType, err := distribution.ManifestType(resp.Header.Get("Content-Type"), body)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: want, Size: int64(len(body))}, nil
}
