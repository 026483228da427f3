// Package access decides who may do what with a registry of the OCI
// Distribution Spec: users by password file (htpasswd with bcrypt) or client
// certificate, and rules of who may do what in which repositories; and bearer
// tokens, which say it themselves. Implements server.Guard.
package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

// Rule allows some users something in some repositories. What no rule allows is
// refused.
type Rule struct {
	Users        []string // names, "@group", "*" for all who signed in, "anonymous" for all others, too
	Repositories []string // patterns, see Match
	Allow        []string // of Actions
}

// Actions are what a rule can allow. "create" is to push what does not move a
// tag; "push" includes it.
func Actions() []string {
	return []string{"pull", "push", "create", "delete", string(server.ActionCatalog), string(server.ActionMetrics)}
}

// Anonymous is the name in rules of who did not sign in.
const Anonymous = "anonymous"

// Options configure a Guard.
type Options struct {
	Passwords string              // htpasswd file; empty for none. Read again when it has changed.
	Groups    map[string][]string // users of each group
	Rules     []Rule              // none: who signed in may do everything
	Token     *Token              // nil if no tokens count
	Log       *slog.Logger        // gets what is wrong with files that have changed; nil is silence
}

// Guard is a server.Guard.
type Guard struct {
	opts   Options
	tokens *tokens // nil if none count

	mu     sync.Mutex
	users  map[string][]byte // bcrypt hashes
	hashes [][]byte          // the same, in the order of users' names
	stamp  time.Time
	size   int64
	looked time.Time

	// Proofs are passwords that were right: bcrypt takes its time by design, and
	// clients send the password with each request.
	key    [32]byte
	proofs map[[sha256.Size]byte]bool

	comparing chan struct{} // has room for as many as may at a time
}

const (
	lookInterval = time.Second
	maxProofs    = 10_000
	maxUsers     = 100_000
	maxFileBytes = 16 << 20
	// maxCompareWait is how long a password waits for its turn.
	maxCompareWait = 10 * time.Second
)

// New reads the password file.
func New(o Options) (*Guard, error) {
	g := &Guard{opts: o, proofs: map[[sha256.Size]byte]bool{}, comparing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	rand.Read(g.key[:]) // never fails
	if g.opts.Log == nil {
		g.opts.Log = slog.New(slog.DiscardHandler)
	}
	err := g.load()
	if err == nil && o.Token != nil {
		g.tokens, err = newTokens(*o.Token, g.opts.Log)
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// load reads the password file if it has changed. The caller holds the lock, or
// is alone.
func (g *Guard) load() error {
	g.looked = time.Now()
	if g.opts.Passwords == "" {
		return nil
	}
	info, err := os.Stat(g.opts.Passwords)
	if err != nil {
		return fmt.Errorf("read passwords: %w", err)
	}
	if g.users != nil && info.ModTime().Equal(g.stamp) && info.Size() == g.size {
		return nil
	}
	if info.Size() > maxFileBytes {
		return fmt.Errorf("read passwords: %s has more than %d bytes", g.opts.Passwords, maxFileBytes)
	}
	g.stamp, g.size = info.ModTime(), info.Size()
	text, err := os.ReadFile(g.opts.Passwords)
	if err != nil {
		return fmt.Errorf("read passwords: %w", err)
	}
	users, err := ParsePasswords(string(text))
	if err != nil {
		return fmt.Errorf("%s:%w", g.opts.Passwords, err)
	}
	g.users = users
	g.hashes = nil
	for _, user := range slices.Sorted(maps.Keys(users)) {
		g.hashes = append(g.hashes, users[user])
	}
	clear(g.proofs)
	return nil
}

// ParsePasswords reads lines "user:hash", where only bcrypt's hashes are taken
// ("htpasswd -B"). Its errors begin with the line's number.
func ParsePasswords(text string) (map[string][]byte, error) {
	users := map[string][]byte{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" || user == Anonymous || strings.ContainsAny(user, "@*") {
			return nil, fmt.Errorf("%d: want user:hash", number)
		}
		if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > 14 {
			return nil, fmt.Errorf("%d: the password of %q is not hashed with bcrypt of a cost up to 14: use htpasswd -B", number, user)
		}
		users[user] = []byte(hash)
		if len(users) > maxUsers {
			return nil, fmt.Errorf("%d: more than %d users", number, maxUsers)
		}
	}
	return users, nil
}

// nobody's hash is compared with for users that are not there if there are no
// users at all.
const nobody = "$2a$10$7EqJtq98hPqEX7fNZaFWoOhi5GZ0pgRTTHhXRBSHVVE5bJeuYuHq2"

// decoy is the hash to compare with for a user that is not there, always the
// same for a name: it is some user's, and so costs what users' hashes cost, so
// that the time does not tell who is. The caller holds the lock.
func (g *Guard) decoy(user string) []byte {
	if len(g.hashes) == 0 {
		return []byte(nobody)
	}
	sum := g.proof(user, "", nil)
	return g.hashes[binary.BigEndian.Uint64(sum[:])%uint64(len(g.hashes))]
}

// compare is bcrypt's, but only so many at a time: passwords cost processor time
// by design, and anybody may send some. Who waits too long is told to come again.
func (g *Guard) compare(ctx context.Context, hash []byte, password string) error {
	timeout := time.NewTimer(maxCompareWait)
	defer timeout.Stop()
	select {
	case g.comparing <- struct{}{}:
		defer func() { <-g.comparing }()
		return bcrypt.CompareHashAndPassword(hash, []byte(password))
	case <-timeout.C:
		return distribution.ErrTooManyRequests
	case <-ctx.Done():
		return distribution.ErrTooManyRequests
	}
}

// authenticate says who the client is: "" if it does not say.
func (g *Guard) authenticate(r *http.Request) (user string, err error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if name := r.TLS.VerifiedChains[0][0].Subject.CommonName; name != "" {
			return name, nil
		}
	}
	user, password, ok := r.BasicAuth()
	if ok && user == "" && password == "" {
		return "", nil // what podman and skopeo say who have no password
	}
	if !ok || g.opts.Passwords == "" {
		if r.Header.Get("Authorization") != "" {
			return "", distribution.ErrUnauthorized
		}
		return "", nil
	}
	g.mu.Lock()
	if time.Since(g.looked) > lookInterval {
		if err := g.load(); err != nil { // what was read before stays
			g.opts.Log.Error("passwords not reloaded", "err", err)
		}
	}
	hash, known := g.users[user]
	proof := g.proof(user, password, hash)
	proven := known && g.proofs[proof]
	if !known {
		hash = g.decoy(user)
	}
	g.mu.Unlock()
	if proven {
		return user, nil
	}
	switch err := g.compare(r.Context(), hash, password); {
	case errors.Is(err, distribution.ErrTooManyRequests):
		return "", err
	case err != nil || !known:
		return "", distribution.ErrUnauthorized
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.proofs) >= maxProofs {
		clear(g.proofs)
	}
	g.proofs[proof] = true
	return user, nil
}

func (g *Guard) proof(user, password string, hash []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, g.key[:])
	fmt.Fprintf(h, "%q %q %q", user, password, hash)
	h.Sum(sum[:0])
	return sum
}

// Allow implements server.Guard.
func (g *Guard) Allow(r *http.Request, need []server.Access) (server.Grant, error) {
	if token, ok := bearer(r); ok && g.tokens != nil {
		return g.tokens.allow(token, need)
	}
	user, err := g.authenticate(r)
	if err != nil {
		return server.Grant{}, err
	}
	grant := server.Grant{User: user}
	if user == "" && len(need) == 0 {
		// Clients ask "/v2/" whether they have to sign in. Were the answer no, they
		// would never do so, also where they have to.
		return grant, distribution.ErrUnauthorized
	}
	for _, n := range need {
		switch {
		case g.may(user, string(n.Action), n.Repository):
		case n.Action == server.ActionPush && g.may(user, "create", n.Repository):
			grant.CreateOnly = true
		case user == "":
			return grant, distribution.ErrUnauthorized
		default:
			return grant, distribution.ErrDenied
		}
	}
	return grant, nil
}

func (g *Guard) may(user, action, repository string) bool {
	if len(g.opts.Rules) == 0 {
		return user != ""
	}
	return slices.ContainsFunc(g.opts.Rules, func(rule Rule) bool {
		return slices.Contains(rule.Allow, action) && g.covers(rule, user) &&
			(repository == "" || slices.ContainsFunc(rule.Repositories, func(p string) bool { return Match(p, repository) }))
	})
}

func (g *Guard) covers(rule Rule, user string) bool {
	return slices.ContainsFunc(rule.Users, func(who string) bool {
		group, isGroup := strings.CutPrefix(who, "@")
		switch {
		case who == Anonymous:
			return true
		case user == "":
			return false
		case who == "*":
			return true
		case isGroup:
			return slices.Contains(g.opts.Groups[group], user)
		}
		return who == user
	})
}

// Challenge implements server.Guard.
func (g *Guard) Challenge(r *http.Request, need []server.Access) (challenges []string) {
	if g.tokens != nil {
		challenges = append(challenges, g.tokens.challenge(r, need))
	}
	if g.tokens == nil || g.opts.Passwords != "" {
		challenges = append(challenges, `Basic realm="registry", charset="UTF-8"`)
	}
	return challenges
}

// Check finds what is wrong with rules.
func Check(rules []Rule, groups map[string][]string) error {
	for i, rule := range rules {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("access rule %d: "+format, append([]any{i + 1}, args...)...)
		}
		if len(rule.Users) == 0 || len(rule.Allow) == 0 {
			return fail("needs users and allow")
		}
		for _, who := range rule.Users {
			if group, ok := strings.CutPrefix(who, "@"); ok && groups[group] == nil {
				return fail("there is no group %q", group)
			}
		}
		for _, action := range rule.Allow {
			if !slices.Contains(Actions(), action) {
				return fail("%q is none of %s", action, strings.Join(Actions(), ", "))
			}
		}
		for _, pattern := range rule.Repositories {
			if !ValidPattern(pattern) {
				return fail("bad pattern %q", pattern)
			}
		}
	}
	return nil
}
