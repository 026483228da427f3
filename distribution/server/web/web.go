// Package web shows a registry of the OCI Distribution Spec to people with a
// browser: repositories, tags, platforms, layers and referrers, as pages made
// here, with no script in them. It only reads, from the store alone, and shows to
// each user what he may pull.
//
//	/ui/               repositories
//	/ui/NAME           tags
//	/ui/NAME:TAG       a manifest, with all that it names
//	/ui/NAME@DIGEST    the same
//	/ui/-/style.css
//
// Names, tags, labels and annotations come from images, which is to say from
// anybody: html/template escapes them, and the Content-Security-Policy lets
// nothing run or load but our own style.
package web

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Root is the path below which everything is. It is none of the API's.
const Root = "/ui/"

const stylePath = Root + "-/style.css" // no repository's name has a component "-"

//go:embed page.html style.css
var files embed.FS

// Options configure a Handler.
type Options struct {
	Store *storage.Store
	// Guard decides who may see what. Nil shows everything to everybody.
	Guard server.Guard
	// Admit says who asks for a page, and whether it is too much: a Registry's
	// method. Nil asks the Guard alone.
	Admit func(r *http.Request, need []server.Access) (grant server.Grant, wait time.Duration, err error)
	// Log gets what users are not told. Nil is silence.
	Log *slog.Logger
	// Observe is called at the end of each request. Nil is nobody.
	Observe func(*server.Observation)
}

// Handler answers below Root.
type Handler struct {
	opts     Options
	template *template.Template
	style    []byte
}

// New makes a Handler.
func New(o Options) (*Handler, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Admit == nil {
		o.Admit = func(r *http.Request, need []server.Access) (grant server.Grant, wait time.Duration, err error) {
			if o.Guard != nil {
				grant, err = o.Guard.Allow(r, need)
			}
			return grant, 0, err
		}
	}
	t, err := template.New("page.html").Funcs(template.FuncMap{
		"size": sizeText, "time": timeText, "type": typeText, "short": shortDigest, "clip": clip,
		"next": func(i int) int { return i + 1 }, // layers count from 1, as with tare inspect
		"root": func() string { return Root }, "style": func() string { return stylePath },
		"tagURL": func(repo, tag string) string { return Root + repo + ":" + tag },
		"atURL":  func(repo string, d any) string { return Root + repo + "@" + fmt.Sprint(d) },
	}).ParseFS(files, "page.html")
	if err != nil {
		return nil, fmt.Errorf("web pages: %w", err)
	}
	style, err := files.ReadFile("style.css")
	if err != nil {
		return nil, fmt.Errorf("web pages: %w", err)
	}
	return &Handler{opts: o, template: t, style: style}, nil
}

// request is what a page is made for.
type request struct {
	*http.Request
	user string
	name string // of the repository that the path names
}

// page is what the template gets: the parts that are nil are not there.
type page struct {
	Title  string
	Host   string // as the client knows it
	User   string
	SignIn bool // there is more to be seen for some

	Name     string // of a repository
	Problem  string
	List     *repositoryList
	Tags     *tagList
	Manifest *manifestPage
}

// problem is an answer other than a page.
type problem struct {
	status int
	text   string
}

func (p problem) Error() string { return p.text }

var notFound = problem{http.StatusNotFound, "There is nothing here, or nothing that you may see."}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	q := &request{Request: r}
	p, err := h.make(w, q)
	status := http.StatusOK
	if err != nil {
		status, p = h.fail(w, q, err)
	}
	sent := 0
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
	case p == nil: // it has been answered
	default:
		status, sent = h.write(w, q, status, p)
	}
	if h.opts.Observe != nil {
		h.opts.Observe(&server.Observation{
			Request: r, Endpoint: distribution.Endpoint{Route: distribution.RouteNone, Name: q.name}, User: q.user,
			Status: status, SentBytes: int64(sent), Took: time.Since(start), Ended: time.Now(),
		})
	}
}

// fail makes a page of an error.
func (h *Handler) fail(w http.ResponseWriter, q *request, err error) (int, *page) {
	known, ok := errors.AsType[problem](err)
	switch {
	case ok:
	case errors.Is(err, storage.ErrNotExist):
		known = notFound
	case errors.Is(err, distribution.ErrUnauthorized):
		w.Header()["Www-Authenticate"] = h.opts.Guard.Challenge(q.Request, nil)
		known = problem{http.StatusUnauthorized, "Sign in to see this."}
	case errors.Is(err, distribution.ErrTooManyRequests):
		known = problem{http.StatusTooManyRequests, "Too many at a time. Try again."}
	default:
		if q.Context().Err() == nil {
			h.opts.Log.Error("web page failed", "path", q.URL.Path, "err", err)
		}
		known = problem{http.StatusInternalServerError, "The page cannot be made. The registry's log says why."}
	}
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(known.status)
	}
	return known.status, &page{Title: http.StatusText(known.status), Problem: known.text}
}

// policy lets a page load our style and an empty icon, and send a search to us.
const policy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (h *Handler) headers(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// write sends a page when it is whole.
func (h *Handler) write(w http.ResponseWriter, q *request, status int, p *page) (int, int) {
	p.Host, p.User = q.Host, q.user
	p.SignIn = h.opts.Guard != nil && q.user == ""
	var body bytes.Buffer
	if err := h.template.Execute(&body, p); err != nil {
		h.opts.Log.Error("web page failed", "path", q.URL.Path, "err", err)
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return http.StatusInternalServerError, 0
	}
	h.headers(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if q.Method == http.MethodHead {
		return status, 0
	}
	n, err := w.Write(body.Bytes())
	if err != nil && q.Context().Err() == nil {
		h.opts.Log.Debug("web page not sent", "path", q.URL.Path, "err", err)
	}
	return status, n
}

// make finds the page for a path; nil is one that has been answered here.
func (h *Handler) make(w http.ResponseWriter, q *request) (*page, error) {
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		return nil, problem{http.StatusMethodNotAllowed, "Pages are only to be read."}
	}
	if q.URL.Path == stylePath {
		h.headers(w)
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=3600")
		http.ServeContent(w, q.Request, "", time.Time{}, bytes.NewReader(h.style))
		return nil, nil
	}
	if err := h.authenticate(w, q); err != nil {
		return nil, err
	}
	rest := strings.TrimPrefix(q.URL.Path, Root)
	if rest == "" {
		return h.repositories(q)
	}
	name, target := rest, ""
	if before, after, ok := strings.Cut(rest, "@"); ok {
		name, target = before, after
		if _, err := distribution.ParseDigest(target); err != nil {
			return nil, notFound
		}
	} else if before, after, ok := strings.Cut(rest, ":"); ok {
		name, target = before, after
		if distribution.ValidateTag(target) != nil {
			return nil, notFound
		}
	}
	if distribution.ValidateName(name) != nil {
		return nil, notFound
	}
	if err := h.allowed(q, name); err != nil {
		return nil, err
	}
	q.name = name
	if target == "" {
		return h.tags(q)
	}
	return h.manifest(q, target)
}

// authenticate finds out who asks. Who does not say is somebody, too, unless he
// asks to sign in.
func (h *Handler) authenticate(w http.ResponseWriter, q *request) error {
	grant, wait, err := h.opts.Admit(q.Request, nil)
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return distribution.ErrTooManyRequests
	}
	q.user = grant.User
	if errors.Is(err, distribution.ErrUnauthorized) && q.Header.Get("Authorization") == "" && !q.URL.Query().Has("sign-in") {
		return nil
	}
	return err
}

// allowed is an error for a repository that the user may not pull from; who has
// not said who he is may do so.
func (h *Handler) allowed(q *request, name string) error {
	if h.opts.Guard == nil {
		return nil
	}
	_, err := h.opts.Guard.Allow(q.Request, []server.Access{{Repository: name, Action: server.ActionPull}})
	if errors.Is(err, distribution.ErrDenied) {
		return notFound
	}
	return err
}
