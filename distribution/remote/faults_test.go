package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// quick are options with which a test of waiting does not take long.
func quick() Options {
	return Options{RetryWait: time.Millisecond, HeaderTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond}
}

// faulty is a registry that answers each request with the next of its steps,
// and the last one for ever.
type faulty struct {
	*httptest.Server
	repo distribution.Repository

	mu    sync.Mutex
	steps []http.HandlerFunc
	seen  []*http.Request
}

func newFaulty(t *testing.T, steps ...http.HandlerFunc) *faulty {
	t.Helper()
	f := &faulty{steps: steps}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		step := f.steps[min(len(f.seen), len(f.steps)-1)]
		f.seen = append(f.seen, r)
		f.mu.Unlock()
		step(w, r)
	}))
	// The log would tell of the TLS a client tries first on loopback.
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	f.repo = distribution.Repository{Host: f.Listener.Addr().String(), Name: "a/b"}
	return f
}

func (f *faulty) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *faulty) wantRequests(t *testing.T, n int) {
	t.Helper()
	if got := len(f.requests()); got != n {
		t.Errorf("%d requests, want %d", got, n)
	}
}

func newClient(t *testing.T, opts Options) *Client {
	t.Helper()
	c := New(opts)
	t.Cleanup(c.Close)
	return c
}

// step makes a handler of a status, headers as "Name: value", and a body.
func step(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// serveRange is a registry as it should be.
func serveRange(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// cutAfter is serveRange until n bytes have gone; then the connection ends.
func cutAfter(content []byte, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(&cutWriter{w, n}, r, "", time.Time{}, bytes.NewReader(content))
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) < w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	w.ResponseWriter.Write(p[:w.left])
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func blob(size int) ([]byte, ocispec.Descriptor) {
	content := make([]byte, size)
	rand.Read(content)
	return content, ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromBytes(content), Size: int64(size)}
}

func pullBlob(c *Client, f *faulty, desc ocispec.Descriptor, offset int64) ([]byte, error) {
	r, err := c.Blob(context.Background(), f.repo, desc, offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestBlobSurvivesCuts(t *testing.T) {
	content, desc := blob(3 << 20)
	ignoresRange := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serveRange(content)(w, r)
	}
	for name, steps := range map[string][]http.HandlerFunc{
		"cut once":              {cutAfter(content, 1<<20), serveRange(content)},
		"cut at once":           {cutAfter(content, 0), serveRange(content)},
		"cut four times":        {cutAfter(content, 100), cutAfter(content, 100), cutAfter(content, 100), cutAfter(content, 100), serveRange(content)},
		"range ignored":         {cutAfter(content, 2<<20), ignoresRange},
		"range ignored and cut": {cutAfter(content, 2<<20), func(w http.ResponseWriter, r *http.Request) { ignoresRange(&cutWriter{w, 1 << 20}, r) }, ignoresRange},
		"503 after the cut":     {cutAfter(content, 1<<20), step(503, ""), serveRange(content)},
		"stands still":          {stall(content, 1<<20), serveRange(content)},
		"stands still at first": {stall(content, 0), serveRange(content)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, steps...)
			got, err := pullBlob(newClient(t, quick()), f, desc, 0)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d of %d bytes, %v", len(got), len(content), err)
			}
			f.wantRequests(t, len(steps))
		})
	}
}

// stall sends n bytes and then nothing, with the connection left open.
func stall(content []byte, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content[:n])
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// A blob on which every connection breaks after much progress is got in the
// end; one on which none makes any is given up.
func TestBlobAttemptsAreCountedByProgress(t *testing.T) {
	content, desc := blob(12 << 20)
	f := newFaulty(t, cutAfter(content, 3<<19))
	got, err := pullBlob(newClient(t, quick()), f, desc, 0)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d of %d bytes, %v", len(got), len(content), err)
	}

	f = newFaulty(t, cutAfter(content, 10))
	got, err = pullBlob(newClient(t, quick()), f, desc, 0)
	wantErr(t, err, io.ErrUnexpectedEOF)
	if len(got) != 50 || !strings.Contains(err.Error(), "a/b@"+desc.Digest.String()) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	f.wantRequests(t, 5)
}

func TestBlobOffset(t *testing.T) {
	content, desc := blob(1 << 20)
	f := newFaulty(t, serveRange(content))
	c := newClient(t, quick())
	for _, offset := range []int64{0, 1, 1<<20 - 1, 1 << 20} {
		got, err := pullBlob(c, f, desc, offset)
		if err != nil || !bytes.Equal(got, content[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	for _, offset := range []int64{-1, 1<<20 + 1} {
		_, err := pullBlob(c, f, desc, offset)
		wantErr(t, err, distribution.ErrSizeMismatch)
	}
	empty := ocispec.Descriptor{Digest: digest.FromString("")}
	if got, err := pullBlob(c, newFaulty(t, serveRange(nil)), empty, 0); err != nil || len(got) > 0 {
		t.Error(got, err)
	}
}

func TestBlobLies(t *testing.T) {
	content, desc := blob(1 << 20)
	endless := func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				return
			}
		}
	}
	partial := func(contentRange string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(206)
			w.Write(content)
		}
	}
	for name, c := range map[string]struct {
		step   http.HandlerFunc
		offset int64
		want   error
	}{
		"endless":             {endless, 0, distribution.ErrSizeMismatch},
		"shorter":             {serveRange(content[1:]), 0, distribution.ErrSizeMismatch},
		"longer":              {serveRange(append([]byte{1}, content...)), 0, distribution.ErrSizeMismatch},
		"another range":       {partial("bytes 0-9/1048576"), 5, distribution.ErrSizeMismatch},
		"another size":        {partial("bytes 5-9/10"), 5, distribution.ErrSizeMismatch},
		"a bad range":         {partial("5-9"), 5, nil},
		"no range":            {partial(""), 5, nil},
		"range not satisfied": {step(416, ""), 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pullBlob(newClient(t, quick()), newFaulty(t, c.step), desc, c.offset)
			if err == nil || len(got) > len(content) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if c.want != nil {
				wantErr(t, err, c.want)
			}
		})
	}
	// Unless the length is a lie on its own: then fewer bytes come than announced.
	f := newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content[:100])
	})
	_, err := pullBlob(newClient(t, quick()), f, desc, 0)
	wantErr(t, err, io.ErrUnexpectedEOF)
}

func TestFlippedByte(t *testing.T) {
	content, desc := blob(1 << 20)
	bad := bytes.Clone(content)
	bad[1<<19] ^= 1
	c, f := newClient(t, quick()), newFaulty(t, serveRange(bad))
	_, err := c.BlobBytes(t.Context(), f.repo, desc, 1<<30)
	wantErr(t, err, distribution.ErrDigestMismatch)
	_, err = c.BlobBytes(t.Context(), f.repo, desc, 10)
	wantErr(t, err, distribution.ErrTooLarge)
}

func TestBlobCancelled(t *testing.T) {
	content, desc := blob(1 << 20)
	f := newFaulty(t, stall(content, 100))
	opts := quick()
	opts.IdleTimeout = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := newClient(t, opts).Blob(ctx, f.repo, desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	why := errors.New("why")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	_, err = io.ReadAll(r)
	wantErr(t, err, why)
	f.wantRequests(t, 1)
}

const manifestBody = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`

var manifestOK = step(200, manifestBody, "Content-Type: "+ocispec.MediaTypeImageManifest)

func (f *faulty) ref(tag string) distribution.Reference {
	return distribution.Reference{Repository: f.repo, Tag: tag}
}

func TestRetries(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, steps := range map[string][]http.HandlerFunc{
		"503 once":          {step(503, ""), manifestOK},
		"every 5xx":         {step(500, ""), step(502, ""), step(504, ""), step(503, ""), manifestOK},
		"429":               {step(429, "", "Retry-After: 0"), manifestOK},
		"408":               {step(408, ""), manifestOK},
		"slow headers":      {slow, manifestOK},
		"broken connection": {abort, manifestOK},
		"cut body":          {cutAfter([]byte(manifestBody), 10), manifestOK},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, steps...)
			desc, body, err := newClient(t, quick()).Resolve(t.Context(), f.ref("x"))
			if err != nil || string(body) != manifestBody || desc.Digest != digest.FromString(manifestBody) || desc.Size != int64(len(body)) || desc.MediaType != ocispec.MediaTypeImageManifest {
				t.Error(desc, err)
			}
			f.wantRequests(t, len(steps))
		})
	}
	for name, c := range map[string]struct {
		step http.HandlerFunc
		want error
		n    int
	}{
		"503 for ever": {step(503, ""), nil, 5},
		"429 for ever": {step(429, ""), distribution.ErrTooManyRequests, 5},
		"429, later":   {step(429, "", "Retry-After: 3600"), distribution.ErrTooManyRequests, 1},
		"404":          {step(404, string(distribution.EncodeErrorBody(distribution.Errorf(distribution.CodeManifestUnknown, "x")))), distribution.ErrNotFound, 1},
		"403":          {step(403, ""), distribution.ErrDenied, 1},
		"401":          {step(401, ""), distribution.ErrUnauthorized, 1},
		"400":          {step(400, ""), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, c.step)
			_, _, err := newClient(t, quick()).Resolve(t.Context(), f.ref("x"))
			var re *distribution.ResponseError
			if !errors.As(err, &re) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), "a/b:x") {
				t.Error(err)
			}
			f.wantRequests(t, c.n)
		})
	}
}

// Who gives a byte now and then is not listened to for ever, and neither is one who
// refuses at great length.
func TestSlowAndLongAnswers(t *testing.T) {
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
	opts := quick()
	opts.MaxAttempts = 2
	f := newFaulty(t, drip)
	_, _, err := newClient(t, opts).Resolve(t.Context(), f.ref("x"))
	wantErr(t, err, errIdle)
	f.wantRequests(t, 2)
	_, desc := blob(1 << 20)
	_, err = pullBlob(newClient(t, opts), newFaulty(t, drip), desc, 0)
	wantErr(t, err, errIdle)

	f = newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	_, _, err = newClient(t, opts).Resolve(t.Context(), f.ref("x"))
	wantErr(t, err, distribution.ErrDenied)
	f.wantRequests(t, 1)
}

// Retry-After is waited for, as seconds and as a date.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	f := newFaulty(t,
		step(429, "", "Retry-After: 1"),
		func(w http.ResponseWriter, r *http.Request) {
			step(503, "", "Retry-After: "+time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))(w, r)
		},
		manifestOK)
	begin := time.Now()
	if _, _, err := newClient(t, quick()).Resolve(t.Context(), f.ref("x")); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "x": 0, "-1": 0, "120": 2 * time.Minute, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func TestBadManifests(t *testing.T) {
	zeros := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		chunk := make([]byte, 1<<20)
		for range 100 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	announced := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(100<<20))
		zeros(w, r)
	}
	var bomb bytes.Buffer // a thousandth of what it inflates to
	z := gzip.NewWriter(&bomb)
	for range 64 {
		z.Write(make([]byte, 1<<20))
	}
	z.Close()
	other := digest.FromString("other").String()
	for name, c := range map[string]struct {
		step http.HandlerFunc
		ref  string // tag or digest
		want error
	}{
		"gzip bomb":          {step(200, bomb.String(), "Content-Type: "+ocispec.MediaTypeImageManifest, "Content-Encoding: gzip"), "x", distribution.ErrInvalidManifest},
		"not JSON":           {step(200, "<html>", "Content-Type: text/html"), "x", distribution.ErrInvalidManifest},
		"no object":          {step(200, "[]", "Content-Type: "+ocispec.MediaTypeImageManifest), "x", distribution.ErrInvalidManifest},
		"another type":       {step(200, manifestBody, "Content-Type: "+ocispec.MediaTypeImageIndex), "x", distribution.ErrInvalidManifest},
		"100 MiB":            {zeros, "x", distribution.ErrTooLarge},
		"100 MiB, announced": {announced, "x", distribution.ErrTooLarge},
		"another digest":     {manifestOK, other, distribution.ErrDigestMismatch},
		"header lies":        {step(200, manifestBody, "Content-Type: "+ocispec.MediaTypeImageManifest, "Docker-Content-Digest: "+other), "x", distribution.ErrDigestMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, c.step)
			ref := f.ref(c.ref)
			if strings.Contains(c.ref, ":") {
				ref = distribution.Reference{Repository: f.repo, Digest: digest.Digest(c.ref)}
			}
			_, _, err := newClient(t, quick()).Resolve(t.Context(), ref)
			wantErr(t, err, c.want)
			f.wantRequests(t, 1)
		})
	}
	c, f := newClient(t, quick()), newFaulty(t, manifestOK)
	desc := ocispec.Descriptor{Digest: digest.FromString(manifestBody), Size: int64(len(manifestBody))}
	if body, err := c.Manifest(t.Context(), f.repo, desc); err != nil || string(body) != manifestBody {
		t.Error(err)
	}
	for size, want := range map[int64]error{desc.Size + 1: distribution.ErrSizeMismatch, desc.Size - 1: distribution.ErrTooLarge, 5 << 20: distribution.ErrTooLarge} {
		_, err := c.Manifest(t.Context(), f.repo, ocispec.Descriptor{Digest: desc.Digest, Size: size})
		wantErr(t, err, want)
	}
	// With a digest of our own, what the registry states is of no interest.
	f = newFaulty(t, step(200, manifestBody, "Docker-Content-Digest: "+other))
	if _, err := c.Manifest(t.Context(), f.repo, desc); err != nil {
		t.Error(err)
	}
}

func TestRedirects(t *testing.T) {
	content, desc := blob(1000)
	var leaked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			leaked.Store(true)
		}
		serveRange(content)(w, r)
	}))
	defer elsewhere.Close()
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
	}
	opts := quick()
	withBasic := func(f *faulty) *Client {
		opts.Credentials = static(f.repo, "me", "SECRET")
		c := newClient(t, opts)
		// As after a first challenge: everything is sent with the password.
		h, _ := c.auth.lock(t.Context(), f.repo.APIHost())
		h.scheme = "basic"
		h.unlock()
		return c
	}

	// Same name, another port: net/http alone would send the password there.
	f := newFaulty(t, redirect(elsewhere.URL+"/x?signature=SECRET"))
	got, err := pullBlob(withBasic(f), f, desc, 0)
	if err != nil || !bytes.Equal(got, content) || leaked.Load() {
		t.Errorf("%d bytes, %v, leaked: %v", len(got), err, leaked.Load())
	}
	if f.requests()[0].Header.Get("Authorization") == "" {
		t.Error("the registry itself was not told")
	}

	f = newFaulty(t, nil)
	f.steps[0] = redirect(f.URL + "/v2/loop?signature=SECRET")
	_, err = pullBlob(withBasic(f), f, desc, 0)
	wantErr(t, err, errRedirect)
	f.wantRequests(t, maxRedirects)
	if strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}

	// A host that asks for a password after a redirect gets none.
	asks := httptest.NewServer(step(401, "", `Www-Authenticate: Basic realm="give"`))
	defer asks.Close()
	f = newFaulty(t, redirect(asks.URL))
	_, err = pullBlob(withBasic(f), f, desc, 0)
	wantErr(t, err, distribution.ErrUnauthorized)
	f.wantRequests(t, 1)

	f = newFaulty(t, redirect("ftp://x/"))
	_, err = pullBlob(withBasic(f), f, desc, 0)
	if err == nil {
		t.Error("went to ftp")
	}
	// A redirect that would turn an upload into a GET.
	f = newFaulty(t, step(404, ""), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) })
	err = withBasic(f).PushBlob(t.Context(), f.repo, desc, opener(content))
	wantErr(t, err, errRedirect)
}

func opener(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}

// What a registry wants people to know is passed on, also beside a refusal.
func TestWarnings(t *testing.T) {
	f := newFaulty(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Warning"] = []string{`299 - "moving to \"new\""`, `110 - "stale"`}
		w.WriteHeader(http.StatusNotFound)
	})
	var told []string
	c := newClient(t, Options{Warn: func(host, text string) { told = append(told, host+" "+text) }})
	if _, err := c.Tags(t.Context(), f.repo); !errors.Is(err, distribution.ErrNotFound) {
		t.Error(err)
	}
	if want := f.repo.Host + ` moving to "new"`; len(told) != 1 || told[0] != want {
		t.Errorf("%q", told)
	}
}

func TestTagPages(t *testing.T) {
	page := func(tags, link string) http.HandlerFunc {
		return step(200, `{"name":"a/b","tags":[`+tags+`]}`, "Link: "+link)
	}
	f := newFaulty(t, page(`"a","b"`, `</v2/a/b/tags/list?n=2&last=b>; rel="next"`), page(`"c"`, `<?last=c>; rel="next"`), page(`"d"`, ""))
	got, err := newClient(t, quick()).Tags(t.Context(), f.repo)
	if err != nil || fmt.Sprint(got) != "[a b c d]" {
		t.Error(got, err)
	}
	queries := ""
	for _, r := range f.requests() {
		queries += r.URL.RawQuery + " "
	}
	if queries != "n=1000 n=2&last=b last=c " {
		t.Error(queries)
	}
	for name, step := range map[string]http.HandlerFunc{
		"empty pages":  page(``, `<?last=b>; rel="next"`),
		"endless":      page(`"a"`, `<?last=b>; rel="next"`),
		"another host": page(`"a"`, `<http://198.51.100.1/v2/>; rel="next"`),
		"bad tag":      page(`"../x"`, ""),
		"not JSON":     step(200, "<html>"),
	} {
		f := newFaulty(t, step)
		if got, err := newClient(t, quick()).Tags(t.Context(), f.repo); err == nil {
			t.Errorf("%s: %d tags", name, len(got))
		}
	}
}

func TestDeleteNotAllowed(t *testing.T) {
	f := newFaulty(t, step(405, string(distribution.EncodeErrorBody(distribution.Errorf(distribution.CodeUnsupported, "x")))))
	wantErr(t, newClient(t, quick()).Delete(t.Context(), f.ref("x")), distribution.ErrUnsupported)
	f.wantRequests(t, 1)
}

func TestUploadFaults(t *testing.T) {
	content, desc := blob(2 << 20)
	location := step(202, "", "Location: /v2/a/b/blobs/uploads/1?_state=x%2Fy&z")
	take := func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if !bytes.Equal(got, content) || r.URL.RawQuery != "_state=x%2Fy&z&digest="+strings.ReplaceAll(desc.Digest.String(), ":", "%3A") || r.ContentLength != desc.Size {
			w.WriteHeader(400)
			return
		}
		w.WriteHeader(201)
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	stuck := func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); panic(http.ErrAbortHandler) }
	missing := step(404, "")
	for name, steps := range map[string][]http.HandlerFunc{
		"there already":   {step(200, "")},
		"plain":           {missing, location, take},
		"cut":             {missing, location, abort, missing, location, take},
		"503":             {missing, step(503, ""), location, step(503, ""), missing, location, take},
		"answer is lost":  {missing, location, abort, step(200, "")},
		"nobody reads it": {missing, location, stuck, missing, location, take},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, steps...)
			if err := newClient(t, quick()).PushBlob(t.Context(), f.repo, desc, opener(content)); err != nil {
				t.Error(err)
			}
			f.wantRequests(t, len(steps))
		})
	}
	for name, steps := range map[string][]http.HandlerFunc{
		"no location":    {missing, step(202, "")},
		"without TLS":    {missing, step(202, "", "Location: http://198.51.100.1/x")},
		"digest refused": {missing, location, step(400, string(distribution.EncodeErrorBody(distribution.Errorf(distribution.CodeDigestInvalid, "x"))))},
	} {
		f := newFaulty(t, steps...)
		if err := newClient(t, quick()).PushBlob(t.Context(), f.repo, desc, opener(content)); err == nil {
			t.Errorf("%s: no error", name)
		}
		f.wantRequests(t, len(steps))
	}
	// The upload goes on at another host: without the password.
	var authorization atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization.Store(r.Header.Get("Authorization"))
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
	}))
	defer other.Close()
	challenge := step(401, "", `Www-Authenticate: Basic realm="x"`)
	f := newFaulty(t, challenge, missing, step(202, "", "Location: "+other.URL+"/put"))
	opts := quick()
	opts.Credentials = static(f.repo, "me", "SECRET")
	if err := newClient(t, opts).PushBlob(t.Context(), f.repo, desc, opener(content)); err != nil || authorization.Load() != "" {
		t.Error(err, authorization.Load())
	}
	// A source that fails is not asked again.
	broken := errors.New("broken")
	f = newFaulty(t, missing, location)
	err := newClient(t, quick()).PushBlob(t.Context(), f.repo, desc, func() (io.ReadCloser, error) { return nil, broken })
	wantErr(t, err, broken)
}

// A host nobody listens on is tried a bounded number of times.
func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ref := distribution.Reference{Repository: distribution.Repository{Host: listener.Addr().String(), Name: "a"}}
	listener.Close()
	if _, _, err := newClient(t, quick()).Resolve(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}
