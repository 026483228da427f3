package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// call is one request to a registry, as often as it has to be sent.
type call struct {
	repo   distribution.Repository
	scopes []string
	method string
	url    func() *url.URL // anew for each attempt: the scheme may turn out different
	header http.Header
	want   []int // the statuses that are success

	body     func() (io.ReadCloser, error) // nil for none; opened for each attempt
	bodySize int64
	// once is set where a repetition would not mean the same: only refusals
	// that say nothing was done are tried again.
	once bool
}

const (
	pull = "pull"
	push = "pull,push"
)

func scope(name, actions string) string { return "repository:" + name + ":" + actions }

// newCall is a call without a body on an endpoint of repo.
func (c *Client) newCall(repo distribution.Repository, method, actions string, e distribution.Endpoint, want ...int) *call {
	return &call{
		repo:   repo,
		scopes: []string{scope(repo.Name, actions)},
		method: method,
		url:    func() *url.URL { return c.endpoint(repo, e) },
		header: http.Header{},
		want:   want,
	}
}

// do sends the call until it succeeds, is refused for good or the attempts
// are used up; its errors are permanent. The answer's status is one of call.want.
func (c *Client) do(ctx context.Context, call *call) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := c.attempt(ctx, call)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		wait, again := c.retry(attempt, err, call.once)
		if !again {
			return nil, permanent{err}
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// attempt sends the call once, and again when the answer asks who we are or
// when a loopback host turns out to speak plain HTTP.
func (c *Client) attempt(ctx context.Context, call *call) (*http.Response, error) {
	resp, sent, err := c.send(ctx, call)
	if err != nil && c.fallBack(call.repo.APIHost(), err) {
		resp, sent, err = c.send(ctx, call)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		again, err := c.auth.challenged(ctx, call, resp, sent)
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		if again {
			resp.Body.Close()
			if resp, sent, err = c.send(ctx, call); err != nil {
				return nil, err
			}
		}
	}
	if slices.Contains(call.want, resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(resp, call.repo, sent)
}

// send is one HTTP exchange, redirects included. It returns the
// Authorization it sent.
func (c *Client) send(ctx context.Context, call *call) (*http.Response, string, error) {
	authorization, err := c.auth.header(ctx, call)
	if err != nil {
		return nil, "", err
	}
	ctx, watch := newWatch(context.WithValue(ctx, askedFor{}, call.repo.APIHost()), c.opts.IdleTimeout)
	req, err := c.request(ctx, call, watch)
	if err != nil {
		watch.end()
		return nil, "", err
	}
	// An upload may go on elsewhere; that host is not to see who we are.
	if authorization != "" && req.URL.Host == call.repo.APIHost() {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if context.Cause(ctx) == errIdle {
			err = fmt.Errorf("%w (%s)", errIdle, c.opts.IdleTimeout)
		}
		watch.end()
		return nil, "", withoutURL(err)
	}
	c.keepScheme(req.URL.Host, req.URL.Scheme)
	c.warn(resp)
	resp.Body = &answerBody{ReadCloser: resp.Body, ctx: ctx, watch: watch}
	return resp, authorization, nil
}

// maxWarnings bounds how many an answer may have: the spec allows 4096 bytes of them.
const maxWarnings = 16

func (c *Client) warn(resp *http.Response) {
	if c.opts.Warn == nil {
		return
	}
	all := resp.Header["Warning"]
	for _, header := range all[:min(len(all), maxWarnings)] {
		if text, ok := distribution.ParseWarning(header); ok {
			c.opts.Warn(resp.Request.URL.Host, text)
		}
	}
}

func (c *Client) request(ctx context.Context, call *call, watch *watch) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, call.method, call.url().String(), nil)
	if err != nil {
		return nil, permanent{withoutURL(err)}
	}
	req.Header = call.header.Clone()
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if call.body == nil {
		return req, nil
	}
	open := func() (io.ReadCloser, error) {
		body, err := call.body()
		if err != nil {
			return nil, permanent{err}
		}
		if call.bodySize == 0 {
			body.Close()
			return http.NoBody, nil
		}
		return &requestBody{body, watch}, nil
	}
	if req.Body, err = open(); err != nil {
		return nil, err
	}
	req.GetBody = open
	req.ContentLength = call.bodySize
	return req, nil
}

// withoutURL drops the URL net/http wraps errors in: after a redirect it may
// be a signed one, which is a credential.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal reads an answer that is not success.
func (c *Client) refusal(resp *http.Response, repo distribution.Repository, sent string) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, distribution.MaxErrorBodyBytes))
	if err != nil {
		body = nil // the status still says enough
	}
	refusal := distribution.ParseErrorBody(resp.StatusCode, body)
	refusal.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	for i := range refusal.Errors {
		e := &refusal.Errors[i]
		e.Message = c.auth.redact(e.Message, repo.APIHost(), sent)
		e.Detail = nil // unstructured, quoted nowhere, and not redacted
	}
	return refusal
}

// retryAfter reads a Retry-After header (RFC 9110, 10.2.3): seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// permanent marks an error that another attempt would only repeat.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// retry decides whether to try again after the attempt-th failure, and when.
func (c *Client) retry(attempt int, err error, once bool) (time.Duration, bool) {
	var final permanent
	if attempt >= c.opts.MaxAttempts || errors.As(err, &final) {
		return 0, false
	}
	wait := backoff(c.opts.RetryWait, attempt)
	var refusal *distribution.ResponseError
	if !errors.As(err, &refusal) {
		return wait, transient(err) && (!once || neverSent(err))
	}
	if refusal.RetryAfter > c.opts.MaxRetryAfter {
		return 0, false
	}
	wait = max(wait, refusal.RetryAfter)
	switch refusal.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return wait, true
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return wait, !once
	}
	return 0, false
}

// backoff doubles from base, with jitter so that many clients part ways.
func backoff(base time.Duration, attempt int) time.Duration {
	wait := min(base<<min(attempt-1, 16), maxRetryWait)
	return wait/2 + rand.N(wait/2+1)
}

// transient reports whether a failed exchange may go better next time.
func transient(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	switch {
	case errors.Is(err, errRedirect), errors.As(err, &cert), errors.As(err, &record),
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

// neverSent reports that no byte of the request can have arrived.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
