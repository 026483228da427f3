package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

// signer makes tokens with one key.
type signer struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func signers(t testing.TB) (all []signer) {
	t.Helper()
	rsaKey, err1 := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edKey, err3 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return []signer{{"r", jose.RS256, rsaKey}, {"e", jose.ES256, ecKey}, {"d", jose.EdDSA, edKey}}
}

func keySet(t testing.TB, signers ...signer) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.private.Public(), KeyID: s.id, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// good is what a token says that allows something.
func good() map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": "issuer", "sub": "alice", "aud": "service", "exp": now + 60, "nbf": now - 1, "iat": now,
		"access": []any{map[string]any{"type": "repository", "name": "team/app", "actions": []string{"pull", "push"}}},
	}
}

func (s signer) token(t testing.TB, claims map[string]any, o *jose.SignerOptions) string {
	t.Helper()
	signing, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: jose.JSONWebKey{Key: s.private, KeyID: s.id}}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signing).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func tokenGuard(t testing.TB, keys []byte) (*Guard, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{
		Token: &Token{Realm: "https://auth.example.com/token", Service: "service", Issuer: "issuer", Keys: file, Leeway: 10 * time.Second},
		Rules: []Rule{{Users: []string{Anonymous}, Repositories: []string{"public"}, Allow: []string{"pull"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g, file
}

func ask(g *Guard, token string, need ...server.Access) (server.Grant, error) {
	r := httptest.NewRequest("GET", "/v2/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return g.Allow(r, need)
}

var pull = server.Access{Repository: "team/app", Action: server.ActionPull}

// TestTokens: each kind of key signs tokens that count, from a key set and from
// PEM files, with and without key IDs.
func TestTokens(t *testing.T) {
	all := signers(t)
	var blocks []byte
	for _, s := range all {
		der, err := x509.MarshalPKIXPublicKey(s.private.Public())
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	for form, keys := range map[string][]byte{"set": keySet(t, all...), "PEM": blocks} {
		g, _ := tokenGuard(t, keys)
		for _, s := range all {
			for _, id := range []string{s.id, ""} {
				s.id = id
				token := s.token(t, good(), nil)
				for range 2 { // the second time from memory
					if grant, err := ask(g, token, pull); err != nil || grant.User != "alice" || grant.CreateOnly {
						t.Errorf("%s, %s, %q: %+v, %v", form, s.algorithm, id, grant, err)
					}
				}
			}
		}
	}
}

// TestBadTokens: what is not signed by our keys, by their own algorithm, for us
// and for this hour, does not count; not even for "/v2/".
func TestBadTokens(t *testing.T) {
	all, strangers := signers(t), signers(t)
	g, _ := tokenGuard(t, keySet(t, all...))
	ec := all[1]
	say := func(name string, value any) map[string]any {
		c := good()
		c[name] = value
		if value == nil {
			delete(c, name)
		}
		return c
	}
	now := time.Now().Unix()
	token := ec.token(t, good(), nil)
	head, body, _ := strings.Cut(token, ".")
	body, signature, _ := strings.Cut(body, ".")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	bad := map[string]string{
		"other issuer":     ec.token(t, say("iss", "mallory"), nil),
		"no issuer":        ec.token(t, say("iss", nil), nil),
		"other service":    ec.token(t, say("aud", []string{"a", "b"}), nil),
		"no audience":      ec.token(t, say("aud", nil), nil),
		"ended":            ec.token(t, say("exp", now-60), nil),
		"no end":           ec.token(t, say("exp", nil), nil),
		"not yet":          ec.token(t, say("nbf", now+60), nil),
		"from the future":  ec.token(t, say("iat", now+60), nil),
		"not signed":       encode(`{"alg":"none"}`) + "." + body + ".",
		"none with ours":   encode(`{"alg":"none","kid":"e"}`) + "." + body + "." + signature,
		"other claims":     head + "." + encode(strings.Replace(`{"iss":"issuer","aud":"service","exp":EXP}`, "EXP", fmt.Sprint(now+60), 1)) + "." + signature,
		"no token":         "x",
		"empty":            ".",
		"huge":             strings.Repeat("x", maxTokenBytes+1),
		"critical header":  ec.token(t, good(), (&jose.SignerOptions{}).WithHeader("x", "y").WithCritical("x")),
		"access of a kind": ec.token(t, say("access", "everything"), nil),
	}
	for _, s := range strangers {
		bad["stranger "+s.id] = s.token(t, good(), nil)
		// CVE-2025-24976: the key that the token brings itself.
		bad["own key "+s.id] = s.token(t, good(), &jose.SignerOptions{EmbedJWK: true})
		named := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"jku": "https://mallory.example.com/keys"}}
		bad["own address "+s.id] = s.token(t, good(), named)
	}
	// A public key is no secret to sign with.
	der, _ := x509.MarshalPKIXPublicKey(all[0].private.Public())
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
		hs, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithHeader("kid", "r"))
		if err != nil {
			t.Fatal(err)
		}
		bad[fmt.Sprint("symmetric ", len(secret))], _ = jwt.Signed(hs).Claims(good()).Serialize()
	}
	// Another algorithm with a key of ours, and another's key ID.
	rs := all[0]
	rs.algorithm = jose.PS256
	bad["other algorithm"] = rs.token(t, good(), nil)
	other := all[2]
	other.id = "e"
	bad["other key's ID"] = other.token(t, good(), nil)
	for name, token := range bad {
		for _, need := range [][]server.Access{{pull}, nil, {{Repository: "public", Action: server.ActionPull}}} {
			if _, err := ask(g, token, need...); !errors.Is(err, distribution.ErrUnauthorized) {
				t.Errorf("%s, %v: %v", name, need, err)
			}
		}
	}
	for name, c := range map[string]map[string]any{"ended just now": say("exp", now-5), "soon": say("nbf", now+5), "two audiences": say("aud", []string{"x", "service"})} {
		if _, err := ask(g, ec.token(t, c, nil), pull); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTokenAccess: a token allows what it says, and the challenge says what would
// be needed.
func TestTokenAccess(t *testing.T) {
	ed := signers(t)[2]
	g, _ := tokenGuard(t, keySet(t, ed))
	claims := good()
	claims["access"] = []any{
		map[string]any{"type": "repository", "name": "team/app", "actions": []string{"pull", "create"}},
		map[string]any{"type": "repository", "name": "all", "actions": []string{"*"}},
		map[string]any{"type": "registry", "name": "catalog", "actions": []string{"*"}},
		map[string]any{"type": "repository", "name": "team/app/x", "actions": nil},
	}
	token := ed.token(t, claims, nil)
	for _, c := range []struct {
		need       server.Access
		ok, create bool
		scope      string
	}{
		{pull, true, false, ""},
		{server.Access{Repository: "team/app", Action: server.ActionPush}, true, true, ""},
		{server.Access{Repository: "team/app", Action: server.ActionDelete}, false, false, "repository:team/app:delete"},
		{server.Access{Repository: "team/app/x", Action: server.ActionPush}, false, false, "repository:team/app/x:pull,push"},
		{server.Access{Repository: "catalog", Action: server.ActionPull}, false, false, "repository:catalog:pull"},
		{server.Access{Repository: "all", Action: server.ActionDelete}, true, false, ""},
		{server.Access{Action: server.ActionCatalog}, true, false, ""},
		{server.Access{Action: server.ActionMetrics}, false, false, "registry:metrics:*"},
	} {
		grant, err := ask(g, token, c.need)
		if (err == nil) != c.ok || grant.CreateOnly != c.create || err != nil && !errors.Is(err, distribution.ErrUnauthorized) {
			t.Errorf("%v: %+v, %v", c.need, grant, err)
		}
		if c.ok {
			continue
		}
		r := httptest.NewRequest("GET", "/v2/", nil)
		for bearing, problem := range map[string]string{"": "", "Bearer " + token: `,error="insufficient_scope"`, "bearer x": `,error="invalid_token"`} {
			r.Header.Set("Authorization", bearing)
			want := `Bearer realm="https://auth.example.com/token",service="service",scope="` + c.scope + `"` + problem
			if got := g.Challenge(r, []server.Access{c.need}); len(got) != 1 || got[0] != want {
				t.Errorf("%q, want %s", got, want)
			}
		}
	}
	if _, err := ask(g, token); err != nil { // who has a token is somebody
		t.Error(err)
	}
	if _, err := ask(g, "", server.Access{Repository: "public", Action: server.ActionPull}); err != nil {
		t.Error(err)
	}
	r := httptest.NewRequest("POST", "/v2/a/blobs/uploads/?mount=x&from=b", nil)
	if got := g.Challenge(r, []server.Access{{Repository: "a", Action: server.ActionPush}}); !strings.Contains(got[0], `scope="repository:a:pull,push repository:b:pull"`) {
		t.Error(got)
	}
	r = httptest.NewRequest("POST", `/v2/a/blobs/uploads/?mount=x&from=%22,x=%22`, nil)
	if got := g.Challenge(r, []server.Access{{Repository: "a", Action: server.ActionPush}}); !strings.HasSuffix(got[0], `scope="repository:a:pull,push"`) {
		t.Error(got)
	}
}

// New keys count at once, and what the old ones have signed does no more; a file
// that cannot be read changes nothing.
func TestKeysAreReloaded(t *testing.T) {
	all := signers(t)
	g, file := tokenGuard(t, keySet(t, all[1]))
	var log strings.Builder
	g.tokens.log = slog.New(slog.NewTextHandler(&log, nil))
	old, fresh := all[1].token(t, good(), nil), all[2].token(t, good(), nil)
	for i, c := range []struct {
		keys       []byte
		old, fresh bool
	}{{[]byte("rubbish"), true, false}, {keySet(t, all[1], all[2]), true, true}, {keySet(t, all[2]), false, true}} {
		if _, err := ask(g, old, pull); err != nil {
			t.Fatal(i, err)
		}
		if err := os.WriteFile(file, c.keys, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(file, time.Time{}, time.Now().Add(time.Duration(i+1)*time.Minute))
		g.tokens.looked = time.Time{}
		_, oldErr := ask(g, old, pull)
		_, freshErr := ask(g, fresh, pull)
		if (oldErr == nil) != c.old || (freshErr == nil) != c.fresh {
			t.Errorf("%d: %v, %v", i, oldErr, freshErr)
		}
	}
	if strings.Count(log.String(), "not reloaded") != 1 {
		t.Error(log.String())
	}
}

func TestKeyFileMistakes(t *testing.T) {
	secret, _ := json.Marshal(jose.JSONWebKey{Key: signers(t)[2].private})
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	large, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	encode := func(key any) string {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	for text, want := range map[string]string{
		"":                                 "no RSA, P-256 or Ed25519 key",
		`{"keys":[]}`:                      "no RSA, P-256 or Ed25519 key",
		`{"keys":[{"kty":"new"}]}`:         "no RSA, P-256 or Ed25519 key",
		`{"keys":[{"kty":"oct","k":"x"}]}`: "key 1: \"\" is a secret key",
		string(secret):                     "is a secret key",
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`: "key 1:",
		`{"keys":`:               "unexpected end",
		encode(&weak.PublicKey):  "1024 bits",
		encode(&large.PublicKey): "neither an RSA",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})): "PRIVATE KEY is no public key",
	} {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// FuzzToken: no text is a token that counts but what was signed.
func FuzzToken(f *testing.F) {
	ed := signers(f)[2]
	g, _ := tokenGuard(f, keySet(f, ed))
	real := ed.token(f, good(), nil)
	f.Add("x.y.z")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30.")
	f.Add(strings.Replace(real, ".", "..", 1))
	f.Fuzz(func(t *testing.T, text string) {
		// Base64 has several texts for the same bytes, so that others may count; but
		// only for what was signed.
		if grant, err := ask(g, text, pull); err == nil && grant.User != "alice" {
			t.Errorf("%q counts", text)
		}
	})
}

// FuzzClaims: whatever a token says that is signed, it allows nothing that it does
// not name.
func FuzzClaims(f *testing.F) {
	text, _ := json.Marshal(good())
	f.Add(text)
	f.Add([]byte(`{"iss":"issuer","aud":"service","exp":9e18,"access":[{"type":"repository","name":"","actions":["*"]}]}`))
	f.Add([]byte(`{"access":[null,{"actions":[null]}],"aud":{},"exp":"1"}`))
	t := &tokens{opts: Token{Issuer: "issuer", Service: "service"}}
	f.Fuzz(func(test *testing.T, text []byte) {
		c := &claims{}
		if json.Unmarshal(text, c) != nil {
			return
		}
		c.ValidateWithLeeway(jwt.Expected{Issuer: t.opts.Issuer, AnyAudience: jwt.Audience{t.opts.Service}}, 0)
		if c.may("repository", "never/named", "pull") && !strings.Contains(string(text), "never") {
			test.Errorf("%s allows it", text)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(keySet(f, signers(f)...))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
	})
}
