package remote_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/internal/testenv"
)

// tokenServer is a server of Docker's token authentication: JSON web tokens, signed
// with a certificate's key. "me" may do everything, by password or by identity token;
// everybody may pull from below "public/".
type tokenServer struct {
	*httptest.Server
	pair                tls.Certificate
	issued, byPassword  atomic.Int32
	byIdentity, refused atomic.Int32
}

func newTokenServer(t *testing.T, certificates testenv.Certificates) *tokenServer {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificates.Cert, certificates.Key)
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenServer{pair: pair}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

// auth is what a CNCF distribution has to know of the server.
func (s *tokenServer) auth(certificates testenv.Certificates) string {
	return fmt.Sprintf("auth: {token: {realm: %q, service: test-registry, issuer: test-issuer, rootcertbundle: %q}}\n", s.URL+"/token", certificates.CA)
}

func (s *tokenServer) answer(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	switch {
	case r.Method == http.MethodPost && r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == "identity":
		user = "me"
		s.byIdentity.Add(1)
	case r.Method == http.MethodGet && ok && user == "me" && password == "secret":
		s.byPassword.Add(1)
	case r.Method == http.MethodGet && !ok:
	default:
		s.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	scopes := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		scopes = strings.Fields(r.FormValue("scope"))
	}
	access := []map[string]any{}
	for _, scope := range scopes {
		parts := strings.SplitN(scope, ":", 3)
		if len(parts) != 3 {
			continue
		}
		actions := strings.Split(parts[2], ",")
		if user == "" {
			actions = []string{}
			if strings.HasPrefix(parts[1], "public/") {
				actions = []string{"pull"}
			}
		}
		access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": actions})
	}
	s.issued.Add(1)
	name := map[bool]string{true: "access_token", false: "token"}[r.Method == http.MethodPost]
	json.NewEncoder(w).Encode(map[string]any{name: s.sign(user, access), "expires_in": 300})
}

// sign makes a token (RFC 7519) with the chain of its key in the header.
func (s *tokenServer) sign(user string, access any) string {
	now := time.Now()
	encode := func(v any) string {
		text, _ := json.Marshal(v) // maps of strings and numbers
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := encode(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": [][]byte{s.pair.Certificate[0]}}) + "." +
		encode(map[string]any{"iss": "test-issuer", "sub": user, "aud": "test-registry", "jti": fmt.Sprint(now.UnixNano()),
			"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(), "access": access})
	sum := sha256.Sum256([]byte(text))
	r, sig, err := ecdsa.Sign(rand.Reader, s.pair.PrivateKey.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		panic(err) // of the test's own key
	}
	signature := append(r.FillBytes(make([]byte, 32)), sig.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestTokenServer is docker-registry that takes the tokens of a token server.
func TestTokenServer(t *testing.T) {
	certificates := testenv.MakeCertificates(t)
	tokens := newTokenServer(t, certificates)
	addr := testenv.StartRegistry(t, testenv.RegistryOptions{Auth: tokens.auth(certificates)})
	as := func(cred auth.Credential) *remote.Client {
		c := remote.New(remote.Options{Credentials: auth.Static{Host: addr, Value: cred}})
		t.Cleanup(c.Close)
		return c
	}
	me := as(auth.Credential{Username: "me", Password: "secret"})
	layout := filepath.Join(testenv.Images(t), "small")
	for _, repo := range []string{"public/small", "team/small"} {
		pushLayout(t, me, layout, parse(t, addr+"/"+repo+":v1"))
	}
	if n := tokens.issued.Load(); n > 6 || tokens.byPassword.Load() != n {
		t.Errorf("%d tokens for two repositories, %d by password", n, tokens.byPassword.Load())
	}
	root, tree := pullAll(t, me, parse(t, addr+"/team/small:v1"))
	to := parse(t, addr+"/team/mounted:v1")
	for d := range tree.blobs {
		if ok, err := me.Mount(t.Context(), to.Repository, "team/small", d); !ok || err != nil { // a token for both
			t.Error(ok, err)
		}
	}
	if _, err := me.PushManifest(t.Context(), to, root.MediaType, tree.manifests[root.Digest]); err != nil {
		t.Error(err)
	}
	if err := me.Delete(t.Context(), parse(t, addr+"/team/mounted@"+root.Digest.String())); err != nil {
		t.Error(err)
	}

	pullAll(t, as(auth.Credential{IdentityToken: "identity"}), parse(t, addr+"/team/small:v1"))
	if tokens.byIdentity.Load() == 0 {
		t.Error("the identity token was not used")
	}
	nobody := remote.New(remote.Options{})
	defer nobody.Close()
	pullAll(t, nobody, parse(t, addr+"/public/small:v1"))
	for name, c := range map[string]*remote.Client{"nobody": nobody, "wrong": as(auth.Credential{Username: "me", Password: "WRONG"})} {
		_, _, err := c.Resolve(t.Context(), parse(t, addr+"/team/small:v1"))
		if !errors.Is(err, distribution.ErrUnauthorized) || strings.Contains(err.Error(), "WRONG") {
			t.Error(name, err)
		}
	}
	if _, err := nobody.PushManifest(t.Context(), parse(t, addr+"/public/small:v2"), root.MediaType, tree.manifests[root.Digest]); !errors.Is(err, distribution.ErrUnauthorized) {
		t.Error(err)
	}
}

// A token server that is not there does not mean that the image is not.
func TestNoTokenServer(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/") {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"x\"", s.URL+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.NotFound(w, r)
	}))
	defer s.Close()
	c := remote.New(remote.Options{})
	defer c.Close()
	ref := parse(t, strings.TrimPrefix(s.URL, "http://")+"/app:v1")
	_, err := c.Stat(t.Context(), ref)
	if err == nil || errors.Is(err, distribution.ErrNotFound) || !strings.Contains(err.Error(), "get token from") {
		t.Error(err)
	}
}
