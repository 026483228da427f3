package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/storagetest"
	"github.com/tare-oci/tare/internal/testenv"
)

func open(t *testing.T, s testenv.S3, prefix string) *Objects {
	t.Helper()
	o, err := New(Options{
		Bucket: s.Bucket, Prefix: prefix, Endpoint: s.Endpoint,
		Credentials: Credentials{AccessKey: s.AccessKey, SecretKey: s.SecretKey},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// maxNameBytes: the gateway keeps objects in files, and appends to their names
// while it writes them.
const maxNameBytes = 200

func TestContract(t *testing.T) {
	s := testenv.StartS3(t)
	n := 0
	storagetest.Run(t, storagetest.Service{ElementBytes: maxNameBytes, EmptiesDirectories: true}, func(t *testing.T) storage.Objects {
		n++
		return open(t, s, fmt.Sprintf("test/%d", n))
	})
}

// TestURL: who has a signed URL needs no credentials, for what it is for.
func TestURL(t *testing.T) {
	o := open(t, testenv.StartS3(t), "p x")
	if err := o.Put(t.Context(), "dir/a+b", []byte("content")); err != nil {
		t.Fatal(err)
	}
	signed, err := o.URL("dir/a+b", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[string]int{signed: 200, strings.Replace(signed, "Expires=60", "Expires=61", 1): 403} {
		resp, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == 200 && string(body) != "content" {
			t.Errorf("%s: %s %s", u, resp.Status, body)
		}
	}
}

// What is too large to be copied in one piece is copied in several.
func TestMoveLarge(t *testing.T) {
	o := open(t, testenv.StartS3(t), "p")
	o.copies = copies{maxBytes: 12 << 20, partBytes: minPartBytes}
	content := strings.Repeat("0123456789abcdef", 12<<20/16) + "rest"
	if err := o.Put(t.Context(), "from", []byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := o.Move(t.Context(), "from", "to"); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Get(t.Context(), "to", 20<<20); string(got) != content {
		t.Error(len(got), err)
	}
	if _, etag, err := o.stat(t.Context(), "to"); err != nil || !strings.Contains(etag, "-3") {
		t.Errorf("not of three parts: %s, %v", etag, err)
	}
	if _, err := o.Stat(t.Context(), "from"); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
}

// What another has written while it was copied stays.
func TestMoveOfWritten(t *testing.T) {
	o := open(t, testenv.StartS3(t), "p")
	put := func(key, value string) {
		if err := o.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	put("from", "old")
	put("to", "old")
	_, etag, err := o.stat(t.Context(), "from")
	if err != nil {
		t.Fatal(err)
	}
	put("from", "new")
	if err := o.removeCopied(t.Context(), "from", "to", etag); !errors.Is(err, storage.ErrBusy) {
		t.Error(err)
	}
	if got, err := o.Get(t.Context(), "from", 10); string(got) != "new" {
		t.Error(got, err)
	}
	if _, err := o.Stat(t.Context(), "to"); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
}

// The example of Amazon's documentation ("Authenticating Requests: Using Query
// Parameters").
func TestPresignExample(t *testing.T) {
	s := signer{Credentials{AccessKey: "AKIAIOSFODNN7EXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, "us-east-1"}
	got := s.presign(url.URL{Scheme: "https", Host: "examplebucket.s3.amazonaws.com", Path: "/test.txt"}, 24*time.Hour, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
	if want := "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"; !strings.HasSuffix(got, want) {
		t.Error(got)
	}
}

func TestMistakes(t *testing.T) {
	for _, location := range []string{"", "s3://", "s3:///x", "gs://b", "s3://b/../x", "s3://b?x"} {
		if _, _, err := ParseLocation(location); err == nil {
			t.Errorf("took %q", location)
		}
	}
	bucket, prefix, err := ParseLocation("s3://b/c/d/")
	if bucket != "b" || prefix != "c/d" || err != nil {
		t.Error(bucket, prefix, err)
	}
	s := testenv.StartS3(t)
	s.SecretKey = "wrong"
	if err := open(t, s, "").Check(t.Context()); err == nil {
		t.Error("Check takes a wrong key")
	}
	s.Bucket = "none"
	if _, err := New(Options{Bucket: "b", Endpoint: "127.0.0.1:1", Credentials: Credentials{AccessKey: "a", SecretKey: "b"}}); err == nil {
		t.Error("took an endpoint without scheme")
	}
}

// A multipart upload that nobody completed is given up, when it is old.
func TestTidy(t *testing.T) {
	o := open(t, testenv.StartS3(t), "p")
	begin := call{method: http.MethodPost, key: "blob", query: url.Values{"uploads": {""}}}
	var started struct {
		UploadID string `xml:"UploadId"`
	}
	if _, err := o.send(t.Context(), begin, &started); err != nil {
		t.Fatal(err)
	}
	part := call{method: http.MethodPut, key: "blob", query: url.Values{"uploadId": {started.UploadID}, "partNumber": {"1"}}, body: []byte("x")}
	for _, c := range []struct {
		before time.Time
		there  bool
	}{{time.Now().Add(-time.Hour), true}, {time.Now().Add(time.Hour), false}} {
		if err := o.Tidy(t.Context(), c.before); err != nil {
			t.Fatal(err)
		}
		if _, err := o.send(t.Context(), part, nil); (err == nil) != c.there || err != nil && !errors.Is(err, storage.ErrNotExist) {
			t.Error(c, err)
		}
	}
}

// TestStalledWriter: a registry that stood still while another took over its
// upload changes nothing of it, and what it remembers of the upload is refused.
func TestStalledWriter(t *testing.T) {
	o := open(t, testenv.StartS3(t), "")
	first, err := o.AppendStream(t.Context(), "id", storage.Mark{}, strings.NewReader("first "))
	if err != nil {
		t.Fatal(err)
	}
	var other storage.Mark
	stalled := readerFunc(func([]byte) (int, error) {
		// By now the lock's lease has ended, and another goes on with the upload.
		if other, err = o.AppendStream(t.Context(), "id", first, strings.NewReader("other")); err != nil {
			t.Error(err)
		}
		return 0, errors.New("awake again")
	})
	body := io.MultiReader(strings.NewReader("mine!"), stalled)
	if at, err := o.AppendStream(t.Context(), "id", first, body); !errors.Is(err, storage.ErrBusy) || at != first {
		t.Errorf("the stalled one gets to %v, %v", at, err)
	}
	// The state that it could still have written is of bytes that nobody has.
	mine := storage.Mark{Offset: other.Offset, Writer: "stalled"}
	if _, err := o.AppendStream(t.Context(), "id", mine, strings.NewReader("x")); !errors.Is(err, storage.ErrOffset) {
		t.Error(err)
	}
	if err := o.CommitStream(t.Context(), "id", mine, "blob"); !errors.Is(err, storage.ErrOffset) {
		t.Error(err)
	}
	if err := o.CommitStream(t.Context(), "id", other, "blob"); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Get(t.Context(), "blob", 100); string(got) != "first other" {
		t.Errorf("%q, %v", got, err)
	}
	// What comes after the end is nobody's, and goes when it is old.
	late := piece{Writer: "late"}
	if err := o.Put(t.Context(), late.key("id"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, before := range []time.Duration{-time.Hour, time.Hour} {
		if err := o.Tidy(t.Context(), time.Now().Add(before)); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Stat(t.Context(), late.key("id")); (err == nil) != (before < 0) {
			t.Errorf("Tidy %s: %v", before, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Who has lost a lock does not take it from who has it now.
func TestLostLock(t *testing.T) {
	o := open(t, testenv.StartS3(t), "")
	key := lockKey("name")
	for _, c := range []struct {
		age        time.Duration // since it was written last
		lost, left bool
	}{{0, false, false}, {2 * lease, false, false}, {2 * lease, true, true}} {
		l := &lock{o: o, key: key, holder: []byte("one"), written: time.Now().Add(-c.age)}
		var err error
		if l.etag, err = o.put(t.Context(), key, l.holder, nil); err != nil {
			t.Fatal(err)
		}
		if c.lost {
			if err := o.Put(t.Context(), key, []byte("another")); err != nil {
				t.Fatal(err)
			}
		}
		l.release(t.Context())
		if _, err := o.Stat(t.Context(), key); (err == nil) != c.left {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A conditional write whose answer was lost, and that is sent again, has been done
// once: it is not taken for another's.
func TestLostAnswer(t *testing.T) {
	s := testenv.StartS3(t)
	gateway, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(gateway)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			conditional := r.Request.Header.Get("If-Match") != "" || r.Request.Header.Get("If-None-Match") != ""
			if conditional && r.StatusCode == http.StatusOK {
				r.StatusCode = http.StatusBadGateway
				lost.Add(1)
			}
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	s.Endpoint = front.URL
	o := open(t, s, "")

	mark, err := o.AppendStream(t.Context(), "id", storage.Mark{}, strings.NewReader("one "))
	if err == nil {
		mark, err = o.AppendStream(t.Context(), "id", mark, strings.NewReader("two"))
	}
	if err == nil {
		err = o.CommitStream(t.Context(), "id", mark, "blob")
	}
	if got, getErr := o.Get(t.Context(), "blob", 100); string(got) != "one two" {
		t.Errorf("stream: %q, %v, %v", got, err, getErr)
	}
	release, err := o.Lock(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Lock(t.Context(), "name"); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("second lock: %v", err)
	}
	release()
	for range 3 {
		if err := o.Update(t.Context(), "count", 100, func(old []byte) ([]byte, error) { return append(old, 'x'), nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := o.Get(t.Context(), "count", 100); string(got) != "xxx" {
		t.Errorf("updated to %q, %v", got, err)
	}
	if err := o.PutNew(t.Context(), "count", nil); !errors.Is(err, storage.ErrExist) {
		t.Errorf("PutNew over another: %v", err)
	}
	if lost.Load() < 6 {
		t.Errorf("%d answers were lost", lost.Load())
	}
}
