package remote

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
)

func static(repo distribution.Repository, user, password string) auth.Source {
	return auth.Static{Host: repo.Host, Value: auth.Credential{Username: user, Password: password}}
}

// tokenRegistry is a registry that takes tokens only, and its token server.
// A token is the scopes it is for.
type tokenRegistry struct {
	*faulty
	tokens    *httptest.Server
	issued    atomic.Int32
	user      string // "" lets anybody have a token
	expiresIn int
}

func newTokenRegistry(t *testing.T, user, password string) *tokenRegistry {
	tr := &tokenRegistry{user: user, expiresIn: 300}
	tr.tokens = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if ok && (u != user || p != password) || !ok && user != "" {
			// What it says must not be quoted.
			step(401, `{"errors":[{"code":"DENIED","message":"password `+p+` is wrong"}]}`)(w, r)
			return
		}
		tr.issued.Add(1)
		value := base64.RawURLEncoding.EncodeToString([]byte(strings.Join(r.URL.Query()["scope"], " ")))
		fmt.Fprintf(w, `{"token":"%s","expires_in":%d}`, value, tr.expiresIn)
	}))
	t.Cleanup(tr.tokens.Close)
	tr.faulty = newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		need := "repository:a/b:pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			need = "repository:a/b:pull,push"
		}
		value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		granted, _ := base64.RawURLEncoding.DecodeString(value)
		if !strings.HasPrefix(string(granted), need) {
			step(401, `{"errors":[{"code":"UNAUTHORIZED","message":"token `+value+` does not do"}]}`,
				fmt.Sprintf(`Www-Authenticate: Bearer realm="%s/token?x=y",service="reg",scope="%s"`, tr.tokens.URL, need))(w, r)
			return
		}
		manifestOK(w, r)
	})
	return tr
}

func (tr *tokenRegistry) client(t *testing.T, user, password string) *Client {
	opts := quick()
	if user != "" {
		opts.Credentials = static(tr.repo, user, password)
	}
	return newClient(t, opts)
}

func TestBearer(t *testing.T) {
	for _, user := range []string{"", "me"} {
		tr := newTokenRegistry(t, user, "SECRET")
		c := tr.client(t, user, "SECRET")
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if _, _, err := c.Resolve(t.Context(), tr.ref("x")); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := tr.issued.Load(); n != 1 {
			t.Errorf("%d tokens for one scope", n)
		}
		c.PushManifest(t.Context(), tr.ref("x"), ocispec.MediaTypeImageManifest, []byte("{}"))
		if n := tr.issued.Load(); n != 2 {
			t.Errorf("%d tokens for two scopes", n)
		}
		requests := len(tr.requests())
		if _, _, err := c.Resolve(t.Context(), tr.ref("x")); err != nil || len(tr.requests()) != requests+1 {
			t.Error("the token was not used again", err)
		}
	}
}

// An identity token is exchanged for a token by POST, and goes nowhere else.
func TestIdentityToken(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	redirect := false
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case redirect:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case r.Method == http.MethodPost && r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == "SECRET" &&
			r.FormValue("service") == "reg" && r.FormValue("scope") == "repository:a/b:pull" && r.FormValue("client_id") != "" && r.URL.RawQuery == "x=y":
			fmt.Fprint(w, `{"access_token":"good","expires_in":300}`)
		default:
			w.WriteHeader(400)
		}
	}))
	defer tokens.Close()
	f := newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			step(401, "", fmt.Sprintf(`Www-Authenticate: Bearer realm="%s/token?x=y",service="reg",scope="repository:a/b:pull"`, tokens.URL))(w, r)
			return
		}
		manifestOK(w, r)
	})
	for _, redirect = range []bool{false, true} {
		opts := quick()
		opts.Credentials = auth.Static{Host: f.repo.Host, Value: auth.Credential{IdentityToken: "SECRET"}}
		_, _, err := newClient(t, opts).Resolve(t.Context(), f.ref("x"))
		if (err != nil) != redirect || err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("redirect %v: %v", redirect, err)
		}
	}
	if elsewhere.Load() > 0 {
		t.Error("the token went along with a redirect")
	}
}

func TestBearerExpires(t *testing.T) {
	tr := newTokenRegistry(t, "", "")
	c := tr.client(t, "", "")
	c.Resolve(t.Context(), tr.ref("x"))
	h, _ := c.auth.lock(t.Context(), tr.repo.APIHost())
	for key, tok := range h.tokens {
		if life := time.Until(tok.expires); life < 200*time.Second || life > 300*time.Second {
			t.Error(life)
		}
		tok.expires = time.Now()
		h.tokens[key] = tok
	}
	h.unlock()
	requests := len(tr.requests())
	if _, _, err := c.Resolve(t.Context(), tr.ref("x")); err != nil || tr.issued.Load() != 2 || len(tr.requests()) != requests+1 {
		t.Error(err, tr.issued.Load())
	}
}

// A wrong password is an error with nothing of it, nor of the token, in it.
func TestSecretsStayOutOfErrors(t *testing.T) {
	tr := newTokenRegistry(t, "me", "RIGHT")
	_, _, err := tr.client(t, "me", "SECRET").Resolve(t.Context(), tr.ref("x"))
	wantErr(t, err, distribution.ErrUnauthorized)
	if strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "token") {
		t.Error(err)
	}
	_, _, err = tr.client(t, "", "").Resolve(t.Context(), tr.ref("x"))
	wantErr(t, err, distribution.ErrUnauthorized)

	// A registry that says back what it was sent.
	f := newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok {
			step(401, "", `Www-Authenticate: Basic realm="x"`)(w, r)
			return
		}
		step(403, fmt.Sprintf(`{"errors":[{"code":"DENIED","message":"%s %s %s","detail":%q}]}`, user, password, r.Header.Get("Authorization"), password))(w, r)
	})
	opts := quick()
	opts.Credentials = static(f.repo, "me", "SECRET")
	_, _, err = newClient(t, opts).Resolve(t.Context(), f.ref("x"))
	wantErr(t, err, distribution.ErrDenied)
	if s := fmt.Sprintf("%v %+v", err, err); strings.Contains(s, "SECRET") || strings.Contains(s, base64.StdEncoding.EncodeToString([]byte("me:SECRET"))) || !strings.Contains(s, "me [redacted]") {
		t.Error(s)
	}
}

// Basic authentication is asked for once, and a refused password once tried.
func TestBasic(t *testing.T) {
	f := newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "SECRET" {
			step(401, "", `Www-Authenticate: Negotiate, Basic realm="x"`)(w, r)
			return
		}
		manifestOK(w, r)
	})
	for password, n := range map[string]int{"SECRET": 4, "wrong": 5, "": 3} {
		opts := quick()
		if password != "" {
			opts.Credentials = static(f.repo, "me", password)
		}
		c := newClient(t, opts)
		before := len(f.requests())
		for range 3 {
			_, _, err := c.Resolve(t.Context(), f.ref("x"))
			if password != "SECRET" {
				wantErr(t, err, distribution.ErrUnauthorized)
			} else if err != nil {
				t.Error(err)
			}
		}
		if got := len(f.requests()) - before; got > n {
			t.Errorf("%q: %d requests, want %d", password, got, n)
		}
	}
}

// The token server is the registry's choice: not one without TLS on a network.
func TestRealms(t *testing.T) {
	for _, realm := range []string{"http://auth.example/token", "", "/token", "https://user:pass@auth.example/", "ftp://auth.example/", "https://%zz/"} {
		f := newFaulty(t, step(401, "", fmt.Sprintf(`Www-Authenticate: Bearer realm="%s"`, realm)))
		opts := quick()
		opts.Credentials = static(f.repo, "me", "SECRET")
		if _, _, err := newClient(t, opts).Resolve(t.Context(), f.ref("x")); err == nil || strings.Contains(err.Error(), "no such host") {
			t.Errorf("%q: %v", realm, err)
		}
		f.wantRequests(t, 1)
	}
}

func TestBadTokens(t *testing.T) {
	for name, answer := range map[string]string{
		"not JSON":  "<html>",
		"no token":  "{}",
		"two lines": `{"token":"a\r\nX-Header: b"}`,
		"endless":   `{"token":"` + strings.Repeat("x", 2<<20),
	} {
		tokens := httptest.NewServer(step(200, answer))
		f := newFaulty(t, step(401, "", `Www-Authenticate: Bearer realm="`+tokens.URL+`"`))
		if _, _, err := newClient(t, quick()).Resolve(t.Context(), f.ref("x")); err == nil || !strings.Contains(err.Error(), "get token") {
			t.Errorf("%s: %v", name, err)
		}
		f.wantRequests(t, 1)
		tokens.Close()
	}
}

func TestSchemes(t *testing.T) {
	c := New(Options{PlainHTTP: func(host string) bool { return host == "plain.example:80" }})
	for raw, want := range map[string]bool{
		"http://127.0.0.1:1/": true, "http://127.9.9.9/": true, "http://[::1]:5/": true, "http://localhost/": true, "http://plain.example:80/": true,
		"http://plain.example/": false, "http://10.0.0.1/": false, "http://localhost.example/": false, "http://127.0.0.1.example/": false,
	} {
		u, err := url.Parse(raw)
		if err != nil || c.plainAllowed(u) != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if c.scheme("plain.example:80") != "http" || c.scheme("127.0.0.1:1") != "https" || c.scheme("x.example") != "https" {
		t.Error("wrong scheme")
	}
}
