package access

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

// Token says which bearer tokens count: JSON Web Tokens as a token server of the
// distribution project's "Token Authentication Specification" gives them.
type Token struct {
	Realm   string         // URL of the token server, for clients
	Service string         // our name there, and in a token's audience
	Issuer  string         // the token server's name
	Keys    string         // file or URL of its public keys, see parseKeys; read again when they have changed
	Leeway  time.Duration  // by how much clocks may differ
	RootCAs *x509.CertPool // trusted for Keys in place of the system's
}

// claims are what a token says.
type claims struct {
	jwt.Claims
	Access []struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	} `json:"access"`
}

// tokens verifies tokens.
type tokens struct {
	opts   Token
	log    *slog.Logger
	source keySource

	looking sync.Mutex // held by the one who looks for other keys

	mu     sync.Mutex
	keys   []key
	looked time.Time
	// Proven are tokens whose signature was right, so that not each request has to
	// prove it.
	proven map[[sha256.Size]byte]*claims
}

const maxTokenBytes = 16 << 10

// newTokens fails where a file cannot be read. A token server need not run yet: what
// it has signed is not looked at before.
func newTokens(o Token, log *slog.Logger) (*tokens, error) {
	t := &tokens{opts: o, log: log, proven: map[[sha256.Size]byte]*claims{}}
	var err error
	if t.source, err = newKeySource(o); err != nil {
		return nil, err
	}
	if err = t.look(); err != nil && IsKeysURL(o.Keys) {
		t.log.Error("token keys not loaded", "err", err)
		err = nil
	}
	return t, err
}

// look gets the keys, if they have changed; what was proven by the old ones has to be
// proven again. The caller holds the lock for that, or is alone.
func (t *tokens) look() error {
	t.mu.Lock()
	t.looked = time.Now()
	t.mu.Unlock()
	keys, err := t.source.look()
	if err != nil {
		return fmt.Errorf("read token keys: %w", err)
	}
	if keys != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.keys = keys
		clear(t.proven)
	}
	return nil
}

// refresh looks for other keys, if that was not done lately. What was read before
// stays where they cannot be read.
func (t *tokens) refresh(lately time.Duration) {
	t.mu.Lock()
	due := time.Since(t.looked) > lately
	t.mu.Unlock()
	if !due {
		return
	}
	if err := t.look(); err != nil {
		t.log.Error("token keys not reloaded", "err", err)
	}
}

// current is the keys, and what a token says that was proven by them.
func (t *tokens) current(sum [sha256.Size]byte) (*claims, []key) {
	t.mu.Lock()
	due := time.Since(t.looked) > t.source.every()
	t.mu.Unlock()
	if due && t.looking.TryLock() { // others go on with what there is
		t.refresh(t.source.every())
		t.looking.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.proven[sum], t.keys
}

// prove verifies a token's signature. The key of one that is not known may be a new
// one, which is looked for, but not for each token that somebody invents.
func (t *tokens) prove(text string, sum [sha256.Size]byte) (c *claims, keys []key, err error) {
	c, keys = t.current(sum)
	if c != nil {
		return c, keys, nil
	}
	c, err = parseToken(text, keys)
	if errors.Is(err, errUnknownKey) {
		t.looking.Lock() // who comes while somebody looks waits for what he finds
		t.refresh(t.source.again())
		t.looking.Unlock()
		if c, keys = t.current(sum); c == nil {
			c, err = parseToken(text, keys)
		}
	}
	return c, keys, err
}

// verify returns what a token says, if it counts.
func (t *tokens) verify(text string, now time.Time) (*claims, error) {
	if len(text) > maxTokenBytes {
		return nil, fmt.Errorf("a token of more than %d bytes", maxTokenBytes)
	}
	sum := sha256.Sum256([]byte(text))
	c, keys, err := t.prove(text, sum)
	if err != nil {
		return nil, err
	}
	if c.Expiry == nil {
		return nil, errors.New("the token has no end")
	}
	expected := jwt.Expected{Issuer: t.opts.Issuer, AnyAudience: jwt.Audience{t.opts.Service}, Time: now}
	if err := c.ValidateWithLeeway(expected, t.opts.Leeway); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(keys) > 0 && len(t.keys) > 0 && &keys[0] == &t.keys[0] { // not reloaded since
		if len(t.proven) >= maxProofs {
			clear(t.proven)
		}
		t.proven[sum] = c
	}
	return c, nil
}

// errUnknownKey is of a token with the ID of a key that we do not have.
var errUnknownKey = errors.New("signed by none of our keys")

// parseToken verifies a token's signature by one of our keys, and by nothing else:
// whatever key, certificate or address of keys there is in its header is not
// looked at (CVE-2025-24976).
func parseToken(text string, keys []key) (*claims, error) {
	token, err := jwt.ParseSigned(text, algorithms)
	if err != nil {
		return nil, err
	}
	header := token.Headers[0]
	known := len(keys) > 0 && (header.KeyID == "" || slices.ContainsFunc(keys, func(k key) bool { return k.id == header.KeyID }))
	for _, k := range candidates(keys, header.KeyID) {
		if string(k.algorithm) != header.Algorithm {
			continue
		}
		c := &claims{}
		if err := token.Claims(k.public, c); err == nil {
			return c, nil
		} else if !errors.Is(err, jose.ErrCryptoFailure) {
			return nil, err
		}
	}
	if !known {
		return nil, errUnknownKey
	}
	return nil, errors.New("signed by none of our keys")
}

// candidates are the keys with a token's key ID; if there is none, or it has none,
// those that might be meant.
func candidates(keys []key, id string) (found []key) {
	for _, k := range keys {
		if k.id == id && id != "" {
			found = append(found, k)
		}
	}
	if found != nil {
		return found
	}
	for _, k := range keys {
		if k.id == "" || id == "" {
			found = append(found, k)
		}
	}
	return found
}

// names of what a token can give access to.
const (
	typeRepository = "repository"
	typeRegistry   = "registry" // with the name "catalog" or "metrics"
)

// resource is how a token names what a request needs.
func resource(n server.Access) (kind, name, action string) {
	if n.Repository == "" {
		return typeRegistry, string(n.Action), "*"
	}
	return typeRepository, n.Repository, string(n.Action)
}

func (c *claims) may(kind, name, action string) bool {
	for _, a := range c.Access {
		if a.Type != kind || a.Name != name {
			continue
		}
		for _, allowed := range a.Actions {
			if allowed == action || allowed == "*" {
				return true
			}
		}
	}
	return false
}

// allow checks all of what a request needs against what its token says.
func (t *tokens) allow(text string, need []server.Access) (server.Grant, error) {
	c, err := t.verify(text, time.Now())
	if err != nil {
		return server.Grant{}, fmt.Errorf("%w: %w", errBadToken, err)
	}
	grant := server.Grant{User: c.Subject}
	for _, n := range need {
		kind, name, action := resource(n)
		switch {
		case c.may(kind, name, action):
		case n.Action == server.ActionPush && c.may(kind, name, "create"):
			grant.CreateOnly = true
		default:
			return grant, distribution.ErrUnauthorized // another token may do
		}
	}
	return grant, nil
}

// errBadToken is a token that does not count.
var errBadToken = fmt.Errorf("bad token: %w", distribution.ErrUnauthorized)

// bearer is the token of a request, if it has one.
func bearer(r *http.Request) (string, bool) {
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(text), ok && strings.EqualFold(scheme, "Bearer")
}

// challenge tells a client where to get a token, and for what.
func (t *tokens) challenge(r *http.Request, need []server.Access) string {
	text := fmt.Sprintf(`Bearer realm="%s",service="%s"`, t.opts.Realm, t.opts.Service)
	if scope := scope(r, need); scope != "" {
		text += `,scope="` + scope + `"`
	}
	if token, ok := bearer(r); ok {
		problem := "insufficient_scope"
		if _, err := t.verify(token, time.Now()); err != nil {
			problem = "invalid_token"
		}
		text += `,error="` + problem + `"`
	}
	return text
}

// scope is what a request needs in the words of a token server. Who pushes wants
// to look first what is there; who mounts a blob reads another repository.
func scope(r *http.Request, need []server.Access) string {
	var all []string
	for _, n := range need {
		kind, name, action := resource(n)
		if action == string(server.ActionPush) {
			action = "pull,push"
		}
		all = append(all, kind+":"+name+":"+action)
	}
	if query := r.URL.Query(); len(need) > 0 && query.Has("mount") {
		if from := query.Get("from"); distribution.ValidateName(from) == nil {
			all = append(all, typeRepository+":"+from+":pull")
		}
	}
	return strings.Join(all, " ")
}
