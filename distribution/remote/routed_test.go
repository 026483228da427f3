package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/registries"
)

// routedTo has images of registry.example at the mirrors first.
func routedTo(t *testing.T, location string, mirrors ...string) Routed {
	t.Helper()
	text := fmt.Sprintf("[[registry]]\nprefix=\"registry.example\"\nlocation=%q\n", location)
	for _, m := range mirrors {
		text += fmt.Sprintf("[[registry.mirror]]\nlocation=%q\ninsecure=true\n", m)
	}
	file := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := registries.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	opts := quick()
	opts.MaxAttempts = 2
	r := NewRouted(opts, config)
	t.Cleanup(r.Close)
	return r
}

var example = distribution.Repository{Host: "registry.example", Name: "a/b"}

func TestMirrors(t *testing.T) {
	content, desc := blob(3 << 20)
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/a/b/manifests/x" {
			manifestOK(w, r)
			return
		}
		serveRange(content)(w, r)
	}
	good := newFaulty(t, serve)
	for name, mirror := range map[string]http.HandlerFunc{
		"has it":        serve,
		"has it not":    step(404, ""),
		"is down":       step(503, ""),
		"lies":          step(200, "<html>", "Content-Type: text/html"),
		"ends half way": func(w http.ResponseWriter, r *http.Request) { serve(&cutWriter{w, 1 << 20}, r) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, mirror)
			r := routedTo(t, good.repo.Host, f.repo.Host, "127.0.0.1:1")
			got, _, err := r.Resolve(t.Context(), distribution.Reference{Repository: example, Tag: "x"})
			if err != nil || got.Digest != digest.FromString(manifestBody) {
				t.Error(got, err)
			}
			b, err := r.Blob(t.Context(), example, desc, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if data, err := io.ReadAll(b); err != nil || !bytes.Equal(data, content) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
			if len(f.requests()) == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
	// Nobody has it: what the registry itself says counts.
	none := newFaulty(t, step(404, ""))
	_, _, err := routedTo(t, none.repo.Host, none.repo.Host).Resolve(t.Context(), distribution.Reference{Repository: example, Tag: "x"})
	wantErr(t, err, distribution.ErrNotFound)
	_, err = routedTo(t, none.repo.Host, none.repo.Host).Blob(t.Context(), example, desc, 0)
	wantErr(t, err, distribution.ErrNotFound)
}

// Writes go to the registry's location and to no mirror.
func TestWritesGoToTheLocation(t *testing.T) {
	content, desc := blob(1 << 20)
	u := &uploads{}
	f, mirror := newFaulty(t, u.ServeHTTP), newFaulty(t, step(500, ""))
	r := routedTo(t, f.repo.Host, mirror.repo.Host)
	if err := r.PushBlob(t.Context(), example, desc, opener(content)); err != nil || !u.done {
		t.Error(err)
	}
	mirror.wantRequests(t, 0)
}

func TestBlocked(t *testing.T) {
	r := Routed{Client: newClient(t, quick()), Config: &registries.Config{Registries: []registries.Registry{{Prefix: "registry.example", Blocked: true}}}}
	_, _, err := r.Resolve(t.Context(), distribution.Reference{Repository: example, Tag: "x"})
	wantErr(t, err, registries.ErrBlocked)
	_, err = r.Tags(t.Context(), example)
	wantErr(t, err, registries.ErrBlocked)
}

// What is called insecure is spoken to without TLS where it has none, and with
// any certificate where it has.
func TestInsecure(t *testing.T) {
	f := newFaulty(t, manifestOK)
	c := New(Options{Insecure: func(host string) bool { return host == "plain.example" }, RetryWait: time.Millisecond})
	if !c.tryPlain("plain.example") || c.tryPlain("other.example") || !c.fallBack("plain.example", io.EOF) || c.scheme("plain.example") != "http" {
		t.Error("plain HTTP")
	}
	if config, err := c.opts.hostTLS("plain.example"); err != nil || !config.InsecureSkipVerify {
		t.Error(config, err)
	}
	if config, err := c.opts.hostTLS("other.example"); err != nil || config != nil {
		t.Error(config, err)
	}
	if _, _, err := c.Resolve(t.Context(), f.ref("x")); err != nil {
		t.Error(err)
	}
	c = New(Options{HostTLS: CertDirs{"/dev/null"}.TLS})
	if _, _, err := c.Resolve(t.Context(), f.ref("x")); err == nil || errors.Is(err, distribution.ErrNotFound) {
		t.Error(err)
	}
}

// everywhere is a credential for whoever asks.
type everywhere auth.Credential

func (e everywhere) Credential(context.Context, distribution.Repository) (auth.Credential, error) {
	return auth.Credential(e), nil
}

// A mirror that asks who we are is not told what is for the registry, unless it
// is on the same host.
func TestMirrorsAreNotToldTheRegistrysCredentials(t *testing.T) {
	guarded := func(user string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if got, _, ok := r.BasicAuth(); ok && got == user {
				manifestOK(w, r)
				return
			}
			step(401, "", `Www-Authenticate: Basic realm="x"`)(w, r)
		}
	}
	registry, mirror := newFaulty(t, guarded("me")), newFaulty(t, guarded("mirror"))
	config := func(mirrors ...string) *registries.Config {
		rule := registries.Registry{Prefix: "registry.example", Location: registry.repo.Host}
		for _, m := range mirrors {
			rule.Mirrors = append(rule.Mirrors, registries.Mirror{Location: m})
		}
		return &registries.Config{Registries: []registries.Registry{rule}}
	}
	for _, c := range []struct {
		user      string // of the mirror
		mirror    string
		atMirror  int
		withBasic int
	}{
		{"", mirror.repo.Host, 1, 0},
		{"mirror", mirror.repo.Host, 2, 1},
		{"", registry.repo.Host, 0, 0},
	} {
		opts := quick()
		opts.Credentials = everywhere{Username: "me", Password: "secret"}
		opts.MirrorCredentials = static(mirror.repo, c.user, "other")
		r := NewRouted(opts, config(c.mirror))
		before := len(mirror.requests())
		if _, _, err := r.Resolve(t.Context(), distribution.Reference{Repository: example, Tag: "x"}); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		r.Close()
		asked, basic := mirror.requests()[before:], 0
		for _, request := range asked {
			if user, _, ok := request.BasicAuth(); ok {
				basic++
				if user != "mirror" {
					t.Errorf("%+v: the mirror was told of %q", c, user)
				}
			}
		}
		if len(asked) != c.atMirror || basic != c.withBasic {
			t.Errorf("%+v: %d requests, %d with a password", c, len(asked), basic)
		}
	}
}
