// Package service is a registry of the OCI Distribution Spec as something that
// runs: it makes of a config.Config what that describes, with log, figures and
// health beside it, and listens until it is told to stop.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/metrics"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/upstream"
	"github.com/tare-oci/tare/distribution/server/web"
	"github.com/tare-oci/tare/distribution/server/webhook"
)

// Service is a registry that has its storage, and can listen.
type Service struct {
	config   config.Config
	log      *slog.Logger
	store    *storage.Store
	registry *server.Registry
	guard    server.Guard // nil if everybody may do everything
	metrics  *metrics.Set
	tls      *certificates // nil for plain HTTP
	rot      *rot
	draining atomic.Bool

	upstreams *upstream.Set // nil for none
	webhooks  *webhook.Hub  // nil for none
	pages     *web.Handler  // nil for none
}

// New makes a service of c, and writes its log to log. It opens the storage and
// reads all files that c names, and from getenv what c may leave to the
// environment.
func New(c config.Config, log io.Writer, getenv func(string) string) (*Service, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &Service{config: c, metrics: &metrics.Set{}}
	all := &lines{out: log}
	s.log = newLogger(c.Log.Format, all)
	var requests io.Writer
	if c.Log.Access {
		requests = requestLines{all}
	}
	objects, err := openObjects(c.Storage, getenv)
	if err != nil {
		return nil, err
	}
	if c.TLS.Cert != "" {
		if s.tls, err = loadCertificates(c.TLS, s.log); err != nil {
			return nil, err
		}
	}
	s.rot = newRot(s.metrics, s.log)
	s.store = storage.New(objects, storage.Options{
		MaxUploads:   c.Limits.Uploads,
		MaxBlobBytes: int64(c.Limits.BlobSize),
		Redirect:     c.Storage.S3.Redirect,
		Patience:     patience,
		Grace:        time.Duration(c.GC.Grace),
		Fixed:        c.IsFixed,
		Quota:        quotaOf(&s.config),
		QuotaRules:   c.QuotaRules(),
		VerifyOnRead: c.Storage.VerifyOnRead,
		Rotten:       s.rot.found,
	})
	observer := newObserver(s.metrics, requests, c.Log.Format == formatJSON)
	s.metrics.Gauge("tare_registry_uploads_open", "Uploads that have begun and not ended.", func() float64 { return float64(s.store.OpenUploads()) })
	s.addUsage()
	s.metrics.Process()
	if c.HasAuth() {
		if s.guard, err = newGuard(c, s.log); err != nil {
			return nil, err
		}
	}
	if s.upstreams, err = s.openUpstreams(getenv); err != nil {
		return nil, err
	}
	if s.webhooks, err = s.openWebhooks(); err != nil {
		return nil, err
	}
	s.registry = server.New(s.store, s.options(observer))
	if c.Web.Enabled {
		s.pages, err = web.New(web.Options{Store: s.store, Guard: s.guard, Admit: s.registry.Admit, Log: s.log, Observe: func(seen *server.Observation) {
			seen.Client = s.registry.ClientAddr(seen.Request)
			observer.observe(seen)
		}})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func newGuard(c config.Config, log *slog.Logger) (*access.Guard, error) {
	token := c.TokenOptions()
	if c.Auth.Token.CA != "" {
		pool, err := remote.LoadCAs(c.Auth.Token.CA)
		if err != nil {
			return nil, err
		}
		token.RootCAs = pool
	}
	return access.New(access.Options{Passwords: c.Auth.Passwords, Groups: c.Auth.Groups, Rules: c.Rules(), Token: token, Log: log})
}

func (s *Service) options(o *observer) server.Options {
	c := s.config
	proxies, _ := c.Proxies() // Check has found no mistake in them
	options := server.Options{
		Log:              s.log,
		Guard:            s.guard,
		Observe:          o.observe,
		Limit:            c.Limiter(),
		TrustedProxies:   proxies,
		AllowSparse:      c.Limits.Sparse,
		NoDelete:         !c.Limits.Delete,
		IdleTimeout:      time.Duration(c.HTTP.IdleTimeout),
		UploadLife:       time.Duration(c.Limits.UploadAge),
		MaxManifestBytes: int64(c.Limits.ManifestSize),
		MaxTagsPage:      c.Limits.TagsPage,
		MaxCatalogPage:   c.Limits.CatalogPage,
	}
	if s.upstreams != nil {
		options.Upstream = s.upstreams
	}
	if s.webhooks != nil {
		options.Observe = func(seen *server.Observation) { o.observe(seen); s.webhooks.Notify(seen) }
	}
	return options
}

const formatJSON = "json"

func newLogger(format string, w io.Writer) *slog.Logger {
	if format == formatJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// Check tries what New does not: whether the storage can be reached.
func (s *Service) Check(ctx context.Context) error {
	if err := s.store.Check(ctx); err != nil {
		return fmt.Errorf("storage %s: %w", s.config.Storage.Location, err)
	}
	return nil
}

// Run listens and answers until ctx ends and the requests under way have been
// answered. ready is told the address, and may be nil.
func (s *Service) Run(ctx context.Context, ready func(net.Addr)) error {
	if err := s.Check(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.config.HTTP.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	o := server.ServeOptions{
		Handler:        http.HandlerFunc(s.route),
		HeaderTimeout:  time.Duration(s.config.HTTP.HeaderTimeout),
		KeepAlive:      time.Duration(s.config.HTTP.KeepAlive),
		DrainTimeout:   time.Duration(s.config.HTTP.DrainTimeout),
		MaxHeaderBytes: int(s.config.HTTP.MaxHeader),
	}
	if s.tls != nil {
		o.TLS = s.tls.config()
	}
	if len(s.config.Quota) > 0 {
		o.Tasks = append(o.Tasks, s.countUsage)
	}
	if s.config.Scrub.Rate > 0 {
		o.Tasks = append(o.Tasks, s.scrubNowAndThen)
	}
	if s.config.GC.Interval > 0 {
		o.Tasks = append(o.Tasks, s.collectNowAndThen)
	}
	if s.upstreams != nil && s.upstreams.Keeps() {
		o.Tasks = append(o.Tasks, s.expireNowAndThen)
	}
	if s.config.Metrics.Enabled && s.config.Metrics.Addr != "" {
		figures, err := net.Listen("tcp", s.config.Metrics.Addr)
		if err != nil {
			return errors.Join(fmt.Errorf("listen for metrics: %w", err), listener.Close())
		}
		o.Tasks = append(o.Tasks, func(ctx context.Context) { s.serveMetrics(ctx, figures) })
	}
	s.log.Info("listening", "addr", listener.Addr().String(), "tls", s.tls != nil, "storage", s.config.Storage.Location)
	if ready != nil {
		ready(listener.Addr())
	}
	defer context.AfterFunc(ctx, func() {
		s.draining.Store(true)
		s.log.Info("stopping", "drain-timeout", time.Duration(s.config.HTTP.DrainTimeout))
	})()
	if s.webhooks != nil {
		s.webhooks.Start()
	}
	err = server.Serve(ctx, listener, s.registry, o)
	if s.webhooks != nil {
		s.closeWebhooks(ctx)
	}
	if s.upstreams != nil {
		s.upstreams.Close()
	}
	s.log.Info("stopped")
	return err
}

// patience is enough for a request whose connection broke to end, before the client
// comes again.
const patience = 5 * time.Second

// writeTimeout is for answers beside the API's, which are short.
const writeTimeout = 30 * time.Second

// route has the few paths beside the API's. It is no http.ServeMux, which would
// clean paths and redirect.
func (s *Service) route(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v2/") {
		// The connection still has the deadline of the answer before this one.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	switch path := r.URL.Path; {
	case s.pages != nil && (path == "/" || path+"/" == web.Root):
		http.Redirect(w, r, web.Root, http.StatusFound)
	case s.pages != nil && strings.HasPrefix(path, web.Root):
		s.pages.ServeHTTP(w, r)
	case path == "/healthz":
		answer(w, http.StatusOK, "ok")
	case path == "/readyz":
		s.ready(w, r)
	case path == "/metrics":
		s.figures(w, r)
	default:
		s.registry.ServeHTTP(w, r)
	}
}

// figures are as open as the registry is. An address of their own has no guard:
// who reaches it may read them.
func (s *Service) figures(w http.ResponseWriter, r *http.Request) {
	if !s.config.Metrics.Enabled || s.config.Metrics.Addr != "" {
		answer(w, http.StatusNotFound, "no metrics here")
		return
	}
	need := []server.Access{{Action: server.ActionMetrics}}
	switch err := s.allow(r, need); {
	case err == nil:
		s.metrics.ServeHTTP(w, r)
	case errors.Is(err, distribution.ErrUnauthorized):
		w.Header()["Www-Authenticate"] = s.guard.Challenge(r, need)
		answer(w, http.StatusUnauthorized, "sign in first")
	case errors.Is(err, distribution.ErrTooManyRequests):
		w.Header().Set("Retry-After", "5")
		answer(w, http.StatusTooManyRequests, "too many requests")
	default:
		answer(w, http.StatusForbidden, "no access rule allows metrics")
	}
}

func (s *Service) allow(r *http.Request, need []server.Access) error {
	if s.guard == nil {
		return nil
	}
	_, wait, err := s.registry.Admit(r, need)
	if wait > 0 {
		return distribution.ErrTooManyRequests
	}
	return err
}

func (s *Service) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	switch err := s.store.Check(ctx); {
	case s.draining.Load():
		answer(w, http.StatusServiceUnavailable, "stopping")
	case err != nil:
		s.log.Warn("not ready", "err", err)
		answer(w, http.StatusServiceUnavailable, "the storage cannot be reached")
	default:
		answer(w, http.StatusOK, "ok")
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

func (s *Service) serveMetrics(ctx context.Context, listener net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("/metrics", s.metrics)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("serve metrics", "err", err)
	}
}
