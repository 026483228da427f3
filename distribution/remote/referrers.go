package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// Referrers lists the manifests whose subject is the manifest d ("Listing
// Referrers"), of one artifact type unless that is empty. Where the registry
// has no such list, that of the referrers tag is read, which clients keep
// ("Unavailable Referrers API"). A manifest without referrers, and one that is
// not there, have an empty list.
func (c *Client) Referrers(ctx context.Context, repo distribution.Repository, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	list, err := c.referrers(ctx, repo, d, artifactType)
	if errors.Is(err, errNoReferrersAPI) {
		if list, err = c.taggedReferrers(ctx, repo, d); errors.Is(err, errNoReferrersTag) {
			list, err = nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list referrers of %s@%s: %w", repo, d, err)
	}
	if artifactType != "" { // the registry may have filtered, and need not have
		list = slices.DeleteFunc(list, func(desc ocispec.Descriptor) bool { return desc.ArtifactType != artifactType })
	}
	return list, nil
}

// errNoReferrersAPI: the registry is older than version 1.1 of the specification.
var errNoReferrersAPI = errors.New("registry has no referrers API")

func (c *Client) referrers(ctx context.Context, repo distribution.Repository, d digest.Digest, artifactType string) (list []ocispec.Descriptor, err error) {
	if _, err := distribution.ParseDigest(d.String()); err != nil {
		return nil, err
	}
	first := c.endpoint(repo, distribution.Endpoint{Route: distribution.RouteReferrers, Name: repo.Name, Argument: d.String()})
	if artifactType != "" {
		first.RawQuery = url.Values{"artifactType": {artifactType}}.Encode()
	}
	call := c.newCall(repo, http.MethodGet, pull, distribution.Endpoint{}, http.StatusOK)
	call.header.Set("Accept", ocispec.MediaTypeImageIndex)
	err = c.pages(ctx, call, first, func(resp *http.Response, body []byte) (int, error) {
		if baseType(resp.Header.Get("Content-Type")) != ocispec.MediaTypeImageIndex {
			return 0, errNoReferrersAPI // something that answers whatever it is asked
		}
		index, err := readReferrers(body)
		list = append(list, index.Manifests...)
		return len(index.Manifests), err
	})
	var refusal *distribution.ResponseError
	if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
		return nil, errNoReferrersAPI
	}
	return list, err
}

func readReferrers(body []byte) (index ocispec.Index, err error) {
	if err := json.Unmarshal(body, &index); err != nil {
		return index, fmt.Errorf("list of referrers: %w", err)
	}
	for i, desc := range index.Manifests {
		if _, err := distribution.ParseDigest(desc.Digest.String()); err != nil {
			return index, fmt.Errorf("list of referrers: manifests[%d].digest: %w", i, err)
		}
	}
	return index, nil
}

// referrersTag is where clients keep the list for registries without the API
// ("Referrers Tag Schema").
func referrersTag(repo distribution.Repository, d digest.Digest) distribution.Reference {
	const maxAlgorithm, maxEncoded = 32, 64
	algorithm, encoded := d.Algorithm().String(), d.Encoded()
	return distribution.Reference{Repository: repo, Tag: algorithm[:min(len(algorithm), maxAlgorithm)] + "-" + encoded[:min(len(encoded), maxEncoded)]}
}

func (c *Client) taggedReferrers(ctx context.Context, repo distribution.Repository, d digest.Digest) ([]ocispec.Descriptor, error) {
	desc, body, err := c.getManifest(ctx, referrersTag(repo, d), distribution.MaxManifestSizeBytes)
	switch {
	case errors.Is(err, distribution.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case desc.MediaType != ocispec.MediaTypeImageIndex:
		return nil, fmt.Errorf("%s is %w but %s", referrersTag(repo, d), errNoReferrersTag, desc.MediaType)
	}
	index, err := readReferrers(body)
	if err != nil {
		return nil, fmt.Errorf("%s is %w: %w", referrersTag(repo, d), errNoReferrersTag, err)
	}
	return index.Manifests, nil
}

// errNoReferrersTag: the tag is somebody's for something else. There are no
// referrers then, and nothing is written over it.
var errNoReferrersTag = errors.New("no image index")

// refer adds a manifest to the list under its subject's referrers tag. Two
// clients that do so at once may lose one of the two: the specification has
// nothing against that, so what was written is read again, a few times.
func (c *Client) refer(ctx context.Context, repo distribution.Repository, subject digest.Digest, referrer ocispec.Descriptor) error {
	return c.changeReferrers(ctx, repo, subject, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		same := func(d ocispec.Descriptor) bool { return d.Digest == referrer.Digest }
		return append(list, referrer), !slices.ContainsFunc(list, same)
	})
}

// unrefer takes a manifest from the list again, if clients keep it.
func (c *Client) unrefer(ctx context.Context, repo distribution.Repository, subject, d digest.Digest) error {
	if _, err := c.referrers(ctx, repo, subject, ""); !errors.Is(err, errNoReferrersAPI) {
		return nil // the registry does, or is in trouble: what was asked for is done
	}
	err := c.changeReferrers(ctx, repo, subject, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		left := []ocispec.Descriptor{}
		for _, desc := range list {
			if desc.Digest != d {
				left = append(left, desc)
			}
		}
		return left, len(left) < len(list)
	})
	if errors.Is(err, errNoReferrersTag) {
		return nil
	}
	return err
}

// changeReferrers writes the list under the referrers tag until change, which
// says what it is to be and whether that is a change, is content.
func (c *Client) changeReferrers(ctx context.Context, repo distribution.Repository, subject digest.Digest, change func([]ocispec.Descriptor) ([]ocispec.Descriptor, bool)) error {
	tag := referrersTag(repo, subject)
	for range c.opts.MaxAttempts {
		list, err := c.taggedReferrers(ctx, repo, subject)
		if err != nil {
			return err
		}
		list, changed := change(list)
		if !changed {
			return nil
		}
		index := ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list,
		}
		body, err := json.Marshal(index)
		if err != nil {
			return err
		}
		if _, err := c.putManifest(ctx, tag, ocispec.MediaTypeImageIndex, body); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: others change it all the time", tag)
}

// subjectOf reads what a manifest says of its place among the referrers of
// another one: nil for a manifest without a subject.
func subjectOf(desc ocispec.Descriptor, body []byte) (subject *ocispec.Descriptor, referrer ocispec.Descriptor, err error) {
	var doc struct {
		ArtifactType string              `json:"artifactType"`
		Config       *ocispec.Descriptor `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, referrer, fmt.Errorf("manifest: %w", err)
	}
	if doc.Subject == nil {
		return nil, referrer, nil
	}
	if _, err := distribution.ParseDigest(doc.Subject.Digest.String()); err != nil {
		return nil, referrer, fmt.Errorf("manifest: subject.digest: %w", err)
	}
	desc.ArtifactType, desc.Annotations = doc.ArtifactType, doc.Annotations
	if desc.ArtifactType == "" && doc.Config != nil {
		desc.ArtifactType = doc.Config.MediaType
	}
	return doc.Subject, desc, nil
}
