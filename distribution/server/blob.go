package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
)

// describe sets the headers that tell what is sent. What a digest names never
// changes, so it is its own entity tag.
func (q *request) describe(mediaType string, d digest.Digest) {
	q.digest, q.mediaType = d, mediaType
	header := q.w.Header()
	header["Content-Type"] = []string{mediaType}
	header["Etag"] = []string{`"` + d.String() + `"`}
	header[distribution.HeaderContentDigest] = []string{d.String()}
}

const octetStream = "application/octet-stream"

func (g *Registry) getBlob(q *request) error {
	d := digest.Digest(q.Argument)
	elsewhere, err := g.reader.BlobURL(q.Context(), q.Name, d)
	if err != nil {
		return notExist(err, distribution.CodeBlobUnknown)
	}
	if elsewhere != "" {
		q.digest = d
		q.w.Header().Set(distribution.HeaderContentDigest, d.String())
		q.w.Header().Set("Content-Length", "0")
		q.w.Header().Set("Location", elsewhere)
		q.w.WriteHeader(http.StatusTemporaryRedirect)
		return nil
	}
	r, _, err := g.reader.Blob(q.Context(), q.Name, d)
	if err != nil {
		return notExist(err, distribution.CodeBlobUnknown)
	}
	defer r.Close()
	q.describe(octetStream, d)
	// It knows ranges, If-Range and If-None-Match.
	http.ServeContent(q.w, q.Request, "", time.Time{}, r)
	return nil
}

func (g *Registry) headBlob(q *request) error {
	d := digest.Digest(q.Argument)
	sizeBytes, err := g.reader.StatBlob(q.Context(), q.Name, d)
	if err != nil {
		return notExist(err, distribution.CodeBlobUnknown)
	}
	q.describe(octetStream, d)
	q.w.Header().Set("Accept-Ranges", "bytes")
	q.w.Header().Set("Content-Length", strconv.FormatInt(sizeBytes, 10))
	return nil
}

func (g *Registry) deleteBlob(q *request) error {
	q.digest = digest.Digest(q.Argument)
	if err := g.store.DeleteBlob(q.Context(), q.Name, digest.Digest(q.Argument)); err != nil {
		return notExist(err, distribution.CodeBlobUnknown)
	}
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}
