// Package webhook tells other services what happens in a registry of the OCI
// Distribution Spec: manifests that are pushed, pulled and deleted, and blobs
// that are mounted, as CloudEvents 1.0 (structured JSON) or in the envelope of
// CNCF distribution's notifications. No client ever waits for it: each endpoint
// has a queue, and what does not fit in is dropped and counted.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/access"
)

// Endpoint is a service to be told.
type Endpoint struct {
	URL    string
	Format string // one of Formats
	Source string // who this registry is, a URI reference
	// Repositories are patterns, see access.Match; none is all.
	Repositories []string
	Actions      []string // of Actions; none is push and delete
	// Secret, if not nil, is the key of the signature in the header
	// X-Hub-Signature-256, Bearer the token of an Authorization. They are called
	// for each request.
	Secret, Bearer func() (string, error)
	RootCAs        *x509.CertPool // nil is the system's
	Timeout        time.Duration  // of one request. Default 10 s.
	Attempts       int            // for one event. Default 10.
	Queue          int            // how many events may wait. Default 1,000.
}

// Formats are the forms of a request's body.
func Formats() []string { return []string{"cloudevents", "distribution"} }

// Actions are what can be told.
func Actions() []string { return []string{ActionPush, ActionPull, ActionDelete, ActionMount} }

// Options configure a Hub.
type Options struct {
	Endpoints []Endpoint
	// Log gets what endpoints refuse. Nil is silence.
	Log *slog.Logger
	// Count, if not nil, is told what became of each event for an endpoint, which
	// goes by its host: "sent", "failed" or "dropped".
	Count func(endpoint, result string)

	retryWait time.Duration // after the first failure; then it doubles
}

const (
	defaultTimeout  = 10 * time.Second
	defaultAttempts = 10
	defaultQueue    = 1000
	maxQueue        = 1_000_000
	defaultWait     = time.Second
	maxWait         = time.Minute
	maxAnswerBytes  = 64 << 10
)

// Check finds what is wrong with an endpoint. URLs often have secrets in them, and
// are not quoted.
func (e Endpoint) Check() error {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "":
		return errors.New("url: is no http[s]://HOST/PATH")
	case u.User != nil:
		return errors.New("url: has a password in it; use bearer-file")
	case !slices.Contains(Formats(), e.Format):
		return fmt.Errorf("format: %q is none of %s", e.Format, strings.Join(Formats(), ", "))
	case e.Timeout < 0 || e.Attempts < 0 || e.Queue < 0 || e.Queue > maxQueue:
		return fmt.Errorf("timeout, attempts and queue cannot be negative, nor queue more than %d", maxQueue)
	}
	for _, action := range e.Actions {
		if !slices.Contains(Actions(), action) {
			return fmt.Errorf("actions: %q is none of %s", action, strings.Join(Actions(), ", "))
		}
	}
	for _, pattern := range e.Repositories {
		if !access.ValidPattern(pattern) {
			return fmt.Errorf("repositories: bad pattern %q", pattern)
		}
	}
	return nil
}

// Hub sends events to endpoints, from Start to Close.
type Hub struct {
	opts      Options
	endpoints []*endpoint
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu      sync.RWMutex // held while sending to queues, so that they can be closed
	closed  bool
	closing chan struct{} // closed with it
}

type endpoint struct {
	Endpoint
	host   string
	client *http.Client
	queue  chan Event

	mu      sync.Mutex
	dropped int       // that the log does not know of
	logged  time.Time // when it was last told
}

// logInterval is how often the log is told of events that are dropped, of which
// there may be many.
const logInterval = 10 * time.Second

// New makes a Hub.
func New(o Options) (*Hub, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(string, string) {}
	}
	if o.retryWait == 0 {
		o.retryWait = defaultWait
	}
	h := &Hub{opts: o, closing: make(chan struct{})}
	for i, one := range o.Endpoints {
		if err := one.Check(); err != nil {
			return nil, fmt.Errorf("webhook %d: %w", i+1, err)
		}
		h.endpoints = append(h.endpoints, newEndpoint(one))
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// Start begins to send.
func (h *Hub) Start() {
	for _, e := range h.endpoints {
		h.running.Go(func() { h.send(e) })
	}
}

func newEndpoint(o Endpoint) *endpoint {
	if len(o.Actions) == 0 {
		o.Actions = []string{ActionPush, ActionDelete}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Attempts == 0 {
		o.Attempts = defaultAttempts
	}
	if o.Queue == 0 {
		o.Queue = defaultQueue
	}
	e := &endpoint{Endpoint: o, queue: make(chan Event, o.Queue)}
	if u, err := url.Parse(o.URL); err == nil {
		e.host = u.Host
	}
	e.client = &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			MaxIdleConns:    1, IdleConnTimeout: time.Minute,
			ForceAttemptHTTP2: true,
		},
		// A redirect would carry the token and the event to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e
}

func (e *endpoint) wants(action, repo string) bool {
	return slices.Contains(e.Actions, action) && (len(e.Repositories) == 0 ||
		slices.ContainsFunc(e.Repositories, func(p string) bool { return access.Match(p, repo) }))
}

// Notify tells the endpoints that want to know of a request that has ended. It
// does not wait.
func (h *Hub) Notify(seen *server.Observation) {
	action := actionOf(seen)
	if action == "" {
		return
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	var event Event
	for _, e := range h.endpoints {
		if !e.wants(action, seen.Name) {
			continue
		}
		if event.ID == "" {
			event = newEvent(action, seen)
		}
		if h.closed {
			h.drop(e, "stopping", 1)
			continue
		}
		select {
		case e.queue <- event:
		default:
			h.drop(e, "the queue is full", 1)
		}
	}
}

func (h *Hub) drop(e *endpoint, why string, n int) {
	for range n {
		h.opts.Count(e.host, "dropped")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dropped += n; time.Since(e.logged) < logInterval {
		return
	}
	h.opts.Log.Warn("webhook: events dropped", "endpoint", e.host, "events", e.dropped, "why", why)
	e.dropped, e.logged = 0, time.Now()
}

// Close sends what waits until ctx ends, and drops the rest. Nothing is tried again
// then: who does not answer is not waited for.
func (h *Hub) Close(ctx context.Context) {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.closing)
		for _, e := range h.endpoints {
			close(e.queue)
		}
	}
	h.mu.Unlock()
	defer context.AfterFunc(ctx, h.cancel)()
	h.running.Wait()
	h.cancel()
	for _, e := range h.endpoints {
		e.client.CloseIdleConnections()
		if e.dropped > 0 {
			h.opts.Log.Warn("webhook: events dropped", "endpoint", e.host, "events", e.dropped, "why", "stopping")
		}
	}
}

// send takes events from the queue, in their order, to its end.
func (h *Hub) send(e *endpoint) {
	for event := range e.queue {
		if h.ctx.Err() != nil {
			h.drop(e, "stopping", 1+len(e.queue))
			return
		}
		err := h.deliver(e, event)
		switch {
		case err == nil:
			h.opts.Count(e.host, "sent")
		case h.ctx.Err() != nil || h.stopping():
			h.drop(e, "stopping", 1+len(e.queue))
			return
		default:
			h.opts.Count(e.host, "failed")
			h.opts.Log.Error("webhook: event not delivered", "endpoint", e.host, "event", event.ID, "action", event.Action, "repository", event.Repository, "err", err)
		}
	}
}

func (h *Hub) stopping() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// deliver tries until the endpoint has the event, or says that it never will.
func (h *Hub) deliver(e *endpoint, event Event) error {
	contentType, body, err := encode(e.Format, e.Source, event)
	if err != nil {
		return err
	}
	wait := h.opts.retryWait
	for attempt := 1; ; attempt++ {
		last := attempt == e.Attempts || h.stopping()
		after, err := h.post(e, contentType, body)
		if err == nil {
			return nil
		}
		if after < 0 || last || h.ctx.Err() != nil {
			return err
		}
		if attempt == 1 {
			h.opts.Log.Warn("webhook: trying again", "endpoint", e.host, "err", err)
		}
		select {
		case <-time.After(min(max(after, wait/2+rand.N(wait/2+1)), maxWait)):
		case <-h.closing:
		case <-h.ctx.Done():
			return err
		}
		wait = min(2*wait, maxWait)
	}
}

// post makes one request. Beside an error it returns how long to wait before the
// next one, or less than nothing if there should be none.
func (h *Hub) post(e *endpoint, contentType string, body []byte) (time.Duration, error) {
	r, err := http.NewRequestWithContext(h.ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return -1, errors.New("bad URL")
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", "tare-registry")
	if err := e.authorize(r, body); err != nil {
		return 0, err
	}
	resp, err := e.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the URL may be a secret
		}
		return 0, err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxAnswerBytes) // so that the connection can be used again
	switch status := resp.StatusCode; {
	case status < 300:
		return 0, nil
	case status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return -1, fmt.Errorf("answer %s", resp.Status)
	}
	seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	return time.Duration(seconds) * time.Second, fmt.Errorf("answer %s", resp.Status)
}

// authorize signs the request, in the form that many know from GitHub.
func (e *Endpoint) authorize(r *http.Request, body []byte) error {
	if e.Bearer != nil {
		token, err := e.Bearer()
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if e.Secret != nil {
		key, err := e.Secret()
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return nil
}
