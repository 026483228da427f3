// Package server is a registry: the API of the OCI Distribution Spec 1.1 as an
// http.Handler over a storage.Store. Beyond the spec's stable text it has what
// the conformance suite's dev mode asks for: digests in every answer, upload
// cancellation, and tags as parameters of a manifest's push.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options configure a Registry.
type Options struct {
	// Log gets what clients are not told: the causes of 5xx answers. Nil is silence.
	Log *slog.Logger
	// AllowSparse accepts manifests that name blobs or manifests which the
	// repository does not have.
	AllowSparse bool
	// IdleTimeout is how long a body may stand still, in either direction.
	// Default 60 s.
	IdleTimeout time.Duration
	// UploadLife is how long an upload may take before it is dropped. Default 24 h.
	UploadLife time.Duration
}

const (
	defaultIdleTimeout = 60 * time.Second
	defaultUploadLife  = 24 * time.Hour
)

// Registry is the handler.
type Registry struct {
	store *storage.Store
	opts  Options
}

// New makes a registry of what store has.
func New(store *storage.Store, opts Options) *Registry {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.IdleTimeout == 0 {
		opts.IdleTimeout = defaultIdleTimeout
	}
	if opts.UploadLife == 0 {
		opts.UploadLife = defaultUploadLife
	}
	return &Registry{store: store, opts: opts}
}

// request is what a handler works on.
type request struct {
	*http.Request
	w    http.ResponseWriter
	body *body
	distribution.Endpoint
}

type handler func(*Registry, *request) error

// methods is a row of the server's half of the route table.
type methods map[string]handler

// handlers has a handler for each route and method that distribution's route
// table lists; a test holds the two together.
var handlers = map[distribution.Route]methods{
	distribution.RouteBase: {
		http.MethodGet:  (*Registry).base,
		http.MethodHead: (*Registry).base,
	},
	distribution.RouteBlob: {
		http.MethodGet:    (*Registry).getBlob,
		http.MethodHead:   (*Registry).headBlob,
		http.MethodDelete: (*Registry).deleteBlob,
	},
	distribution.RouteManifest: {
		http.MethodGet:    (*Registry).getManifest,
		http.MethodHead:   (*Registry).getManifest,
		http.MethodPut:    (*Registry).putManifest,
		http.MethodDelete: (*Registry).deleteManifest,
	},
	distribution.RouteUploads: {
		http.MethodPost: (*Registry).startUpload,
	},
	distribution.RouteUpload: {
		http.MethodGet:    (*Registry).uploadStatus,
		http.MethodPatch:  (*Registry).patchUpload,
		http.MethodPut:    (*Registry).putUpload,
		http.MethodDelete: (*Registry).cancelUpload,
	},
	distribution.RouteTags: {
		http.MethodGet:  (*Registry).listTags,
		http.MethodHead: (*Registry).listTags,
	},
	distribution.RouteReferrers: {
		http.MethodGet:  (*Registry).listReferrers,
		http.MethodHead: (*Registry).listReferrers,
	},
}

// ServeHTTP implements http.Handler.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()[distribution.HeaderAPIVersion] = []string{"registry/2.0"}
	body := newBody(w, r, g.opts.IdleTimeout)
	r.Body = body
	if err := g.serve(&request{Request: r, w: body.writer(), body: body}); err != nil {
		g.refuse(w, r, err)
	}
}

func (g *Registry) serve(q *request) (err error) {
	if q.Endpoint, err = distribution.ParsePath(q.URL.Path); err != nil {
		return err
	}
	handle, ok := handlers[q.Route][q.Method]
	if !ok {
		q.w.Header().Set("Allow", strings.Join(q.Route.Methods(), ", "))
		return distribution.Errorf(distribution.CodeUnsupported, "%s of a %s", q.Method, q.Route)
	}
	return handle(g, q)
}

// statusError answers with another status than the code's own.
type statusError struct {
	status int
	err    *distribution.Error
}

func (e statusError) Error() string { return e.err.Error() }
func (e statusError) Unwrap() error { return e.err }

// refuse writes err as an error body. What is no *distribution.Error is ours
// to know: the client reads only that something failed.
func (g *Registry) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var known *distribution.Error
	var other statusError
	status := 0
	switch {
	case errors.As(err, &other):
		known, status = other.err, other.status
	case errors.As(err, &known):
		status = known.Code.Status()
	case errors.Is(err, distribution.ErrNotFound):
		known, status = distribution.Errorf(distribution.CodeUnsupported, "no such path"), http.StatusNotFound
	case errors.Is(err, storage.ErrNoSpace):
		known, status = distribution.Errorf(distribution.CodeUnknown, "the registry's storage is full"), http.StatusInsufficientStorage
	default:
		known, status = &distribution.Error{Code: distribution.CodeUnknown, Message: "internal error"}, http.StatusInternalServerError
	}
	if status >= 500 && r.Context().Err() == nil {
		g.opts.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "err", err)
	}
	body := distribution.EncodeErrorBody(known)
	header := w.Header()
	for _, name := range []string{"Content-Encoding", "Etag", distribution.HeaderContentDigest} {
		header.Del(name)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// notExist gives storage.ErrNotExist the code of what was asked for.
func notExist(err error, code distribution.Code) error {
	if errors.Is(err, storage.ErrNotExist) {
		return &distribution.Error{Code: code, Message: code.Message()}
	}
	return err
}

func (g *Registry) base(q *request) error {
	q.w.Header().Set("Content-Type", "application/json")
	q.w.Header().Set("Content-Length", "2")
	if q.Method == http.MethodGet {
		q.w.Write([]byte("{}"))
	}
	return nil
}

// path is the path of another endpoint of the same repository.
func (q *request) path(route distribution.Route, argument string) string {
	return distribution.Endpoint{Route: route, Name: q.Name, Argument: argument}.Path()
}

// drop expires forgotten uploads.
func (g *Registry) drop(ctx context.Context) {
	n, err := g.store.ExpireUploads(ctx, time.Now().Add(-g.opts.UploadLife))
	if err != nil && ctx.Err() == nil {
		g.opts.Log.Error("expire uploads", "err", fmt.Errorf("after %d: %w", n, err))
	}
}
