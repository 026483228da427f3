package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// startUpload is end-4a, and with a parameter end-11 (mount) or end-4b (the
// whole blob in one request).
func (g *Registry) startUpload(q *request) error {
	if err := g.writable(q); err != nil {
		return err
	}
	query := q.URL.Query()
	if query.Has("mount") {
		mounted, err := g.mount(q, query)
		if mounted || err != nil {
			return err
		}
	}
	id, err := g.store.StartUpload(q.Context(), q.Name)
	if err != nil {
		return err
	}
	if query.Has("digest") {
		if err := g.commit(q, id, -1); err != nil {
			// The client does not know the session, so nobody can go on with it.
			_ = g.store.CancelUpload(context.WithoutCancel(q.Context()), q.Name, id) // it may have ended
			return err
		}
		return nil
	}
	q.uploadHeaders(id, 0)
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount answers if it can; what it cannot find, the client may upload.
func (g *Registry) mount(q *request, query url.Values) (bool, error) {
	d, err := distribution.ParseDigest(query.Get("mount"))
	if err != nil {
		return false, distribution.Errorf(distribution.CodeDigestInvalid, "mount")
	}
	from := query.Get("from")
	if from != "" && distribution.ValidateName(from) != nil {
		return false, distribution.Errorf(distribution.CodeNameInvalid, "from")
	}
	err = g.store.MountBlob(q.Context(), q.Name, from, d, func(repo string) bool { return g.readable(q, repo) })
	if errors.Is(err, storage.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		q.created(d)
	}
	return err == nil, err
}

// created says where the new blob is.
func (q *request) created(d digest.Digest) {
	q.digest = d
	header := q.w.Header()
	header.Set("Location", q.path(distribution.RouteBlob, d.String()))
	header.Set(distribution.HeaderContentDigest, d.String())
	header.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
}

// uploadHeaders say where an upload goes on, and how far it is. A range cannot
// be empty: by custom, an upload without a byte is at "0-0".
func (q *request) uploadHeaders(id string, offset int64) {
	header := q.w.Header()
	header.Set("Location", q.path(distribution.RouteUpload, id))
	header.Set("Range", distribution.UploadRange{Last: max(offset-1, 0)}.String())
	header.Set(distribution.HeaderUploadID, id)
	header.Set("Content-Length", "0")
}

func (g *Registry) uploadStatus(q *request) error {
	offset, err := g.store.UploadOffset(q.Context(), q.Name, q.Argument)
	if err != nil {
		return notExist(err, distribution.CodeBlobUploadUnknown)
	}
	q.uploadHeaders(q.Argument, offset)
	q.w.Header().Del("Content-Length") // a 204 has none (RFC 9110, 8.6)
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// chunkStart is where the request says its bytes belong: -1 without a
// Content-Range, which means a stream that goes on from wherever it is.
func chunkStart(r *http.Request) (int64, error) {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return -1, nil
	}
	span, err := distribution.ParseUploadRange(header)
	if err != nil {
		return 0, distribution.Errorf(distribution.CodeBlobUploadInvalid, "Content-Range is not first-last")
	}
	if r.ContentLength != span.Last-span.First+1 {
		return 0, distribution.Errorf(distribution.CodeSizeInvalid, "Content-Length does not fit Content-Range")
	}
	return span.First, nil
}

func (g *Registry) patchUpload(q *request) error {
	at, err := chunkStart(q.Request)
	if err != nil {
		return err
	}
	offset, err := g.store.AppendUpload(q.Context(), q.Name, q.Argument, at, q.Body)
	if err != nil {
		return g.uploadError(q, q.Argument, err)
	}
	q.uploadHeaders(q.Argument, offset)
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// putUpload closes an upload, perhaps with its last or only chunk.
func (g *Registry) putUpload(q *request) error {
	at, err := chunkStart(q.Request)
	if err != nil {
		return err
	}
	return g.commit(q, q.Argument, at)
}

func (g *Registry) commit(q *request, id string, at int64) error {
	d, err := distribution.ParseDigest(q.URL.Query().Get("digest"))
	if err != nil {
		return distribution.Errorf(distribution.CodeDigestInvalid, "parameter digest")
	}
	if err := g.store.CommitUpload(q.Context(), q.Name, id, at, q.Body, d); err != nil {
		return g.uploadError(q, id, err)
	}
	q.created(d)
	return nil
}

func (g *Registry) uploadError(q *request, id string, err error) error {
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return notExist(err, distribution.CodeBlobUploadUnknown)
	case errors.Is(err, storage.ErrDigest):
		return plainError(distribution.CodeDigestInvalid)
	case errors.Is(err, distribution.ErrTooLarge):
		return statusError{http.StatusRequestEntityTooLarge, distribution.Errorf(distribution.CodeSizeInvalid, "the blob is larger than this registry takes")}
	case errors.Is(err, storage.ErrBusy):
		return statusError{http.StatusConflict, distribution.Errorf(distribution.CodeBlobUploadInvalid, "another request is writing to it")}
	case errors.Is(err, storage.ErrOffset):
		// Say where to go on.
		if offset, statErr := g.store.UploadOffset(q.Context(), q.Name, id); statErr == nil {
			q.uploadHeaders(id, offset)
		}
		return statusError{http.StatusRequestedRangeNotSatisfiable, distribution.Errorf(distribution.CodeBlobUploadInvalid, "chunk out of order")}
	case q.body.failed:
		return distribution.Errorf(distribution.CodeBlobUploadInvalid, "the request's body ended early")
	}
	return err
}

func (g *Registry) cancelUpload(q *request) error {
	if err := g.store.CancelUpload(q.Context(), q.Name, q.Argument); err != nil {
		return g.uploadError(q, q.Argument, err)
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
