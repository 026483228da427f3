package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// newRegistry is a registry on a directory of the test's; its log has to stay
// empty.
func newRegistry(t testing.TB, opts server.Options) *server.Registry {
	t.Helper()
	return registryOn(t, files(t), opts)
}

func registryOn(t testing.TB, objects storage.Objects, opts server.Options) *server.Registry {
	t.Helper()
	opts.Log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	return server.New(storage.New(objects, storage.Options{}), opts)
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Errorf("registry logs: %s", p)
	return len(p), nil
}

// serve runs Serve on a port of 127.0.0.1 until the test ends.
func serve(t testing.TB, registry *server.Registry) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener, registry, server.ServeOptions{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// api is a registry spoken to in plain HTTP.
type api struct {
	testing.TB
	http.Handler
}

func newAPI(t *testing.T) api { return api{t, newRegistry(t, server.Options{})} }

// do sends a request, with headers given as "Name: value", and checks the
// answer's status and, if that is a refusal, that its body has the code.
func (a api) do(status int, code distribution.Code, method, path, body string, headers ...string) *http.Response {
	a.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	resp := w.Result()
	if resp.StatusCode != status {
		a.Fatalf("%s %s: %d, want %d: %s", method, path, resp.StatusCode, status, w.Body)
	}
	if code != "" && method != http.MethodHead {
		if re := distribution.ParseErrorBody(status, w.Body.Bytes()); len(re.Errors) != 1 || re.Errors[0].Code != code {
			a.Fatalf("%s %s: %s, want %s", method, path, w.Body, code)
		}
	}
	if resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		a.Errorf("%s %s: no API version", method, path)
	}
	return resp
}

func text(resp *http.Response) string {
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func (a api) pushBlob(repo, content string) digest.Digest {
	a.Helper()
	d := digest.FromString(content)
	a.do(201, "", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), content)
	return d
}

func (a api) pushImage(repo, target string, layer string) []byte {
	a.Helper()
	config, l := a.pushBlob(repo, "{}"), a.pushBlob(repo, layer)
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, config, l, len(layer))
	a.do(201, "", "PUT", "/v2/"+repo+"/manifests/"+target, string(body), "Content-Type: "+ocispec.MediaTypeImageManifest)
	return body
}

// Both halves of the route table have the same methods.
func TestEveryRouteHasItsHandlers(t *testing.T) {
	a := newAPI(t)
	d := digest.FromString("x").String()
	for _, e := range []distribution.Endpoint{
		{Route: distribution.RouteBase},
		{Route: distribution.RouteBlob, Name: "a", Argument: d},
		{Route: distribution.RouteManifest, Name: "a", Argument: "x"},
		{Route: distribution.RouteUploads, Name: "a"},
		{Route: distribution.RouteUpload, Name: "a", Argument: "x"},
		{Route: distribution.RouteTags, Name: "a"},
		{Route: distribution.RouteReferrers, Name: "a", Argument: d},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			w := httptest.NewRecorder()
			a.ServeHTTP(w, httptest.NewRequest(method, e.Path(), nil))
			if allowed := w.Code != 405; allowed != e.Route.Allows(method) {
				t.Errorf("%s %s: %d", method, e.Route, w.Code)
			}
			if w.Code == 405 && w.Header().Get("Allow") != strings.Join(e.Route.Methods(), ", ") {
				t.Errorf("%s %s: Allow: %s", method, e.Route, w.Header().Get("Allow"))
			}
		}
	}
}

func TestPaths(t *testing.T) {
	a := newAPI(t)
	a.do(200, "", "GET", "/v2/", "")
	a.do(404, distribution.CodeUnsupported, "GET", "/", "")
	a.do(404, distribution.CodeUnsupported, "GET", "/v2/x", "")
	a.do(400, distribution.CodeNameInvalid, "GET", "/v2/-bad..name/tags/list", "")
	a.do(400, distribution.CodeNameInvalid, "GET", "/v2/a/%2e%2e/b/tags/list", "")
	a.do(400, distribution.CodeManifestInvalid, "PUT", "/v2/a/manifests/-bad..tag", "{}")
	a.do(400, distribution.CodeDigestInvalid, "GET", "/v2/a/blobs/sha256:bad", "")
	a.do(404, distribution.CodeNameUnknown, "GET", "/v2/a/tags/list", "")
	a.do(404, distribution.CodeManifestUnknown, "GET", "/v2/a/manifests/x", "")
	a.do(404, distribution.CodeBlobUnknown, "HEAD", "/v2/a/blobs/"+digest.FromString("x").String(), "")
	if w := httptest.NewRecorder(); true {
		a.ServeHTTP(w, httptest.NewRequest("HEAD", "/v2/a/manifests/x", nil))
		if w.Code != 404 || w.Body.Len() > 0 {
			t.Error("HEAD has a body")
		}
	}
}

func TestManifests(t *testing.T) {
	a := newAPI(t)
	body := a.pushImage("a/b", "v1", "layer")
	d := digest.FromBytes(body).String()
	for _, target := range []string{"v1", d} {
		for _, method := range []string{"GET", "HEAD"} {
			resp := a.do(200, "", method, "/v2/a/b/manifests/"+target, "")
			if resp.Header.Get("Docker-Content-Digest") != d || resp.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest ||
				resp.Header.Get("Content-Length") != fmt.Sprint(len(body)) || method == "GET" && text(resp) != string(body) {
				t.Error(method, target, resp.Header)
			}
		}
		a.do(304, "", "GET", "/v2/a/b/manifests/"+target, "", "If-None-Match: \"x\", W/\""+d+`"`)
	}
	image := "Content-Type: " + ocispec.MediaTypeImageManifest
	put := func(status int, code distribution.Code, target, body string, headers ...string) *http.Response {
		t.Helper()
		return a.do(status, code, "PUT", "/v2/a/b/manifests/"+target, body, headers...)
	}
	put(400, distribution.CodeDigestInvalid, digest.FromString("other").String(), string(body), image)
	put(400, distribution.CodeManifestInvalid, "x", "not JSON", image)
	put(400, distribution.CodeManifestInvalid, "x", `{"mediaType":"application/other"}`, image)
	put(400, distribution.CodeManifestInvalid, "x", `{"mediaType":"a\nb/c"}`)
	put(400, distribution.CodeManifestInvalid, "x", `{"layers":"x"}`, image)
	put(400, distribution.CodeManifestInvalid, "x", strings.Replace(string(body), `"size":5`, `"size":6`, 1), image)
	put(400, distribution.CodeManifestInvalid, "x", `{"config":{"digest":"sha256:bad","size":1}}`, image)
	put(400, distribution.CodeManifestBlobUnknown, "x", strings.Replace(string(body), digest.FromString("layer").String(), digest.FromString("other").String(), 1), image)
	put(400, distribution.CodeManifestBlobUnknown, "x", fmt.Sprintf(`{"manifests":[{"digest":%q,"size":1}]}`, digest.FromString("other")), "Content-Type: "+ocispec.MediaTypeImageIndex)
	put(413, distribution.CodeManifestInvalid, "x", `{"a":"`+strings.Repeat("x", 4<<20)+`"}`, image)
	a.do(404, distribution.CodeManifestUnknown, "GET", "/v2/a/b/manifests/x", "")

	largest := `{"a":"` + strings.Repeat("x", 4<<20-8) + `"}`
	put(201, "", "largest", largest, image)
	if got := text(a.do(200, "", "GET", "/v2/a/b/manifests/largest", "")); got != largest {
		t.Error("the largest manifest came back other")
	}
	put(201, "", "foreign", `{"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"`+d+`","size":1}]}`, image)
	resp := put(201, "", d+"?tag=t1&tag=t2", string(body), image)
	if got := resp.Header.Values("Oci-Tag"); !slices.Equal(got, []string{"t1", "t2"}) {
		t.Error(got)
	}
	put(400, distribution.CodeManifestInvalid, d+"?tag=-x", string(body), image)
	put(400, distribution.CodeManifestInvalid, d+"?"+strings.Repeat("tag=x&", 40), string(body), image)

	a.do(202, "", "DELETE", "/v2/a/b/manifests/t1", "")
	a.do(404, distribution.CodeManifestUnknown, "DELETE", "/v2/a/b/manifests/t1", "")
	a.do(202, "", "DELETE", "/v2/a/b/manifests/"+d, "")
	a.do(404, distribution.CodeManifestUnknown, "GET", "/v2/a/b/manifests/t2", "")
}

// A size nobody announced is bounded too.
func TestManifestOfUnknownLength(t *testing.T) {
	addr := serve(t, newRegistry(t, server.Options{}))
	body := struct{ io.Reader }{io.MultiReader(strings.NewReader(`{"a":"`), io.LimitReader(zeros{}, 100<<20))}
	req, _ := http.NewRequest("PUT", "http://"+addr+"/v2/a/manifests/x", body)
	// The answer comes while the body is still being sent: the client may see
	// it, or only that the connection is closed.
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Error(resp.Status)
		}
	}
	resp, err := http.Get("http://" + addr + "/v2/a/manifests/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUploads(t *testing.T) {
	a := newAPI(t)
	content := "0123456789"
	d := digest.FromString(content).String()
	loc := a.do(202, "", "POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	if resp := a.do(204, "", "GET", loc, ""); resp.Header.Get("Range") != "0-0" {
		t.Error(resp.Header)
	}
	chunk := func(status int, code distribution.Code, span, body string) *http.Response {
		t.Helper()
		return a.do(status, code, "PATCH", loc, body, "Content-Range: "+span)
	}
	if resp := chunk(202, "", "0-3", "0123"); resp.Header.Get("Range") != "0-3" || resp.Header.Get("Location") != loc {
		t.Error(resp.Header)
	}
	for _, span := range []string{"0-3", "5-8"} {
		if resp := chunk(416, distribution.CodeBlobUploadInvalid, span, "abcd"); resp.Header.Get("Range") != "0-3" || resp.Header.Get("Location") != loc {
			t.Error(resp.Header)
		}
	}
	chunk(400, distribution.CodeBlobUploadInvalid, "bytes 4-5/9", "45")
	chunk(400, distribution.CodeBlobUploadInvalid, "5-4", "45")
	chunk(400, distribution.CodeSizeInvalid, "4-9", "45")
	a.do(202, "", "PATCH", loc, "4567") // a stream
	elsewhere := strings.Replace(loc, "/v2/a/", "/v2/b/", 1)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		a.do(404, distribution.CodeBlobUploadUnknown, method, elsewhere, "")
	}
	a.do(404, distribution.CodeBlobUploadUnknown, "PUT", elsewhere+"?digest="+d, "89")
	a.do(404, distribution.CodeNameUnknown, "GET", "/v2/b/tags/list", "")
	a.do(400, distribution.CodeDigestInvalid, "PUT", loc+"?digest=sha256:bad", "89")
	a.do(400, distribution.CodeDigestInvalid, "PUT", loc, "89")
	a.do(416, distribution.CodeBlobUploadInvalid, "PUT", loc+"?digest="+d, "89", "Content-Range: 7-8")
	resp := a.do(201, "", "PUT", loc+"?digest="+d, "89", "Content-Range: 8-9")
	if got := text(a.do(200, "", "GET", resp.Header.Get("Location"), "")); got != content {
		t.Error(got)
	}
	a.do(404, distribution.CodeBlobUploadUnknown, "GET", loc, "")

	loc = a.do(202, "", "POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	a.do(400, distribution.CodeDigestInvalid, "PUT", loc+"?digest="+d, "other")
	a.do(404, distribution.CodeBlobUploadUnknown, "GET", loc, "")
	loc = a.do(202, "", "POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	a.do(204, "", "DELETE", loc, "")
	a.do(404, distribution.CodeBlobUploadUnknown, "DELETE", loc, "")
	a.do(400, distribution.CodeDigestInvalid, "POST", "/v2/a/blobs/uploads/?digest="+d, "other")

	a.do(201, "", "POST", "/v2/m/blobs/uploads/?from=a&mount="+d, "")
	a.do(201, "", "POST", "/v2/n/blobs/uploads/?mount="+d, "")
	a.do(202, "", "POST", "/v2/o/blobs/uploads/?from=p&mount="+d, "")
	a.do(400, distribution.CodeNameInvalid, "POST", "/v2/o/blobs/uploads/?from=..&mount="+d, "")
	a.do(400, distribution.CodeDigestInvalid, "POST", "/v2/o/blobs/uploads/?mount=x", "")
	a.do(202, "", "DELETE", "/v2/a/blobs/"+d, "")
	a.do(202, "", "POST", "/v2/q/blobs/uploads/?from=a&mount="+d, "")
	a.do(404, distribution.CodeBlobUnknown, "GET", "/v2/a/blobs/"+d, "")
	a.do(200, "", "GET", "/v2/m/blobs/"+d, "")
}

func TestRanges(t *testing.T) {
	a := newAPI(t)
	d := a.pushBlob("a", "0123456789").String()
	for span, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89", "bytes=8-100": "89"} {
		resp := a.do(206, "", "GET", "/v2/a/blobs/"+d, "", "Range: "+span)
		got := text(resp)
		c, err := distribution.ParseContentRange(resp.Header.Get("Content-Range"))
		if got != want || err != nil || c.Size != 10 || int(c.Last-c.First)+1 != len(want) {
			t.Error(span, got, c, err)
		}
	}
	for _, span := range []string{"bytes=5-2", "bytes=10-", "bytes=x"} {
		a.do(416, "", "GET", "/v2/a/blobs/"+d, "", "Range: "+span)
	}
	resp := a.do(200, "", "HEAD", "/v2/a/blobs/"+d, "")
	if resp.Header.Get("Content-Length") != "10" || resp.Header.Get("Docker-Content-Digest") != d {
		t.Error(resp.Header)
	}
	a.do(304, "", "GET", "/v2/a/blobs/"+d, "", `If-None-Match: "`+d+`"`)
}

func TestTagPages(t *testing.T) {
	a := newAPI(t)
	want := []string{}
	for i := range 25 {
		want = append(want, fmt.Sprintf("t%02d", i))
		a.do(201, "", "PUT", "/v2/a/manifests/"+want[i], `{}`, "Content-Type: "+ocispec.MediaTypeImageManifest)
	}
	for _, first := range []string{"?n=10", "?n=25", "?n=24", "?n=1", "", "?n=99999999999"} {
		var got []string
		pages := 0
		for next := "/v2/a/tags/list" + first; next != ""; pages++ {
			resp := a.do(200, "", "GET", next, "")
			var doc struct {
				Name string
				Tags []string
			}
			if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || doc.Name != "a" || pages > 30 {
				t.Fatal(doc, err)
			}
			got = append(got, doc.Tags...)
			next = distribution.ParseNextLink(resp.Header.Values("Link"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q in %d pages", first, got, pages)
		}
	}
	a.do(200, "", "GET", "/v2/a/tags/list?n=99999999999", "") // as many as one answer has
	resp := a.do(200, "", "GET", "/v2/a/tags/list?n=0", "")
	if got := text(resp); got != `{"name":"a","tags":[]}` || resp.Header.Get("Link") != "" {
		t.Error(got)
	}
	for _, bad := range []string{"n=-1", "n=x", "n=", "n=99999999999999999999", "last=-x", "last=../x"} {
		a.do(400, "", "GET", "/v2/a/tags/list?"+bad, "")
	}
}

func TestReferrers(t *testing.T) {
	a := newAPI(t)
	body := a.pushImage("a", "v1", "layer")
	subject := digest.FromBytes(body)
	list := func(query string) (ocispec.Index, http.Header) {
		t.Helper()
		resp := a.do(200, "", "GET", "/v2/a/referrers/"+subject.String()+query, "")
		var index ocispec.Index
		if err := json.NewDecoder(resp.Body).Decode(&index); err != nil || index.SchemaVersion != 2 ||
			index.MediaType != ocispec.MediaTypeImageIndex || resp.Header.Get("Content-Type") != index.MediaType || index.Manifests == nil {
			t.Fatal(index, err)
		}
		return index, resp.Header
	}
	if index, _ := list(""); len(index.Manifests) != 0 {
		t.Error(index)
	}
	for i, fields := range []string{`"artifactType":"t/sbom"`, `"config":{"mediaType":"t/config","digest":"` + digest.FromString("{}").String() + `","size":2}`, `"x":1`} {
		m := fmt.Sprintf(`{"subject":{"digest":%q,"size":%d},"annotations":{"n":"%d"},%s}`, subject, len(body), i, fields)
		resp := a.do(201, "", "PUT", "/v2/a/manifests/"+digest.FromString(m).String(), m, "Content-Type: "+ocispec.MediaTypeImageManifest)
		if resp.Header.Get("Oci-Subject") != subject.String() {
			t.Error(resp.Header)
		}
	}
	index, header := list("")
	types := []string{}
	for _, desc := range index.Manifests {
		types = append(types, desc.ArtifactType+desc.Annotations["n"])
	}
	slices.Sort(types)
	if !slices.Equal(types, []string{"2", "t/config1", "t/sbom0"}) || header.Get("Oci-Filters-Applied") != "" {
		t.Error(types, header)
	}
	for _, artifactType := range []string{"t/sbom", ""} {
		index, header = list("?artifactType=" + url.QueryEscape(artifactType))
		if len(index.Manifests) != 1 || index.Manifests[0].ArtifactType != artifactType || header.Get("Oci-Filters-Applied") != "artifactType" {
			t.Error(index, header)
		}
	}
	a.do(202, "", "DELETE", "/v2/a/manifests/"+index.Manifests[0].Digest.String(), "")
	if index, _ := list(""); len(index.Manifests) != 2 {
		t.Error(index)
	}
	a.do(400, distribution.CodeManifestInvalid, "PUT", "/v2/a/manifests/x", `{"subject":{"digest":"sha256:../../x"}}`, "Content-Type: "+ocispec.MediaTypeImageManifest)
}

// A connection that sends half a header, or half a body and no more, is
// closed; one that is slow and moves lives on.
func TestIdleConnections(t *testing.T) {
	addr := serve(t, newRegistry(t, server.Options{IdleTimeout: 400 * time.Millisecond}))
	dial := func(request string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(conn, request)
		return conn
	}
	d := digest.FromString("0123456789")
	half := dial("POST /v2/a/blobs/uploads/?digest=" + d.String() + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
	slow := dial("POST /v2/a/blobs/uploads/?digest=" + d.String() + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	go func() {
		for _, c := range "0123456789" {
			time.Sleep(100 * time.Millisecond)
			io.WriteString(slow, string(c))
		}
	}()
	if answer, err := io.ReadAll(half); err != nil || !bytes.Contains(answer, []byte("HTTP/1.1 400")) {
		t.Errorf("%s %v", answer, err)
	}
	buf := make([]byte, 20)
	if _, err := io.ReadFull(slow, buf); err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 201")) {
		t.Errorf("%s %v", buf, err)
	}
	// A kept connection is not cut off by the deadlines of the answer before.
	time.Sleep(600 * time.Millisecond)
	io.WriteString(slow, "HEAD /v2/a/blobs/"+d.String()+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(slow); err != nil || !bytes.Contains(answer, []byte("HTTP/1.1 200")) {
		t.Errorf("%s %v", answer, err)
	}
}

// A reader that stops reading does not hold a blob open for ever.
func TestReaderThatStops(t *testing.T) {
	var open atomic.Int32
	registry := newRegistry(t, server.Options{IdleTimeout: 300 * time.Millisecond})
	content := make([]byte, 64<<20)
	rand.Read(content)
	d := digest.FromBytes(content)
	api{t, registry}.pushBlob("a", string(content))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		registry.ServeHTTP(w, r)
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v2/a/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", d)
	io.CopyN(io.Discard, conn, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); open.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still sending")
		}
	}
}

// Serve lets a request under way finish, and takes no new one.
func TestShutdownDrains(t *testing.T) {
	registry := newRegistry(t, server.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener, registry, server.ServeOptions{}) }()
	d := digest.FromString("0123456789")
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234", d)
	time.Sleep(100 * time.Millisecond)
	cancel()
	time.Sleep(100 * time.Millisecond)
	if late, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		late.Close()
		t.Error("took a new connection")
	}
	io.WriteString(conn, "56789")
	if answer, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 201")) {
		t.Errorf("%s %v", answer, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Uploads that nobody finished are gone when the registry starts.
func TestServeExpiresUploads(t *testing.T) {
	registry := newRegistry(t, server.Options{UploadLife: time.Nanosecond})
	a := api{t, registry}
	loc := a.do(202, "", "POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	serve(t, registry)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", loc, nil))
		if w.Code == 404 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("still there")
		}
	}
}

// FuzzServe sends any request; whatever it is, the answer is no 5xx.
func FuzzServe(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add("GET", "/v2/a/blobs/"+d, "Range", "bytes=0-1", []byte(""))
	f.Add("PUT", "/v2/a/manifests/x?tag=y", "Content-Type", "application/json", []byte(`{"layers":[]}`))
	f.Add("POST", "/v2/a/blobs/uploads/?mount="+d+"&from=b", "Content-Range", "0-0", []byte("x"))
	f.Add("POST", "/v2/a/blobs/uploads/?digest="+d, "Content-Range", "0-0", []byte("x"))
	f.Add("GET", "/v2/a/tags/list?n=1&last=x", "X", "y", []byte(""))
	f.Add("GET", "/v2/a/referrers/"+d+"?artifactType=x&last="+d, "If-None-Match", "*", []byte(""))
	registry := newRegistry(f, server.Options{})
	api{f, registry}.pushBlob("a", "x")
	f.Fuzz(func(t *testing.T, method, path, name, value string, body []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{name: {value}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		w := httptest.NewRecorder()
		registry.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s %q: %d", method, path, w.Code)
		}
	})
}

// Who is refused before his body was read, and does not send it, is not waited
// for longer than others.
func TestRefusedBodyIsNotWaitedFor(t *testing.T) {
	addr := serve(t, newRegistry(t, server.Options{IdleTimeout: 300 * time.Millisecond}))
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "PUT /v2/a/manifests/-bad..tag HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", length)
		if answer, err := io.ReadAll(conn); err != nil || !bytes.Contains(answer, []byte("HTTP/1.1 400")) {
			t.Errorf("%s: %q %v", length, answer, err)
		}
	}
}

// An answer without a body has a status in the log, too.
func TestObservedStatus(t *testing.T) {
	var got []int
	a := api{t, newRegistry(t, server.Options{Observe: func(o *server.Observation) { got = append(got, o.Status) }})}
	a.pushImage("a", "1", "layer")
	got = nil
	a.do(200, "", "HEAD", "/v2/a/manifests/1", "")
	a.do(200, "", "HEAD", "/v2/", "")
	a.do(200, "", "GET", "/v2/a/manifests/1", "")
	if !slices.Equal(got, []int{200, 200, 200}) {
		t.Error(got)
	}
}

// A blob in one request that goes wrong leaves no upload, which nobody knows.
func TestOneRequestLeavesNoUpload(t *testing.T) {
	dir := t.TempDir()
	objects, err := fs.New(dir, fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	a := api{t, registryOn(t, objects, server.Options{})}
	a.do(400, distribution.CodeDigestInvalid, "POST", "/v2/a/blobs/uploads/?digest=x", "content")
	a.do(400, distribution.CodeDigestInvalid, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromString("other").String(), "content")
	r := httptest.NewRequest("POST", "/v2/a/blobs/uploads/?digest="+digest.FromString("content").String(), iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("content"))))
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, r); w.Code != 400 {
		t.Error(w.Code, w.Body)
	}
	for _, d := range []string{"sessions", "streams"} {
		if left, err := os.ReadDir(filepath.Join(dir, d)); len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(d, left, err)
		}
	}
}
