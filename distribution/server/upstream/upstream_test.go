package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// origin is a registry in a few lines, which counts, waits, breaks and lies as it
// is told to.
type origin struct {
	*httptest.Server
	mu       sync.Mutex
	things   map[string]string // path → content
	requests map[string]int    // "METHOD path" → how often
	// before is called for each request; false says that it has answered.
	before func(w http.ResponseWriter, r *http.Request) bool
	// piece is called between the pieces of a body; false breaks the connection.
	piece func(path string, sent int) bool
}

const pieceBytes = 64 << 10

func newOrigin(t *testing.T) *origin {
	o := &origin{things: map[string]string{}, requests: map[string]int{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.requests[r.Method+" "+r.URL.Path]++
	content, ok := o.things[r.URL.Path]
	before, piece := o.before, o.piece
	o.mu.Unlock()
	if before != nil && !before(w, r) {
		return
	}
	if !ok {
		http.Error(w, "", http.StatusNotFound)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromString(content).String())
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method == http.MethodHead {
		return
	}
	for sent := 0; sent < len(content); sent += pieceBytes {
		if piece != nil && !piece(r.URL.Path, sent) {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, content[sent:min(sent+pieceBytes, len(content))])
		w.(http.Flusher).Flush()
	}
}

func (o *origin) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *origin) count(request string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests[request]
}

// blob makes the origin have a blob, and returns its digest.
func (o *origin) blob(repo, content string) digest.Digest {
	d := digest.FromString(content)
	o.set(func() { o.things["/v2/"+repo+"/blobs/"+d.String()] = content })
	return d
}

func (o *origin) manifest(repo, tag, content string) digest.Digest {
	d := digest.FromString(content)
	o.set(func() {
		o.things["/v2/"+repo+"/manifests/"+tag] = content
		o.things["/v2/"+repo+"/manifests/"+d.String()] = content
	})
	return d
}

// mirror is our registry before others.
type mirror struct {
	*httptest.Server
	set   *Set
	store *storage.Store
	dir   string
}

func newMirror(t *testing.T, sources ...Source) *mirror {
	t.Helper()
	m := &mirror{dir: t.TempDir()}
	m.open(t, m.dir, sources...)
	return m
}

func (m *mirror) open(t *testing.T, dir string, sources ...Source) {
	t.Helper()
	objects, err := fs.New(dir, fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // when it is closed
		if left, err := os.ReadDir(dir + "/streams"); err != nil || len(left) > 0 {
			t.Errorf("uploads left open: %v %v", left, err)
		}
	})
	m.openOn(t, objects, sources...)
}

func (m *mirror) openOn(t *testing.T, objects storage.Objects, sources ...Source) {
	t.Helper()
	m.store = storage.New(objects, storage.Options{Grace: time.Hour})
	spool, err := t.TempDir(), error(nil)
	if m.set, err = New(m.store, Options{Sources: sources, SpoolDir: spool}); err != nil {
		t.Fatal(err)
	}
	m.Server = httptest.NewServer(server.New(m.store, server.Options{Upstream: m.set}))
	t.Cleanup(func() {
		m.Close()
		m.set.Close()
		if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
			t.Errorf("left in the spool: %v %v", left, err)
		}
	})
}

// answer is one of the mirror's.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // in the middle of the body
}

func (m *mirror) do(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, m.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

func (m *mirror) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	return m.do(t, http.MethodGet, path, "", header...)
}

func (m *mirror) want(t testing.TB, status int, body, path string, header ...string) answer {
	t.Helper()
	a := m.get(t, path, header...)
	if a.status != status || a.err != nil || body != "" && a.body != body {
		t.Errorf("%s: %d, %d bytes, %v; want %d, %d bytes\n%.200s", path, a.status, len(a.body), a.err, status, len(body), a.body)
	}
	return a
}

func random(size int) string {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte([]byte(strconv.Itoa(size+1e9) + strings.Repeat(" ", 32))[:32])).Read(b)
	return string(b)
}

// TestManyAskForOneBlob: one request goes out, everybody gets the bytes, from any
// place on, at his own pace, and those who go away harm nobody.
func TestManyAskForOneBlob(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour})
	content := random(20*pieceBytes + 77)
	path := "/blobs/" + o.blob("app", content).String()
	half := make(chan struct{})
	o.set(func() {
		o.piece = func(_ string, sent int) bool {
			if sent == 10*pieceBytes {
				<-half
			}
			return true
		}
	})
	// One begins, gets what there is while the rest is not there, and goes away.
	resp, err := http.Get(m.URL + "/v2/hub/app" + path)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 10*pieceBytes)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != content[:len(first)] {
		t.Fatal("the bytes do not come while they come")
	}
	resp.Body.Close()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if i%10 == 0 {
				a := m.want(t, 206, content[i*1000:], "/v2/hub/app"+path, "Range", fmt.Sprintf("bytes=%d-", i*1000))
				if want := fmt.Sprintf("bytes %d-%d/%d", i*1000, len(content)-1, len(content)); a.header.Get("Content-Range") != want {
					t.Error(a.header)
				}
				return
			}
			m.want(t, 200, content, "/v2/hub/app"+path)
		})
	}
	time.Sleep(100 * time.Millisecond)
	close(half)
	all.Wait()
	if n := o.count("GET /v2/app" + path); n != 1 {
		t.Errorf("%d requests went out", n)
	}
	m.want(t, 200, content, "/v2/hub/app"+path)
	if a := m.do(t, http.MethodHead, "/v2/hub/app"+path, ""); a.status != 200 || a.header.Get("Content-Length") != strconv.Itoa(len(content)) {
		t.Error(a)
	}
	if n := o.count("GET /v2/app" + path); n != 1 {
		t.Errorf("%d requests went out for what is here", n)
	}
}

// TestBrokenAndLying: what is not what its digest says is never whole to a client
// and never kept; a broken connection goes on where it was.
func TestBrokenAndLying(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour})
	content := random(5 * pieceBytes)
	path := "/blobs/" + o.blob("app", content).String()
	var broken atomic.Int32
	o.set(func() {
		o.piece = func(_ string, sent int) bool { return sent < 3*pieceBytes || broken.Add(1) > 1 }
	})
	m.want(t, 200, content, "/v2/hub/app"+path)

	// It dies for good in the middle.
	dead := random(6 * pieceBytes)
	deadPath := "/blobs/" + o.blob("app", dead).String()
	o.set(func() { o.piece = func(_ string, sent int) bool { return sent < 3*pieceBytes } })
	if a := m.get(t, "/v2/hub/app"+deadPath); a.status != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) || !strings.HasPrefix(dead, a.body) {
		t.Errorf("%d %d bytes %v", a.status, len(a.body), a.err)
	}
	o.set(func() { o.piece = nil })
	m.want(t, 200, dead, "/v2/hub/app"+deadPath)

	// It sends something else under the digest.
	for _, lie := range []string{random(100), random(3 * pieceBytes), ""} {
		d := digest.FromString("not " + lie)
		o.set(func() { o.things["/v2/app/blobs/"+d.String()] = lie })
		a := m.get(t, "/v2/hub/app/blobs/"+d.String())
		if a.err == nil && a.status == 200 {
			t.Errorf("%d wrong bytes were served as if they were right", len(a.body))
		}
		if there, err := m.store.HasData(t.Context(), d); there || err != nil {
			t.Errorf("kept: %v", err)
		}
		o.set(func() {
			o.things["/v2/app/manifests/"+d.String()] = `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`
		})
		m.want(t, 502, "", "/v2/hub/app/manifests/"+d.String())
	}
	m.want(t, 404, "", "/v2/hub/app/blobs/"+digest.FromString("none").String())
	m.want(t, 404, "", "/v2/hub/app/manifests/none")
	m.want(t, 404, "", "/v2/hub/none/tags/list")
}

// TestTags: a tag is looked at when it is old, by HEAD, and what is here is served
// when nobody answers; what was taken away there is gone here.
func TestTags(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL + "/deep", Fresh: 0}, Source{Prefix: "slow", URL: o.URL, Fresh: time.Hour})
	one := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`
	two := one + " "
	o.manifest("deep/app", "v1", one)
	o.manifest("app", "v1", one)
	for range 3 {
		m.want(t, 200, one, "/v2/hub/app/manifests/v1")
		m.want(t, 200, one, "/v2/slow/app/manifests/v1")
	}
	if get, head := o.count("GET /v2/deep/app/manifests/v1"), o.count("HEAD /v2/deep/app/manifests/v1"); get != 1 || head != 2 {
		t.Errorf("%d GET, %d HEAD", get, head)
	}
	if get, head := o.count("GET /v2/app/manifests/v1"), o.count("HEAD /v2/app/manifests/v1"); get != 1 || head != 0 {
		t.Errorf("%d GET, %d HEAD of a tag that is fresh", get, head)
	}
	d := o.manifest("deep/app", "v1", two)
	m.want(t, 200, two, "/v2/hub/app/manifests/v1")
	m.want(t, 200, one, "/v2/hub/app/manifests/"+digest.FromString(one).String())
	m.want(t, 200, two, "/v2/hub/app/manifests/"+d.String())
	if n := o.count("HEAD /v2/deep/app/manifests/" + d.String()); n != 0 {
		t.Error("a digest was looked at again")
	}

	o.set(func() { o.things["/v2/deep/app/tags/list"] = `{"tags":["v1","v3","v2"]}` })
	m.want(t, 200, `{"name":"hub/app","tags":["v1","v2","v3"]}`, "/v2/hub/app/tags/list")
	a := m.want(t, 200, `{"name":"hub/app","tags":["v2"]}`, "/v2/hub/app/tags/list?n=1&last=v1")
	if a.header.Get("Link") != `</v2/hub/app/tags/list?last=v2&n=1>; rel="next"` {
		t.Error(a.header)
	}

	// Down, in several ways: the same answers, with a warning.
	for _, status := range []int{503, 429, 500} {
		o.set(func() {
			o.before = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(status); return false }
		})
		m.set.of("hub/app").rest, m.set.lists = time.Time{}, lists{}
		a := m.want(t, 200, two, "/v2/hub/app/manifests/v1")
		if !strings.HasPrefix(a.header.Get("Warning"), `299 - "`) {
			t.Errorf("%d: no warning: %v", status, a.header)
		}
		a = m.want(t, 200, `{"name":"hub/app","tags":["v1"]}`, "/v2/hub/app/tags/list")
		if a.header.Get("Warning") == "" {
			t.Errorf("%d: no warning: %v", status, a.header)
		}
		m.want(t, 200, "", "/v2/hub/app/referrers/"+d.String())
	}
	m.want(t, 502, "", "/v2/hub/app/manifests/absent")
	before := o.count("HEAD /v2/deep/app/manifests/v1")
	m.want(t, 200, two, "/v2/hub/app/manifests/v1")
	if o.count("HEAD /v2/deep/app/manifests/v1") != before {
		t.Error("who has just failed is asked again")
	}
	// It says where the tag leads, and has nothing there.
	m.set.of("hub/app").rest = time.Time{}
	o.set(func() {
		o.before = nil
		o.things["/v2/deep/app/manifests/v1"] = two + " "
	})
	if a := m.want(t, 200, two, "/v2/hub/app/manifests/v1"); a.header.Get("Warning") == "" {
		t.Error(a.header)
	}
	o.manifest("deep/app", "v1", two)
	// It refuses us: nothing of what it said before counts, and nobody is asked
	// for a password.
	m.set.of("hub/app").rest = time.Time{}
	o.set(func() {
		o.before = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return false
		}
	})
	if a := m.want(t, 404, "", "/v2/hub/app/manifests/v1"); a.header.Get("Www-Authenticate") != "" {
		t.Error(a.header)
	}
	o.set(func() { o.before = nil })
	m.want(t, 200, two, "/v2/hub/app/manifests/v1")
	o.set(func() { delete(o.things, "/v2/deep/app/manifests/v1") })
	m.want(t, 404, "", "/v2/hub/app/manifests/v1")
	o.set(func() {
		o.before = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return false }
	})
	m.want(t, 502, "", "/v2/hub/app/manifests/v1") // and does not come back
}

// TestNothingLeaks: a repository has only what its own upstream repository has,
// whatever is in the store for others (CVE-2026-35172).
func TestNothingLeaks(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour}, Source{Prefix: "other", URL: o.URL + "/other", Fresh: time.Hour})
	secret := random(3 * pieceBytes)
	d := o.blob("private", secret)
	m.want(t, 200, secret, "/v2/hub/private/blobs/"+d.String())
	m.want(t, 404, "", "/v2/hub/public/blobs/"+d.String())
	m.want(t, 404, "", "/v2/local/blobs/"+d.String())

	// The same blob in another repository is asked for, and not fetched again.
	o.blob("public", secret)
	m.want(t, 200, secret, "/v2/hub/public/blobs/"+d.String())
	if n := o.count("GET /v2/public/blobs/" + d.String()); n != 0 {
		t.Errorf("fetched %d times", n)
	}

	// Who says that he has what was pushed here has to show it.
	pushed := "pushed here, and for no other's eyes"
	p := digest.FromString(pushed)
	if a := m.do(t, http.MethodPost, "/v2/local/blobs/uploads/?digest="+p.String(), pushed); a.status != 201 {
		t.Fatal(a)
	}
	o.set(func() { o.things["/v2/public/blobs/"+p.String()] = strings.Repeat("?", len(pushed)) })
	if a := m.get(t, "/v2/hub/public/blobs/"+p.String()); strings.Contains(a.body, "pushed") || a.status == 200 && a.err == nil {
		t.Errorf("a claim opened what was pushed here: %+v", a)
	}
	if _, err := m.store.StatBlob(t.Context(), "hub/public", p); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	// Removed here, and refused there: gone.
	o.set(func() { delete(o.things, "/v2/private/blobs/"+d.String()) })
	if a := m.do(t, http.MethodDelete, "/v2/hub/private/blobs/"+d.String(), ""); a.status != 202 {
		t.Error(a)
	}
	m.want(t, 404, "", "/v2/hub/private/blobs/"+d.String())
}

// TestWritableBeside: copies take no pushes; all else does, also under a source for
// everything, and is never looked for elsewhere then.
func TestWritableBeside(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour}, Source{URL: o.URL + "/all", Except: []string{"team/**"}})
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`
	put := func(want int, path string) {
		t.Helper()
		if a := m.do(t, http.MethodPut, path, manifest, "Content-Type", ocispec.MediaTypeImageManifest); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	put(403, "/v2/hub/app/manifests/v1")
	if a := m.do(t, http.MethodPost, "/v2/hub/app/blobs/uploads/", ""); a.status != 403 {
		t.Error(a)
	}
	put(201, "/v2/hubris/manifests/v1")
	put(201, "/v2/mine/manifests/v1")
	o.manifest("all/mine", "v2", manifest)
	m.want(t, 404, "", "/v2/mine/manifests/v2") // theirs of the same name is another
	m.want(t, 200, `{"name":"mine","tags":["v1"]}`, "/v2/mine/tags/list")
	o.manifest("all/theirs", "v1", manifest)
	m.want(t, 200, manifest, "/v2/theirs/manifests/v1")
	put(403, "/v2/theirs/manifests/v2")
	o.manifest("all/team/app", "v1", manifest)
	m.want(t, 404, "", "/v2/team/app/manifests/v1")
	put(201, "/v2/team/app/manifests/v1")
	if n := o.count("GET /v2/all/mine/manifests/v2") + o.count("GET /v2/all/team/app/manifests/v1"); n != 0 {
		t.Errorf("asked %d times for what is ours", n)
	}
}

// TestReferrers: they come from there, also by pages and filters.
func TestReferrers(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour})
	subject := digest.FromString("subject")
	o.set(func() {
		o.before = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/referrers/") {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			}
			return true
		}
		o.things["/v2/app/referrers/"+subject.String()] = fmt.Sprintf(`{"schemaVersion":2,"manifests":[
			{"mediaType":"m/m","digest":%q,"size":1,"artifactType":"a/sbom"},{"mediaType":"m/m","digest":%q,"size":1,"artifactType":"a/sig"}]}`,
			digest.FromString("1"), digest.FromString("2"))
	})
	if a := m.want(t, 200, "", "/v2/hub/app/referrers/"+subject.String()); strings.Count(a.body, "digest") != 2 {
		t.Error(a.body)
	}
	a := m.want(t, 200, "", "/v2/hub/app/referrers/"+subject.String()+"?artifactType=a/sig")
	if !strings.Contains(a.body, digest.FromString("2").String()) || strings.Count(a.body, "digest") != 1 || a.header.Get("Oci-Filters-Applied") != "artifactType" {
		t.Error(a.body)
	}
	if n := o.count("GET /v2/app/referrers/" + subject.String()); n != 1 {
		t.Errorf("asked %d times in a moment", n)
	}
}

// TestNamespaces: containerd asks a mirror for the other registry's names, and
// says which registry that is.
func TestNamespaces(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Namespace: "docker.io", Fresh: time.Hour}, Source{Prefix: "deep", URL: o.URL + "/deep", Namespace: "deep.example.com"})
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`
	o.manifest("library/debian", "12", manifest)
	o.manifest("deep/x", "1", manifest)
	m.want(t, 200, manifest, "/v2/library/debian/manifests/12?ns=docker.io")
	m.want(t, 200, manifest, "/v2/hub/library/debian/manifests/12")
	m.want(t, 200, manifest, "/v2/deep/x/manifests/1?ns=deep.example.com")
	m.want(t, 404, "", "/v2/x/manifests/1?ns=deep.example.com")
	m.want(t, 404, "", "/v2/hub/library/debian/manifests/12?ns=quay.io")
	m.want(t, 404, "", "/v2/library/debian/manifests/12?ns=quay.io")
	m.want(t, 404, "", "/v2/"+strings.Repeat("a", 254)+"/manifests/12?ns=docker.io")
	o.set(func() { o.things["/v2/library/debian/tags/list"] = `{"tags":["1","2"]}` })
	if a := m.want(t, 200, "", "/v2/library/debian/tags/list?ns=docker.io&n=1"); !strings.Contains(a.header.Get("Link"), "/v2/library/debian/tags/list?last=1&n=1&ns=docker.io") {
		t.Error(a.header)
	}
}

// TestFixedTags: a tag that may not be moved here is not moved by anybody elsewhere.
func TestFixedTags(t *testing.T) {
	o := newOrigin(t)
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	store := storage.New(objects, storage.Options{Fixed: func(_, tag string) bool { return tag == "v1" }})
	set, err := New(store, Options{Sources: []Source{{Prefix: "hub", URL: o.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	one := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`
	for _, content := range []string{one, one + " "} {
		o.manifest("app", "v1", content)
		o.manifest("app", "edge", content)
		if m, err := set.Manifest(t.Context(), "hub/app", "v1"); err != nil || string(m.Body) != one {
			t.Errorf("%q %v", m.Body, err)
		}
		if m, err := set.Manifest(t.Context(), "hub/app", "edge"); err != nil || string(m.Body) != content {
			t.Errorf("%q %v", m.Body, err)
		}
	}
	// What is wrong with one answer keeps nobody from being asked for another.
	bad := digest.FromString("bad")
	o.set(func() { o.things["/v2/app/manifests/"+bad.String()] = one })
	if _, err := set.Manifest(t.Context(), "hub/app", bad.String()); !errors.Is(err, server.ErrUpstream) || set.of("hub/app").resting() {
		t.Error(err)
	}
}

// FuzzSource: what is taken for a URL is one, and names go there and back.
func FuzzSource(f *testing.F) {
	for _, s := range []string{"https://registry-1.docker.io", "http://[::1]:5000/a/b", "https://u:p@x", "https://x/../y", "http://x?y", "HTTPS://X.example.com:443/"} {
		f.Add(s, "hub", "library/debian", "docker.io")
		f.Add(s, "", "a/b", "x")
	}
	f.Fuzz(func(t *testing.T, url, prefix, name, namespace string) {
		one := Source{URL: url, Prefix: prefix}
		if Check([]Source{one}) != nil {
			return
		}
		u, err := newSource(one)
		if err != nil {
			t.Fatal(err)
		}
		defer u.client.Close()
		again, err := parseAddress(u.address.String())
		if err != nil || again != u.address {
			t.Errorf("%q is %q, which is %v, %v", url, u.address, again, err)
		}
		s := &Set{sources: []*source{u}}
		located := s.Locate(name, namespace)
		if distribution.ValidateName(name) != nil || !strings.EqualFold(namespace, u.Namespace) || located == "" {
			return
		}
		if !u.covers(located) {
			t.Errorf("%s of %s is %s, which is none of its copies", name, namespace, located)
		}
		if there := u.remote(located).Name; there != name && there != "library/"+name {
			t.Errorf("%s is %s here and %s there", name, located, there)
		}
	})
}

// TestReplicas: two registries on one store, both asked for the same at once.
func TestReplicas(t *testing.T) {
	o := newOrigin(t)
	source := Source{URL: o.URL, Fresh: 0}
	a := newMirror(t, source)
	b := &mirror{}
	b.open(t, a.dir, source)
	content := random(8 * pieceBytes)
	d := o.blob("app", content)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"layers":[{"mediaType":"x/y","digest":%q,"size":%d}]}`, ocispec.MediaTypeImageManifest, d, len(content))
	o.manifest("app", "v1", manifest)
	var all sync.WaitGroup
	for i := range 20 {
		m := []*mirror{a, b}[i%2]
		all.Go(func() {
			m.want(t, 200, manifest, "/v2/app/manifests/v1")
			m.want(t, 200, content, "/v2/app/blobs/"+d.String())
		})
	}
	all.Wait()
	if n := o.count("GET /v2/app/blobs/" + d.String()); n > 2 {
		t.Errorf("%d requests of two registries", n)
	}
	if from, err := a.store.Upstream(t.Context(), "app"); err != nil || from == "" {
		t.Errorf("%q %v", from, err)
	}
	if _, err := a.store.Collect(t.Context(), storage.CollectOptions{}); err != nil {
		t.Error(err)
	}
	o.Close()
	b.want(t, 200, manifest, "/v2/app/manifests/v1")
	a.want(t, 200, content, "/v2/app/blobs/"+d.String())
}

// TestKeep: what nobody asks for goes after its time, what is in use stays.
func TestKeep(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour, Keep: 30 * 24 * time.Hour})
	one := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`
	d := digest.FromString(one)
	for repo, tag := range map[string]string{"used": "a", "unused": "b"} {
		o.manifest(repo, tag, one)
		m.want(t, 200, one, "/v2/hub/"+repo+"/manifests/"+tag)
	}
	if a := m.do(t, http.MethodPut, "/v2/pushed/manifests/v1", one, "Content-Type", ocispec.MediaTypeImageManifest); a.status != 201 {
		t.Error(a)
	}
	long := time.Now().Add(-31 * 24 * time.Hour)
	for _, repo := range []string{"hub/used", "hub/unused", "pushed"} {
		if err := os.Chtimes(m.dir+"/repositories/"+repo+"/_manifests/sha256-"+d.Encoded(), long, long); err != nil {
			t.Fatal(err)
		}
	}
	m.want(t, 200, one, "/v2/hub/used/manifests/a")
	if n, err := m.set.Expire(t.Context()); err != nil || n != 1 {
		t.Errorf("%d manifests removed, %v", n, err)
	}
	for repo, want := range map[string]bool{"hub/used": true, "hub/unused": false, "pushed": true} {
		if _, err := m.store.Manifest(t.Context(), repo, d.String()); (err == nil) != want {
			t.Errorf("%s: %v", repo, err)
		}
	}
	m.want(t, 200, one, "/v2/hub/unused/manifests/b") // and is fetched again
}

// TestStoreFull: who cannot keep a blob still hands it on, if it is the right one.
func TestStoreFull(t *testing.T) {
	o := newOrigin(t)
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	store := storage.New(full{objects}, storage.Options{})
	set, err := New(store, Options{Sources: []Source{{Prefix: "hub", URL: o.URL}}, SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	content := random(5 * pieceBytes)
	d := o.blob("app", content)
	wrong := digest.FromString("something else")
	o.set(func() { o.things["/v2/app/blobs/"+wrong.String()] = content })
	for want, d := range map[string]digest.Digest{content: d, "": wrong} {
		r, size, err := set.Blob(t.Context(), "hub/app", d)
		if err != nil || size != int64(len(content)) {
			t.Fatal(size, err)
		}
		got, err := io.ReadAll(r)
		if want != "" && (err != nil || !bytes.Equal(got, []byte(want))) || want == "" && err == nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		r.Close()
	}
}

// full is a device on which there is no room for blobs.
type full struct{ *fs.Objects }

// AppendStream implements storage.Objects.
func (full) AppendStream(_ context.Context, _ string, at storage.Mark, r io.Reader) (storage.Mark, error) {
	io.CopyN(io.Discard, r, 1000)
	return at, storage.ErrNoSpace
}

// TestManyAskForMany: clients that ask and go away do not pile up requests, and what
// is here is served meanwhile.
func TestManyAskForMany(t *testing.T) {
	o := newOrigin(t)
	o.manifest("app", "v1", `{"schemaVersion":2}`)
	m := newMirror(t, Source{URL: o.URL})
	m.want(t, 200, `{"schemaVersion":2}`, "/v2/app/manifests/v1")
	m.set.mu.Lock()
	m.set.asked = maxAsked
	m.set.mu.Unlock()
	if got := m.get(t, "/v2/app/manifests/v2"); got.status != 503 {
		t.Error(got)
	}
	if got := m.want(t, 200, `{"schemaVersion":2}`, "/v2/app/manifests/v1"); got.header.Get("Warning") == "" {
		t.Error(got)
	}
	m.set.mu.Lock()
	m.set.asked = 0
	m.set.mu.Unlock()
	m.want(t, 404, "", "/v2/app/manifests/v2")
}

// A disk that is full is nothing to leave the other registry alone for.
func TestSpoolFull(t *testing.T) {
	u := &source{}
	f := &flight{}
	var err error
	if f.spool, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	defer f.spool.Close()
	a := &arriving{r: strings.NewReader("content"), flight: f}
	if _, err := io.ReadAll(a); !errors.Is(err, errSpool) || !errors.Is(err, storage.ErrNoSpace) || u.resting() {
		t.Error(err)
	}
}
