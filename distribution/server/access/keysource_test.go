package access

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// jwks serves a key set, or what else it is told to.
type jwks struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	asked  atomic.Int64
}

func newJWKS(t *testing.T) *jwks {
	j := &jwks{}
	j.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.asked.Add(1)
		(*j.answer.Load())(w, r)
	}))
	t.Cleanup(j.Close)
	j.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	return j
}

func (j *jwks) set(answer http.HandlerFunc) { j.answer.Store(&answer) }

func (j *jwks) serve(keys []byte) {
	j.set(func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
}

func (j *jwks) guard(t *testing.T) *Guard {
	g, err := New(Options{Token: &Token{Realm: "https://auth.example.com/token", Service: "service", Issuer: "issuer", Keys: j.URL + "/jwks.json"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// soon is a source that is asked again at once.
type soon struct{ keySource }

func (soon) again() time.Duration { return 0 }

// TestKeysByURL: keys count as soon as somebody has a token of theirs, also if the
// server was down when the registry began, and stay while it is.
func TestKeysByURL(t *testing.T) {
	all := signers(t)
	old, fresh := all[0].token(t, good(), nil), all[1].token(t, good(), nil)
	j := newJWKS(t)
	g := j.guard(t)
	g.tokens.source = soon{g.tokens.source}
	want := func(what, token string, ok bool) {
		t.Helper()
		if _, err := ask(g, token, pull); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	want("server down", old, false)
	j.serve(keySet(t, all[0]))
	want("server up", old, true)
	want("key not there", fresh, false)
	j.serve(keySet(t, all[0], all[1]))
	want("new key", fresh, true)
	j.set(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	want("known key, server down", fresh, true)
	asked := j.asked.Load()
	for range 10 {
		want("known", old, true)
	}
	if j.asked.Load() != asked {
		t.Error("asked for keys that are known")
	}
	j.serve(keySet(t, all[1]))
	g.tokens.looked = time.Now().Add(-keyURLEvery - time.Second)
	want("key withdrawn", old, false)
	want("other key", fresh, true)
}

// TestKeysAreNotAskedForByEverybody: tokens with invented keys do not make the
// registry ask all the time.
func TestKeysAreNotAskedForByEverybody(t *testing.T) {
	all := signers(t)
	j := newJWKS(t)
	j.serve(keySet(t, all[0]))
	g := j.guard(t)
	g.tokens.looked = time.Now().Add(-2 * keyURLAgain)
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			stranger := all[1]
			stranger.id = "invented"
			if _, err := ask(g, stranger.token(t, good(), nil), pull); err == nil {
				t.Error("counts")
			}
		})
	}
	asking.Wait()
	if n := j.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// TestBadKeyURLs: what is no key set changes nothing, and is not read for ever.
func TestBadKeyURLs(t *testing.T) {
	all := signers(t)
	j := newJWKS(t)
	j.serve(keySet(t, all[0]))
	k, err := newKeyURL(j.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := k.look(); err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	if keys, err := k.look(); err != nil || keys != nil {
		t.Error("the same again:", keys, err)
	}
	for want, answer := range map[string]http.HandlerFunc{
		"404":       http.NotFound,
		"in it":     func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[]}`)) },
		"more than": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxKeyBytes+1)) },
		"redirected": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"http://127": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
	} {
		j.set(answer)
		if keys, err := k.look(); err == nil || keys != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", want, keys, err)
		}
	}
	for url, ok := range map[string]bool{
		"https://a.example/jwks": true, "http://localhost:1/x": true, "http://[::1]/x": true,
		"http://a.example/jwks": false, "ftp://a/b": false, "https://u:p@a/b": false, "https:///b": false, "file:///etc/keys": false,
	} {
		if err := CheckKeysURL(url); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}
