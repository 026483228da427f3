package remote

import (
	"context"
	"fmt"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
)

// Delete removes what ref names: with a digest, the manifest and all tags that
// lead to it; with a tag alone, the tag ("Deleting tags"), which not every
// registry can. A registry that does not allow it gives an error with
// ErrUnsupported. A manifest with a subject also leaves the referrers tag, where
// the registry has no list of referrers ("Deleting Manifests").
func (c *Client) Delete(ctx context.Context, ref distribution.Reference) error {
	fail := func(err error) error { return fmt.Errorf("delete %s: %w", ref, err) }
	subject, err := c.subjectAt(ctx, ref)
	if err != nil {
		return fail(err)
	}
	e := distribution.Endpoint{Route: distribution.RouteManifest, Name: ref.Name, Argument: ref.Target()}
	if err := c.delete(ctx, ref.Repository, e); err != nil {
		return fail(err)
	}
	if subject == "" {
		return nil
	}
	if err := c.unrefer(ctx, ref.Repository, subject, ref.Digest); err != nil {
		return fail(err)
	}
	return nil
}

// subjectAt is the subject of a manifest that is to be deleted by its digest. One
// that cannot be read or understood has none: it can be deleted all the same.
func (c *Client) subjectAt(ctx context.Context, ref distribution.Reference) (digest.Digest, error) {
	if ref.Digest == "" {
		return "", nil
	}
	desc, body, err := c.getManifest(ctx, ref, distribution.MaxManifestSizeBytes)
	if err != nil {
		return "", context.Cause(ctx)
	}
	subject, _, err := subjectOf(desc, body)
	if err != nil || subject == nil {
		return "", nil
	}
	return subject.Digest, nil
}

// DeleteBlob removes a blob from the repository.
func (c *Client) DeleteBlob(ctx context.Context, repo distribution.Repository, d digest.Digest) error {
	if err := c.delete(ctx, repo, blobEndpoint(repo, d)); err != nil {
		return fmt.Errorf("delete blob %s@%s: %w", repo, d, err)
	}
	return nil
}

// actionDelete: registries ask for "delete", or for "*" as Docker's Hub does;
// the challenge tells which, and is then followed.
const actionDelete = "pull,push,delete"

func (c *Client) delete(ctx context.Context, repo distribution.Repository, e distribution.Endpoint) error {
	resp, err := c.do(ctx, c.newCall(repo, http.MethodDelete, actionDelete, e, http.StatusAccepted, http.StatusOK, http.StatusNoContent))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Ping asks the registry on host whether it is one, and whether it lets this
// user in: ErrUnauthorized says that it does not.
func (c *Client) Ping(ctx context.Context, host string) error {
	repo := distribution.Repository{Host: host}
	call := c.newCall(repo, http.MethodGet, pull, distribution.Endpoint{Route: distribution.RouteBase}, http.StatusOK)
	call.scopes = nil
	resp, err := c.do(ctx, call)
	if err != nil {
		return fmt.Errorf("registry %s: %w", host, err)
	}
	return resp.Body.Close()
}
