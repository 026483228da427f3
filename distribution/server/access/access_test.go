package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

func line(t *testing.T, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

func newGuard(t *testing.T, rules ...Rule) (*Guard, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# people\n\n"+line(t, "alice", "a")+line(t, "bob", "b")+line(t, "ci", "c")), 0o600); err != nil {
		t.Fatal(err)
	}
	groups := map[string][]string{"dev": {"alice"}}
	if err := Check(rules, groups); err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{Passwords: file, Groups: groups, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return g, file
}

func allow(g *Guard, user, password string, action server.Action, repo string) (server.Grant, error) {
	r := httptest.NewRequest("GET", "/v2/", nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	if action == "" {
		return g.Allow(r, nil)
	}
	return g.Allow(r, []server.Access{{Repository: repo, Action: action}})
}

func TestRules(t *testing.T) {
	g, _ := newGuard(t,
		Rule{[]string{Anonymous}, []string{"public/**"}, []string{"pull"}},
		Rule{[]string{"@dev"}, []string{"team/*"}, []string{"pull", "push", "delete", "catalog"}},
		Rule{[]string{"ci"}, []string{"**"}, []string{"pull", "create"}},
		Rule{[]string{"*"}, []string{"shared"}, []string{"pull"}},
	)
	for _, c := range []struct {
		user, password string
		action         server.Action
		repo           string
		want           error
		createOnly     bool
	}{
		{"", "", server.ActionPull, "public/a/b", nil, false},
		{"", "", server.ActionPush, "public/a/b", distribution.ErrUnauthorized, false},
		{"", "", server.ActionPull, "team/a", distribution.ErrUnauthorized, false},
		{"", "", server.ActionPull, "shared", distribution.ErrUnauthorized, false},
		{"", "", server.ActionCatalog, "", distribution.ErrUnauthorized, false},
		{"alice", "a", server.ActionPull, "public/x", nil, false},
		{"alice", "a", server.ActionPush, "team/a", nil, false},
		{"alice", "a", server.ActionDelete, "team/a", nil, false},
		{"alice", "a", server.ActionCatalog, "", nil, false},
		{"alice", "a", server.ActionPush, "team/a/b", distribution.ErrDenied, false},
		{"alice", "a", server.ActionPush, "teamx", distribution.ErrDenied, false},
		{"alice", "wrong", server.ActionPull, "team/a", distribution.ErrUnauthorized, false},
		{"alice", "wrong", server.ActionPull, "public/x", distribution.ErrUnauthorized, false},
		{"mallory", "a", server.ActionPull, "public/x", distribution.ErrUnauthorized, false},
		{"bob", "b", server.ActionPull, "shared", nil, false},
		{"bob", "b", server.ActionPull, "team/a", distribution.ErrDenied, false},
		{"ci", "c", server.ActionPush, "team/a", nil, true},
		{"ci", "c", server.ActionDelete, "team/a", distribution.ErrDenied, false},
		{"bob", "b", "", "", nil, false},
		{"bob", "wrong", "", "", distribution.ErrUnauthorized, false},
	} {
		for range 2 { // the second time from memory
			grant, err := allow(g, c.user, c.password, c.action, c.repo)
			if !errors.Is(err, c.want) || err == nil && (grant.User != c.user || grant.CreateOnly != c.createOnly) {
				t.Errorf("%s %s %s: %+v, %v", c.user, c.action, c.repo, grant, err)
			}
		}
	}
}

// podman and skopeo send an empty name and password where they have none.
func TestEmptyPassword(t *testing.T) {
	g, _ := newGuard(t, Rule{[]string{Anonymous}, []string{"public"}, []string{"pull"}})
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.SetBasicAuth("", "")
	for repo, want := range map[string]error{"public": nil, "private": distribution.ErrUnauthorized} {
		if grant, err := g.Allow(r, []server.Access{{Repository: repo, Action: server.ActionPull}}); !errors.Is(err, want) || grant.User != "" {
			t.Error(repo, grant, err)
		}
	}
	if _, err := g.Allow(r, nil); !errors.Is(err, distribution.ErrUnauthorized) {
		t.Error(err)
	}
	r.SetBasicAuth("", "x")
	if _, err := g.Allow(r, []server.Access{{Repository: "public", Action: server.ActionPull}}); !errors.Is(err, distribution.ErrUnauthorized) {
		t.Error(err)
	}
}

func TestWithoutRules(t *testing.T) {
	g, _ := newGuard(t)
	if _, err := allow(g, "bob", "b", server.ActionDelete, "any/thing"); err != nil {
		t.Error(err)
	}
	for _, action := range []server.Action{"", server.ActionPull} {
		if _, err := allow(g, "", "", action, "any"); !errors.Is(err, distribution.ErrUnauthorized) {
			t.Error(action, err)
		}
	}
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Header.Set("Authorization", "Bearer x")
	if _, err := g.Allow(r, nil); !errors.Is(err, distribution.ErrUnauthorized) {
		t.Error(err)
	}
	r = httptest.NewRequest("GET", "/v2/", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "robot"}}}}}
	if grant, err := g.Allow(r, nil); err != nil || grant.User != "robot" {
		t.Error(grant, err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "robot"}}}}
	if _, err := g.Allow(r, nil); !errors.Is(err, distribution.ErrUnauthorized) {
		t.Error("a certificate that nobody verified counts")
	}
}

// A changed file counts, also for who was let in before; a bad one does not.
func TestPasswordsAreReloaded(t *testing.T) {
	g, file := newGuard(t)
	if _, err := allow(g, "bob", "b", "", ""); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		text string
		want error
	}{{"rubbish", nil}, {line(t, "bob", "new"), distribution.ErrUnauthorized}} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(file, time.Time{}, time.Now().Add(time.Duration(i+1)*time.Minute))
		g.looked = time.Time{}
		if _, err := allow(g, "bob", "b", "", ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

func TestPasswordFileMistakes(t *testing.T) {
	good := line(t, "x", "y")
	for text, want := range map[string]string{
		good + "nothing":                               "2: want user:hash",
		"x:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=":          "1: the password of \"x\"",
		"x:$apr1$a$b":                                  "htpasswd -B",
		"anonymous:" + strings.SplitN(good, ":", 2)[1]: "1: want",
		"@dev:" + strings.SplitN(good, ":", 2)[1]:      "1: want",
		"x:" + strings.Replace(strings.SplitN(good, ":", 2)[1], "$04$", "$31$", 1): "cost",
	} {
		if _, err := ParsePasswords(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, rule := range []Rule{
		{nil, nil, []string{"pull"}}, {[]string{"@none"}, nil, []string{"pull"}}, {[]string{"x"}, nil, []string{"fly"}},
		{[]string{"x"}, []string{"*a*b*c*d*e"}, []string{"pull"}}, {[]string{"x"}, []string{""}, []string{"pull"}},
	} {
		if Check([]Rule{rule}, nil) == nil {
			t.Errorf("took %+v", rule)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "a", true}, {"*", "a/b", false}, {"**", "a/b", true}, {"**", "", true},
		{"a/*", "a/b", true}, {"a/*", "a/b/c", false}, {"a/**", "a/b/c", true}, {"a/**", "a", false}, {"a/**", "ab/c", false},
		{"*/b", "a/b", true}, {"**/b", "x/y/b", true}, {"v*", "v1.2", true}, {"v*", "xv1", false}, {"v*-rc*", "v1-rc2", true},
		{"*a*b", "xaybzb", true}, {"**a*b", "x/y/azb", true}, {"**a*b", "x/a/b", false},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
}

// Who is not there costs as much as who is: some user's hash is compared with,
// the same each time. No more passwords are compared at a time than may be.
func TestDecoyAndTurns(t *testing.T) {
	g, _ := newGuard(t)
	for _, user := range []string{"mallory", "eve"} {
		hash := string(g.decoy(user))
		if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost != bcrypt.MinCost || hash != string(g.decoy(user)) {
			t.Error(user, hash, err)
		}
	}
	for range cap(g.comparing) {
		g.comparing <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/v2/", nil)
	r.SetBasicAuth("bob", "b")
	if _, err := g.Allow(r, nil); !errors.Is(err, distribution.ErrTooManyRequests) {
		t.Error(err)
	}
	<-g.comparing
	if _, err := allow(g, "bob", "b", "", ""); err != nil {
		t.Error(err)
	}
	g.comparing <- struct{}{}
	if _, err := allow(g, "bob", "b", "", ""); err != nil { // who has proven himself waits for nobody
		t.Error(err)
	}
}

// No name that a client can think of keeps Match busy.
func TestMatchIsQuick(t *testing.T) {
	start := time.Now()
	if Match("**a**a**a**b", strings.Repeat("a", 255)) || Match("*a*a*a*b", strings.Repeat("a", 255)) {
		t.Error("matches")
	}
	if took := time.Since(start); took > time.Second/10 {
		t.Error(took)
	}
}

func FuzzParsePasswords(f *testing.F) {
	f.Add("a:$2y$05$abcdefghijklmnopqrstuv")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := ParsePasswords(text)
		if err == nil && users[Anonymous] != nil {
			t.Error("a user has the name of nobody")
		}
	})
}
