// Package remote is the client side of the OCI Distribution Spec 1.1: it
// resolves references, reads and writes manifests and blobs, and lists tags on
// any registry. It trusts nothing a registry says: sizes are bounded, digests
// are checked, waits are finite, and credentials stay with the host they are for.
package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
)

// Options configure a Client. The zero value is right for public registries.
type Options struct {
	// Credentials says who the user is; nil is anonymous.
	Credentials auth.Source
	// MirrorCredentials says it to the mirrors that a Routed asks; nil is
	// Credentials. It is for where those are of one registry whatever they are
	// asked for: a mirror is not to learn them.
	MirrorCredentials auth.Source
	// PlainHTTP reports the hosts (host[:port]) to be spoken to without TLS.
	// Loopback hosts need not be named: TLS is tried there first, then plain HTTP.
	PlainHTTP func(host string) bool
	// Insecure reports the hosts whose certificates are not looked at, and which
	// may have no TLS at all; that is then found out.
	Insecure func(host string) bool
	// RootCAs are trusted in place of the system's; see LoadCAs.
	RootCAs *x509.CertPool
	// HostTLS gives hosts (host[:port]) certificates of their own; nil for a host
	// means that it has none. CertDirs.TLS is one.
	HostTLS func(host string) (*tls.Config, error)
	// Certificates are shown to the registry that is asked, in place of HostTLS's,
	// and to nobody else: neither to its mirrors nor to where it redirects.
	Certificates []tls.Certificate
	// Warn, if not nil, is told what a host wants people to know, which may be the
	// same with each of its answers.
	Warn func(host, text string)
	// UserAgent defaults to "tare".
	UserAgent string

	// ChunkBytes is the most that one request of an upload carries; zero leaves
	// it to the client. A registry may ask for more.
	ChunkBytes int64

	// MaxAttempts bounds how often one request is tried, and how often one blob
	// is taken up again without progress. Default 5.
	MaxAttempts int
	// RetryWait is the first pause between attempts; it doubles, with jitter.
	// Default 250 ms.
	RetryWait time.Duration
	// MaxRetryAfter is the longest pause a registry may ask for; one that asks
	// for more gets its refusal reported instead. Default 60 s.
	MaxRetryAfter time.Duration
	// HeaderTimeout bounds the wait for an answer's headers, IdleTimeout the
	// wait for the next bytes of a body, in either direction; 16 KiB have to come in
	// that time. Default 60 s, 30 s.
	HeaderTimeout time.Duration
	IdleTimeout   time.Duration
}

const (
	dialTimeout          = 15 * time.Second
	tlsTimeout           = 15 * time.Second
	maxRedirects         = 10
	maxHeaderBytes       = 256 << 10
	maxIdleConnsPerHost  = 16
	idleConnTimeout      = 60 * time.Second
	defaultAttempts      = 5
	defaultRetryWait     = 250 * time.Millisecond
	maxRetryWait         = 10 * time.Second
	defaultMaxRetryAfter = 60 * time.Second
	defaultHeaderTimeout = 60 * time.Second
	defaultIdleTimeout   = 30 * time.Second
)

// Client talks to registries. It is safe for concurrent use and keeps
// connections and tokens, so a program needs only one.
type Client struct {
	opts Options
	http *http.Client
	auth *authorizer

	pacing pacing
	paced  chan struct{} // one for each blob that is read in pieces

	mu      sync.Mutex
	schemes map[string]string // what a host of tryPlain turned out to speak
}

// New makes a Client.
func New(opts Options) *Client {
	setDefault(&opts.UserAgent, "tare")
	setDefault(&opts.MaxAttempts, defaultAttempts)
	setDefault(&opts.RetryWait, defaultRetryWait)
	setDefault(&opts.MaxRetryAfter, defaultMaxRetryAfter)
	setDefault(&opts.HeaderTimeout, defaultHeaderTimeout)
	setDefault(&opts.IdleTimeout, defaultIdleTimeout)
	c := &Client{opts: opts, pacing: usualPacing, paced: make(chan struct{}, maxPacedReaders), schemes: map[string]string{}}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  opts.HeaderTimeout,
		IdleConnTimeout:        idleConnTimeout,
		MaxIdleConnsPerHost:    maxIdleConnsPerHost,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// A digest is of the bytes as stored, and inflating what a registry
		// sends is the caller's decision.
		DisableCompression: true,
	}
	c.http = &http.Client{CheckRedirect: c.checkRedirect, Transport: transport}
	if opts.HostTLS != nil || opts.Insecure != nil || len(opts.Certificates) > 0 {
		c.http.Transport = &hostTransports{Transport: transport, tls: opts.hostTLS, certificates: opts.Certificates, byHost: map[shown]*http.Transport{}}
	}
	c.auth = newAuthorizer(c, opts.Credentials)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close drops the idle connections. A Client can still be used afterwards.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// scheme is what to speak with host now.
func (c *Client) scheme(host string) string {
	if c.opts.PlainHTTP != nil && c.opts.PlainHTTP(host) {
		return "http"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.schemes[host]; ok {
		return s
	}
	return "https"
}

// hostTLS is the host's own configuration, nil if it has none.
func (o Options) hostTLS(host string) (config *tls.Config, err error) {
	if o.HostTLS != nil {
		if config, err = o.HostTLS(host); err != nil {
			return nil, err
		}
	}
	if o.Insecure != nil && o.Insecure(host) {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		config.InsecureSkipVerify = true
	}
	return config, nil
}

// tryPlain reports the hosts with which plain HTTP is tried when TLS is not to
// be had.
func (c *Client) tryPlain(host string) bool {
	return isLoopback(host) || c.opts.Insecure != nil && c.opts.Insecure(host)
}

// fallBack notes that such a host speaks no TLS, and reports whether to
// go on without. Only a failed
// handshake counts, and never a refused certificate.
func (c *Client) fallBack(host string, err error) bool {
	var cert *tls.CertificateVerificationError
	if !c.tryPlain(host) || errors.As(err, &cert) {
		return false
	}
	var record tls.RecordHeaderError
	noPort := (&url.URL{Host: host}).Port() == "" // then plain HTTP has one of its own
	spoke := errors.As(err, &record) || errors.Is(err, io.EOF) || noPort && neverSent(err) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") // net/http has no value for it
	if !spoke {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.schemes[host]; !known {
		c.schemes[host] = "http"
	}
	return c.schemes[host] == "http" // perhaps by a request beside this one
}

func (c *Client) keepScheme(host, scheme string) {
	if !c.tryPlain(host) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.schemes[host]; !known {
		c.schemes[host] = scheme
	}
}

// plainAllowed reports whether bytes may go to u unencrypted.
func (c *Client) plainAllowed(u *url.URL) bool {
	return c.tryPlain(u.Host) || c.opts.PlainHTTP != nil && c.opts.PlainHTTP(u.Host)
}

func isLoopback(host string) bool {
	u := url.URL{Host: host}
	name := u.Hostname()
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// errRedirect is final: trying again would be sent the same way.
var errRedirect = errors.New("refused redirect")

// checkRedirect bounds redirects and takes the credentials off as soon as the
// way has left the registry. net/http keeps them for other ports and
// subdomains of the same name; storage a registry redirects to is often that.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
	case req.Method != first.Method:
		return fmt.Errorf("%w: it would turn %s into %s", errRedirect, first.Method, req.Method)
	case req.URL.Scheme == "http" && first.URL.Scheme == "https" && !c.plainAllowed(req.URL),
		req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to %s", errRedirect, req.URL.Scheme)
	}
	req.Header.Del("Referer") // it carries the way here, signed queries and all
	for _, step := range append(via[1:len(via):len(via)], req) {
		if step.URL.Host != first.URL.Host || step.URL.Scheme != first.URL.Scheme {
			req.Header.Del("Authorization")
		}
	}
	return nil
}

func (c *Client) endpoint(repo distribution.Repository, e distribution.Endpoint) *url.URL {
	host := repo.APIHost()
	return &url.URL{Scheme: c.scheme(host), Host: host, Path: e.Path()}
}

// watch ends a request whose body stops moving.
type watch struct {
	timer  *time.Timer
	idle   time.Duration
	cancel context.CancelCauseFunc
}

var errIdle = errors.New("no data for too long")

// leastBytes is what has to come in the idle time: who gives a byte now and then is
// no better than who gives none.
const leastBytes = 16 << 10

func newWatch(ctx context.Context, idle time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{idle: idle, cancel: cancel}
	w.timer = time.AfterFunc(idle, func() { cancel(errIdle) })
	w.timer.Stop()
	return ctx, w
}

func (w *watch) start(d time.Duration) { w.timer.Reset(d) }
func (w *watch) stop()                 { w.timer.Stop() }
func (w *watch) end()                  { w.timer.Stop(); w.cancel(context.Canceled) }

// answerBody is an answer's body: each wait for bytes is bounded, and all waits
// together for the next of leastBytes.
type answerBody struct {
	io.ReadCloser
	ctx context.Context
	*watch
	waited time.Duration
	came   int // since then
}

func (b *answerBody) Read(p []byte) (int, error) {
	began := time.Now()
	b.start(b.idle - b.waited)
	n, err := b.ReadCloser.Read(p)
	b.stop()
	b.waited += time.Since(began)
	if b.came += n; b.came >= leastBytes {
		b.waited, b.came = 0, 0
	}
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errIdle {
		err = fmt.Errorf("%w (%s)", errIdle, b.idle)
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// requestBody is a request's body: what is bounded is the time between the
// transport's reads, in which it writes to the network.
type requestBody struct {
	io.ReadCloser
	*watch
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.stop()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.start(b.idle)
	}
	return n, err
}

func (b *requestBody) Close() error {
	b.stop()
	return b.ReadCloser.Close()
}
