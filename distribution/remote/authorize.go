package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
)

// authorizer answers registries' challenges and remembers what they wanted, so
// that only the first request of a kind is asked. Schemes: Basic (RFC 7617)
// and Bearer with a token server, as Docker's token authentication has it.
type authorizer struct {
	client *Client
	source auth.Source

	mu    sync.Mutex
	hosts map[string]*hostAuth // by API host
}

// hostAuth is what is known of one registry. busy is held through a token
// request: layers pulled side by side then share one token.
type hostAuth struct {
	busy   chan struct{}
	scheme string // of the last challenge: "", "basic" or "bearer"
	realm  *url.URL
	// service is the token server's name for the registry.
	service string
	tokens  map[string]token // by scopes
	secrets []string         // what must not be quoted
}

type token struct {
	value   string
	expires time.Time
}

const (
	maxTokenAnswerBytes = 1 << 20
	minTokenLife        = 60 * time.Second // Docker's default, and its least
	maxSecrets          = 16
)

func newAuthorizer(c *Client, source auth.Source) *authorizer {
	return &authorizer{client: c, source: source, hosts: map[string]*hostAuth{}}
}

// lock gives h to one caller at a time; the wait ends with ctx.
func (a *authorizer) lock(ctx context.Context, host string) (*hostAuth, error) {
	a.mu.Lock()
	h, ok := a.hosts[host]
	if !ok {
		h = &hostAuth{busy: make(chan struct{}, 1), tokens: map[string]token{}}
		a.hosts[host] = h
	}
	a.mu.Unlock()
	select {
	case h.busy <- struct{}{}:
		return h, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (h *hostAuth) unlock() { <-h.busy }

// header is the Authorization to send with call, "" when none is wanted yet.
func (a *authorizer) header(ctx context.Context, call *call) (string, error) {
	h, err := a.lock(ctx, call.repo.APIHost())
	if err != nil {
		return "", err
	}
	defer h.unlock()
	switch h.scheme {
	case "basic":
		cred, err := a.credential(ctx, h, call.repo)
		if err != nil || cred.Username == "" {
			return "", err
		}
		return basic(cred), nil
	case "bearer":
		key := strings.Join(call.scopes, " ")
		if t := h.tokens[key]; time.Now().Before(t.expires) {
			return "Bearer " + t.value, nil
		}
		return a.newToken(ctx, h, call, call.scopes)
	}
	return "", nil
}

// challenged takes up a 401 and reports whether to send the call again.
func (a *authorizer) challenged(ctx context.Context, call *call, resp *http.Response, sent string) (bool, error) {
	// After a redirect it is another host that asks: not ours to answer.
	if resp.Request.URL.Host != call.repo.APIHost() {
		return false, nil
	}
	h, err := a.lock(ctx, call.repo.APIHost())
	if err != nil {
		return false, err
	}
	defer h.unlock()
	challenges := auth.ParseChallenges(resp.Header.Values("Www-Authenticate"))
	find := func(scheme string) (auth.Challenge, bool) {
		i := slices.IndexFunc(challenges, func(c auth.Challenge) bool { return c.Scheme == scheme })
		if i < 0 {
			return auth.Challenge{}, false
		}
		return challenges[i], true
	}
	if c, ok := find("bearer"); ok {
		return a.bearerChallenge(ctx, h, call, c, sent)
	}
	if _, ok := find("basic"); !ok {
		return false, nil
	}
	h.scheme = "basic"
	cred, err := a.credential(ctx, h, call.repo)
	if err != nil {
		return false, err
	}
	return cred.Username != "" && basic(cred) != sent, nil
}

func (a *authorizer) bearerChallenge(ctx context.Context, h *hostAuth, call *call, c auth.Challenge, sent string) (bool, error) {
	realm, err := url.Parse(c.Param("realm"))
	if err != nil || realm.Host == "" || realm.User != nil {
		return false, permanent{errors.New("registry names a token server that is no URL")}
	}
	// The user's password goes there: never in the clear over a network.
	if realm.Scheme != "https" && (realm.Scheme != "http" || !a.client.plainAllowed(realm)) {
		return false, permanent{fmt.Errorf("registry names token server %s without TLS", realm.Host)}
	}
	h.scheme, h.realm, h.service = "bearer", realm, c.Param("service")
	// While this call was out, a parallel one may have fetched a token.
	key := strings.Join(call.scopes, " ")
	if t, ok := h.tokens[key]; ok && "Bearer "+t.value != sent && time.Now().Before(t.expires) {
		return true, nil
	}
	scopes := call.scopes
	if asked := c.Param("scope"); asked != "" && sent != "" {
		scopes = strings.Fields(asked) // ours did not do
	}
	header, err := a.newToken(ctx, h, call, scopes)
	return header != "" && header != sent, err
}

func (a *authorizer) credential(ctx context.Context, h *hostAuth, repo distribution.Repository) (auth.Credential, error) {
	if a.source == nil {
		return auth.Credential{}, nil
	}
	cred, err := a.source.Credential(ctx, repo)
	if err != nil {
		return cred, permanent{err}
	}
	h.keepSecret(cred.Password, cred.IdentityToken, cred.RegistryToken, strings.TrimPrefix(basic(cred), "Basic "))
	return cred, nil
}

func (h *hostAuth) keepSecret(values ...string) {
	for _, s := range values {
		if len(s) >= 4 && !slices.Contains(h.secrets, s) {
			h.secrets = append(h.secrets, s)
		}
	}
	if extra := len(h.secrets) - maxSecrets; extra > 0 {
		h.secrets = slices.Delete(h.secrets, 0, extra)
	}
}

func basic(c auth.Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// newToken fetches a token for scopes and keeps it for the call's.
func (a *authorizer) newToken(ctx context.Context, h *hostAuth, call *call, scopes []string) (string, error) {
	cred, err := a.credential(ctx, h, call.repo)
	if err != nil {
		return "", err
	}
	if cred.RegistryToken != "" {
		return "Bearer " + cred.RegistryToken, nil
	}
	t, err := a.fetchToken(context.WithValue(ctx, askedFor{}, call.repo.APIHost()), h, cred, scopes)
	if errors.Is(err, distribution.ErrNotFound) { // which says nothing of what the call is for
		return "", permanent{fmt.Errorf("get token from %s: %v", h.realm.Host, err)}
	}
	if err != nil {
		return "", fmt.Errorf("get token from %s: %w", h.realm.Host, err)
	}
	h.keepSecret(t.value)
	h.tokens[strings.Join(call.scopes, " ")] = t
	return "Bearer " + t.value, nil
}

// fetchToken asks the token server: by OAuth2 with an identity token (RFC 6749
// section 6, as Docker's "Token Authentication: OAuth2" has it), else by GET,
// with the password if there is one.
func (a *authorizer) fetchToken(ctx context.Context, h *hostAuth, cred auth.Credential, scopes []string) (token, error) {
	ctx, watch := newWatch(ctx, a.client.opts.IdleTimeout)
	defer watch.end()
	request := a.getToken
	if cred.IdentityToken != "" {
		request = a.refreshToken
	}
	asked := time.Now()
	resp, err := request(ctx, h, cred, scopes)
	if err != nil {
		return token{}, withoutURL(err)
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, ctx: ctx, watch: watch}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		io.CopyN(io.Discard, resp.Body, distribution.MaxErrorBodyBytes)
		// What a token server says is not quoted: it has just been told the password.
		return token{}, &distribution.ResponseError{
			Status:     resp.StatusCode,
			RetryAfter: retryAfter(resp.Header.Get("Retry-After"), asked),
		}
	}
	return readToken(resp.Body, asked)
}

func (a *authorizer) getToken(ctx context.Context, h *hostAuth, cred auth.Credential, scopes []string) (*http.Response, error) {
	query := h.realm.Query()
	if h.service != "" {
		query.Set("service", h.service)
	}
	query.Del("scope")
	for _, s := range scopes {
		query.Add("scope", s)
	}
	if cred.Username != "" {
		query.Set("account", cred.Username)
	}
	u := *h.realm
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, permanent{err}
	}
	req.Header.Set("User-Agent", a.client.opts.UserAgent)
	if cred.Username != "" {
		req.Header.Set("Authorization", basic(cred))
	}
	return a.client.http.Do(req)
}

// clientID is what this program is called in OAuth2.
const clientID = "tare"

func (a *authorizer) refreshToken(ctx context.Context, h *hostAuth, cred auth.Credential, scopes []string) (*http.Response, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {cred.IdentityToken}, "client_id": {clientID},
		"service": {h.service}, "scope": {strings.Join(scopes, " ")},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, permanent{err}
	}
	req.Header.Set("User-Agent", a.client.opts.UserAgent)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// A redirect would carry the token, which is in the body, to wherever it leads.
	client := *a.client.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client.Do(req)
}

func readToken(body io.Reader, asked time.Time) (token, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxTokenAnswerBytes+1))
	if err != nil {
		return token{}, err
	}
	var doc struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if len(data) > maxTokenAnswerBytes || json.Unmarshal(data, &doc) != nil {
		return token{}, permanent{errors.New("answer is not a token")}
	}
	if doc.Token == "" {
		doc.Token = doc.AccessToken
	}
	if doc.Token == "" || strings.ContainsFunc(doc.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return token{}, permanent{errors.New("answer has no usable token")}
	}
	life := max(time.Duration(min(doc.ExpiresIn, 24*3600))*time.Second, minTokenLife)
	return token{doc.Token, asked.Add(life - life/10)}, nil
}

// redact takes every secret known for host out of what is to be quoted.
func (a *authorizer) redact(s, host, sent string) string {
	a.mu.Lock()
	h := a.hosts[host]
	a.mu.Unlock()
	secrets := []string{}
	if _, value, ok := strings.Cut(sent, " "); ok {
		secrets = append(secrets, value)
	}
	if h != nil {
		h.busy <- struct{}{}
		secrets = append(secrets, h.secrets...)
		h.unlock()
	}
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "[redacted]")
	}
	return s
}
