package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// shop is a store with pages before it.
type shop struct {
	*httptest.Server
	objects *fs.Objects
	store   *storage.Store
	seen    chan *server.Observation
}

func open(t *testing.T, guard server.Guard) *shop {
	t.Helper()
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{objects: objects, store: storage.New(objects, storage.Options{}), seen: make(chan *server.Observation, 100)}
	h, err := New(Options{Store: s.store, Guard: guard, Observe: func(o *server.Observation) {
		select {
		case s.seen <- o:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// blob stores content in repo and returns its descriptor.
func (s *shop) blob(t *testing.T, repo, mediaType, content string) ocispec.Descriptor {
	t.Helper()
	d := digest.FromString(content)
	id, err := s.store.StartUpload(t.Context(), repo)
	if err == nil {
		err = s.store.CommitUpload(t.Context(), repo, id, -1, strings.NewReader(content), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// put stores a manifest and returns its descriptor.
func (s *shop) put(t *testing.T, repo string, manifest any, tags ...string) ocispec.Descriptor {
	t.Helper()
	body, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := server.NewManifest("", digest.FromBytes(body), body)
	if err == nil {
		err = s.store.PutManifest(t.Context(), repo, m, tags, false, func() error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(body))}
}

// image stores an image with what a test wants to see again.
func (s *shop) image(t *testing.T, repo string, labels map[string]string, tags ...string) ocispec.Descriptor {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	config, err := json.Marshal(ocispec.Image{
		Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
		Config:  ocispec.ImageConfig{Labels: labels, Env: []string{"A=1", "B=2"}, Entrypoint: []string{"/bin/app", "--x y"}},
		History: []ocispec.History{{CreatedBy: "COPY app"}, {CreatedBy: "ENV", EmptyLayer: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.put(t, repo, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: s.blob(t, repo, ocispec.MediaTypeImageConfig, string(config)),
		Layers:      []ocispec.Descriptor{s.blob(t, repo, ocispec.MediaTypeImageLayerGzip, strings.Repeat("l", 12_000))},
		Annotations: labels,
	}, tags...)
}

func (s *shop) get(t *testing.T, path, user string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, "")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// want looks for texts on a page, or, after "!", that they are not there.
func (s *shop) want(t *testing.T, status int, path, user string, texts ...string) string {
	t.Helper()
	got, body, _ := s.get(t, path, user)
	if got != status {
		t.Errorf("%s: %d, want %d\n%s", path, got, status, body)
	}
	for _, text := range texts {
		absent, no := strings.CutPrefix(text, "!")
		if no && strings.Contains(body, absent) || !no && !strings.Contains(body, text) {
			t.Errorf("%s: want %q in\n%s", path, text, body)
		}
	}
	return body
}

func TestPages(t *testing.T) {
	s := open(t, nil)
	s.want(t, 200, "/ui/", "", "There are no repositories yet")
	image := s.image(t, "team/app", map[string]string{"org.example.x": "a value"}, "v1", "v2")
	image.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 3, Platform: &ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0"}}
	index := s.put(t, "team/app", ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image, absent}}, "all")
	image.Platform = nil
	sbom := s.put(t, "team/app", ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json", Subject: &image,
		Config: s.blob(t, "team/app", ocispec.MediaTypeEmptyJSON, "{}"),
	})
	s.want(t, 200, "/ui/", "", `<a href="/ui/team/app">team/app</a>`)
	s.want(t, 200, "/ui/?q=TEAM", "", "team/app")
	s.want(t, 200, "/ui/?q=none", "", "!/ui/team", "No repository’s name contains “none”")
	s.want(t, 200, "/ui/team/app", "", ">v1</a>", `href="/ui/team/app:v2"`, "12 kB", "linux/arm64/v8", "windows/amd64/10.0", shortDigest(index.Digest))
	s.want(t, 200, "/ui/team/app:all", "", "linux/arm64/v8", `href="/ui/team/app@`+image.Digest.String()+`"`, "(not here)", "!"+`app@`+absent.Digest.String())
	s.want(t, 200, "/ui/team/app:v1", "", "docker pull "+s.Listener.Addr().String()+"/team/app:v1", "2026-01-02 03:04 UTC", "linux/arm64", "12 kB", "COPY app",
		"org.example.x", "a value", "B=2", `[&#34;/bin/app&#34;,&#34;--x y&#34;]`, "application/spdx", sbom.Digest.String())
	s.want(t, 200, "/ui/team/app@"+sbom.Digest.String(), "", "Refers to", "/ui/team/app@"+image.Digest.String(), "artifact")
	for _, path := range []string{"/ui/none", "/ui/team/app:none", "/ui/team/app@sha256:x", "/ui/team/app:..", "/ui/../etc", "/ui/A", "/ui/team/app/", "/ui/-/", "/ui/-/x.css",
		"/ui/?after=%2F..%2F", "/ui/team/app?after=../x", "/ui/team/app@" + absent.Digest.String()} {
		s.want(t, 404, path, "", "nothing here", "!panic")
	}
	status, style, header := s.get(t, "/ui/-/style.css", "")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/css") || !strings.Contains(style, "prefers-color-scheme") {
		t.Error(status, header)
	}
	_, _, header = s.get(t, "/ui/", "")
	for name, want := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if header.Get(name) != want {
			t.Errorf("%s: %s", name, header.Get(name))
		}
	}
	for method, want := range map[string]int{"HEAD": 200, "POST": 405, "DELETE": 405} {
		r, err := http.NewRequest(method, s.URL+"/ui/team/app", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != want {
			t.Error(method, resp, err)
		}
		resp.Body.Close()
	}
}

// guard lets everybody see "public", and each user what is named after him.
type guard struct{}

// Allow implements server.Guard.
func (guard) Allow(r *http.Request, need []server.Access) (server.Grant, error) {
	user, _, _ := r.BasicAuth()
	if user == "mallory" {
		return server.Grant{}, distribution.ErrUnauthorized
	}
	if user == "" && len(need) == 0 {
		return server.Grant{}, distribution.ErrUnauthorized
	}
	for _, n := range need {
		if n.Action != server.ActionPull || n.Repository != "public" && !strings.HasPrefix(n.Repository, user+"/") {
			if user == "" {
				return server.Grant{}, distribution.ErrUnauthorized
			}
			return server.Grant{User: user}, distribution.ErrDenied
		}
	}
	return server.Grant{User: user}, nil
}

// Challenge implements server.Guard.
func (guard) Challenge(*http.Request, []server.Access) []string { return []string{`Basic realm="x"`} }

// TestUsersSeeWhatTheyMayPull: names, tags and manifests of others are not to be
// told from what does not exist.
func TestUsersSeeWhatTheyMayPull(t *testing.T) {
	s := open(t, guard{})
	for _, repo := range []string{"alice/app", "bob/app"} {
		s.image(t, repo, nil, "v1")
	}
	if status, _, header := s.get(t, "/ui/", ""); status != 401 || header.Get("Www-Authenticate") != `Basic realm="x"` {
		t.Error("where nothing is for everybody, nobody is asked who he is:", status)
	}
	s.image(t, "public", nil, "v1")
	s.want(t, 200, "/ui/", "", "public", "!alice", "!bob", "Sign in")
	s.want(t, 200, "/ui/?q=app", "", "!alice", "!bob")
	s.want(t, 200, "/ui/", "alice", "public", "alice/app", "!bob", "!Sign in")
	s.want(t, 200, "/ui/bob/app:v1", "bob", "bob/app")
	theirs := s.want(t, 404, "/ui/bob/app:v1", "alice")
	if none := s.want(t, 404, "/ui/none/app:v1", "alice"); none != theirs {
		t.Errorf("what is another's can be told from what is not there:\n%s\n%s", theirs, none)
	}
	s.want(t, 404, "/ui/bob/app", "alice")
	s.want(t, 401, "/ui/bob/app", "", "Sign in")
	s.want(t, 200, "/ui/public:v1", "", "public")
	s.want(t, 401, "/ui/?sign-in", "", "Sign in")
	s.want(t, 200, "/ui/?sign-in", "alice", "alice/app")
	s.want(t, 401, "/ui/public", "mallory", "Sign in")
	for len(s.seen) > 0 {
		if o := <-s.seen; o.Status == 200 && o.Name == "bob/app" && o.User != "bob" {
			t.Errorf("%+v", o)
		}
	}
}

// TestManyRepositories: all of many are shown, page by page, and those that are
// looked for are found.
func TestManyRepositories(t *testing.T) {
	s := open(t, nil)
	manifest := `{"schemaVersion":2}`
	d := digest.FromString(manifest)
	const repositories, tags = scanNames + 5*pageNames + 7, 3 * pageTags
	put := func(key, value string) {
		if err := s.objects.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range repositories {
		put(fmt.Sprintf("repositories/team%d/app%d/_manifests/sha256-%s", i%100, i, d.Encoded()), ocispec.MediaTypeImageManifest+"\n"+manifest)
	}
	for i := range tags {
		put(fmt.Sprintf("repositories/team1/app1/_tags/t%03d", i), d.String())
	}
	if seen := s.turn(t, "/ui/", `<li><a href="/ui/team`); seen != repositories {
		t.Errorf("%d repositories", seen)
	}
	if seen := s.turn(t, "/ui/team1/app1", `<th scope="row"><a href="/ui/team1/app1:t`); seen != tags {
		t.Errorf("%d tags", seen)
	}
	s.want(t, 200, "/ui/?q=app1499", "", ">team99/app1499<", "!app1498")
	if seen := s.turn(t, "/ui/?q=app1", `<li><a href="/ui/team`); seen != 1+10+100+repositories-1000 {
		t.Errorf("%d with app1", seen)
	}
}

// turn goes from page to page and counts a text.
func (s *shop) turn(t *testing.T, path, text string) (count int) {
	t.Helper()
	for range 1000 {
		status, body, _ := s.get(t, path, "")
		if status != 200 {
			t.Fatalf("%s: %d", path, status)
		}
		count += strings.Count(body, text)
		before, _, more := strings.Cut(body, `" rel="next">`)
		if !more {
			return count
		}
		path = strings.ReplaceAll(before[strings.LastIndex(before, `href="`)+len(`href="`):], "&amp;", "&")
	}
	t.Fatal(errors.New("pages without end"))
	return 0
}

// FuzzPath: any path and query is a page or a refusal, never more.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/ui/", "/ui/a/b:c", "/ui/a@sha256:0", "/ui/%00", "/ui/a?after=%", "/ui/?q=<x>&after=a/b"} {
		f.Add(s)
	}
	objects, err := fs.New(f.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	h, err := New(Options{Store: storage.New(objects, storage.Options{})})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequest(http.MethodGet, "http://x"+path, nil)
		if err != nil || !strings.HasPrefix(r.URL.Path, Root) {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 404 {
			t.Errorf("%d\n%s", w.Code, w.Body)
		}
	})
}
