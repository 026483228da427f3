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
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/limit"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options configure a Registry.
type Options struct {
	// Log gets what clients are not told: the causes of 5xx answers. Nil is silence.
	Log *slog.Logger
	// Guard decides who may do what. Nil allows everything to everybody.
	Guard Guard
	// Observe is called at the end of each request. It must not keep what it gets.
	Observe func(*Observation)
	// Upstream, if not nil, has what the store lacks. What is not pushed here is
	// read through it.
	Upstream Upstream
	// Limit bounds what each client may ask for. Nil does not.
	Limit *limit.Limiter
	// TrustedProxies are those whose X-Forwarded-For counts.
	TrustedProxies []netip.Prefix
	// AllowSparse accepts manifests that name blobs or manifests which the
	// repository does not have.
	AllowSparse bool
	// NoDelete refuses to delete blobs, manifests and tags.
	NoDelete bool
	// IdleTimeout is how long a body may stand still, in either direction.
	// Default 60 s.
	IdleTimeout time.Duration
	// UploadLife is how long an upload may take before it is dropped. Default 24 h.
	UploadLife time.Duration
	// MaxManifestBytes bounds manifests, and is at most and by default
	// distribution.MaxManifestSizeBytes.
	MaxManifestBytes int64
	// MaxTagsPage and MaxCatalogPage are how many tags and repositories one
	// answer lists. Default 10,000 and 1,000.
	MaxTagsPage, MaxCatalogPage int
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 60 * time.Second
	}
	if o.UploadLife == 0 {
		o.UploadLife = 24 * time.Hour
	}
	if o.MaxManifestBytes <= 0 || o.MaxManifestBytes > distribution.MaxManifestSizeBytes {
		o.MaxManifestBytes = distribution.MaxManifestSizeBytes
	}
	for _, n := range []struct {
		value    *int
		standard int
	}{{&o.MaxTagsPage, 10_000}, {&o.MaxCatalogPage, 1_000}} {
		if *n.value <= 0 {
			*n.value = n.standard
		}
	}
}

// Observation is a request that has ended, for logs, figures and notices.
type Observation struct {
	*http.Request
	distribution.Endpoint
	User                 string     // what the Guard said
	Client               netip.Addr // beyond proxies; not valid if nobody wanted to know
	Status               int        // of the answer
	SentBytes, ReadBytes int64      // of bodies
	Took                 time.Duration
	Ended                time.Time
	// Of a manifest or blob that was stored, removed or sent, where it is known:
	Digest    digest.Digest
	MediaType string
}

// Registry is the handler.
type Registry struct {
	store  *storage.Store
	reader Reader // the store, or what is before it
	opts   Options
}

// New makes a registry of what store has.
func New(store *storage.Store, opts Options) *Registry {
	opts.setDefaults()
	g := &Registry{store: store, reader: store, opts: opts}
	if opts.Upstream != nil {
		g.reader = opts.Upstream
	}
	return g
}

// request is what a handler works on.
type request struct {
	*http.Request
	w    *writer
	body *body
	distribution.Endpoint
	grant  Grant
	client netip.Addr
	// What was stored, removed or sent, for the Observation.
	digest    digest.Digest
	mediaType string
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
	distribution.RouteCatalog: {
		http.MethodGet:  (*Registry).listRepositories,
		http.MethodHead: (*Registry).listRepositories,
	},
	distribution.RouteReferrers: {
		http.MethodGet:  (*Registry).listReferrers,
		http.MethodHead: (*Registry).listReferrers,
	},
}

// ServeHTTP implements http.Handler.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w.Header()[distribution.HeaderAPIVersion] = []string{"registry/2.0"}
	body := newBody(w, r, g.opts.IdleTimeout)
	r.Body = body
	q := &request{Request: r, w: body.writer(), body: body, client: g.ClientAddr(r)}
	if err := g.serve(q); err != nil {
		g.refuse(q, err)
	}
	if q.w.status == 0 { // an answer without a body, to HEAD
		q.w.WriteHeader(http.StatusOK)
	}
	if g.opts.Observe != nil {
		now := time.Now()
		g.opts.Observe(&Observation{
			Request: r, Endpoint: q.Endpoint, User: q.grant.User, Client: q.client,
			Status: q.w.status, SentBytes: q.w.sentBytes, ReadBytes: body.readBytes,
			Took: now.Sub(start), Ended: now, Digest: q.digest, MediaType: q.mediaType,
		})
	}
}

func (g *Registry) serve(q *request) (err error) {
	if q.Endpoint, err = distribution.ParsePath(q.URL.Path); err != nil {
		q.Route = distribution.RouteNone
		return err
	}
	handle, ok := handlers[q.Route][q.Method]
	if !ok {
		q.w.Header().Set("Allow", strings.Join(q.Route.Methods(), ", "))
		return distribution.Errorf(distribution.CodeUnsupported, "%s of a %s", q.Method, q.Route)
	}
	if err := g.locate(q); err != nil {
		return err
	}
	if err := g.guarded(q); err != nil {
		return err
	}
	if g.opts.NoDelete && q.Method == http.MethodDelete && q.Route != distribution.RouteUpload {
		return distribution.Errorf(distribution.CodeUnsupported, "this registry deletes nothing")
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
func (g *Registry) refuse(q *request, err error) {
	var known *distribution.Error
	var other statusError
	var full *storage.QuotaError
	status := 0
	switch {
	case errors.As(err, &other):
		known, status = other.err, other.status
	case errors.As(err, &known):
		status = known.Code.Status()
	case errors.Is(err, ErrUpstream):
		known, status = &distribution.Error{Code: distribution.CodeUnknown, Message: "the registry that this is a copy of does not answer, or answers wrongly"}, http.StatusBadGateway
	case errors.Is(err, distribution.ErrNotFound):
		known, status = distribution.Errorf(distribution.CodeUnsupported, "no such path"), http.StatusNotFound
	case errors.Is(err, storage.ErrFixed):
		known, status = distribution.Errorf(distribution.CodeDenied, "%v", storage.ErrFixed), http.StatusForbidden
	case errors.As(err, &full):
		known, status = distribution.Errorf(distribution.CodeDenied, "%v", full), http.StatusForbidden
	case errors.Is(err, storage.ErrTooMany):
		known, status = distribution.Errorf(distribution.CodeTooManyRequests, "too many uploads are open"), http.StatusTooManyRequests
		q.w.Header().Set("Retry-After", "30")
	case errors.Is(err, storage.ErrBusy):
		known, status = distribution.Errorf(distribution.CodeUnknown, "others are at work on the same; try again"), http.StatusServiceUnavailable
		q.w.Header().Set("Retry-After", "5")
	case errors.Is(err, storage.ErrNoSpace):
		known, status = distribution.Errorf(distribution.CodeUnknown, "the registry's storage is full"), http.StatusInsufficientStorage
	default:
		known, status = plainError(distribution.CodeUnknown), http.StatusInternalServerError
	}
	if status >= 500 && q.Context().Err() == nil {
		g.opts.Log.Error("request failed", "method", q.Method, "path", q.URL.Path, "status", status, "err", err)
	}
	body := distribution.EncodeErrorBody(known)
	header := q.w.Header()
	for _, name := range []string{"Content-Encoding", "Etag", distribution.HeaderContentDigest} {
		header.Del(name)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	q.w.WriteHeader(status)
	if q.Method != http.MethodHead {
		q.w.Write(body)
	}
}

// plainError says no more than its code.
func plainError(code distribution.Code) *distribution.Error {
	return &distribution.Error{Code: code, Message: code.Message()}
}

// notExist gives storage.ErrNotExist the code of what was asked for.
func notExist(err error, code distribution.Code) error {
	if errors.Is(err, storage.ErrNotExist) {
		return plainError(code)
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
