package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// maxReferrersPageSize makes a list of referrers that every client takes for a
// manifest.
const maxReferrersPageSize = distribution.MaxManifestSizeBytes - 4096

// pageSize reads parameter n: what is asked for, but not more than limit.
func pageSize(query url.Values, limit int) (int, error) {
	if !query.Has("n") {
		return limit, nil
	}
	asked, err := strconv.ParseUint(query.Get("n"), 10, 63)
	if err != nil {
		return 0, statusError{http.StatusBadRequest, distribution.Errorf(distribution.CodeUnsupported, "parameter n")}
	}
	return int(min(asked, uint64(limit))), nil
}

func (g *Registry) listTags(q *request) error {
	query := q.URL.Query()
	n, err := pageSize(query, g.opts.MaxTagsPage)
	if err != nil {
		return err
	}
	last := query.Get("last")
	if last != "" && distribution.ValidateTag(last) != nil {
		return statusError{http.StatusBadRequest, distribution.Errorf(distribution.CodeUnsupported, "parameter last")}
	}
	tags, more, err := g.reader.Tags(q.Context(), q.Name, last, n)
	if err = q.stale(err); err != nil {
		return notExist(err, distribution.CodeNameUnknown)
	}
	q.linkMore(more, n, tags)
	return q.writeJSON("application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.Name, orEmpty(tags)})
}

// listRepositories is the catalog, of those repositories that hold a manifest.
func (g *Registry) listRepositories(q *request) error {
	query := q.URL.Query()
	n, err := pageSize(query, g.opts.MaxCatalogPage)
	if err != nil {
		return err
	}
	last := query.Get("last")
	if last != "" && distribution.ValidateName(last) != nil {
		return statusError{http.StatusBadRequest, distribution.Errorf(distribution.CodeUnsupported, "parameter last")}
	}
	names, more, err := g.store.Repositories(q.Context(), last, n)
	if err != nil {
		return err
	}
	q.linkMore(more, n, names)
	return q.writeJSON("application/json", struct {
		Repositories []string `json:"repositories"`
	}{orEmpty(names)})
}

// linkMore says where a list goes on. n=0 asks for nothing, and there is no
// next page of that.
func (q *request) linkMore(more bool, n int, page []string) {
	if more && n > 0 {
		q.linkNext(url.Values{"n": {strconv.Itoa(n)}, "last": {page[len(page)-1]}})
	}
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (q *request) linkNext(query url.Values) {
	if ns := q.URL.Query().Get(namespaceParam); ns != "" {
		query.Set(namespaceParam, ns)
	}
	next := url.URL{Path: q.URL.Path, RawQuery: query.Encode()}
	q.w.Header().Set("Link", distribution.NextLink(&next))
}

func (q *request) writeJSON(mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", mediaType)
	q.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if q.Method != http.MethodHead {
		q.w.Write(body)
	}
	return nil
}

// listReferrers knows every subject: one without referrers has an empty list.
func (g *Registry) listReferrers(q *request) error {
	query := q.URL.Query()
	var filter *string
	next := url.Values{}
	if query.Has("artifactType") {
		value := query.Get("artifactType")
		filter = &value
		next.Set("artifactType", value)
		q.w.Header().Set(distribution.HeaderFiltersApplied, "artifactType")
	}
	last, err := digest.Digest(""), error(nil)
	if query.Has("last") {
		if last, err = distribution.ParseDigest(query.Get("last")); err != nil {
			return distribution.Errorf(distribution.CodeDigestInvalid, "parameter last")
		}
	}
	list, more, err := g.reader.Referrers(q.Context(), q.Name, digest.Digest(q.Argument), last, filter, maxReferrersPageSize)
	if err = q.stale(err); err != nil {
		return err
	}
	if more {
		next.Set("last", list[len(list)-1].Digest.String())
		q.linkNext(next)
	}
	if list == nil {
		list = []ocispec.Descriptor{}
	}
	return q.writeJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: list,
	})
}
