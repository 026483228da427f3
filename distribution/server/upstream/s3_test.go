package upstream

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestOnS3: copies in a bucket, of small and large blobs, are fetched once for all
// who ask, and another registry on the bucket has them when the origin is down.
func TestOnS3(t *testing.T) {
	bucket := testenv.StartS3(t)
	o := newOrigin(t)
	open := func() *mirror {
		objects, err := s3.New(s3.Options{
			Bucket: bucket.Bucket, Prefix: "copy", Endpoint: bucket.Endpoint,
			Credentials: s3.Credentials{AccessKey: bucket.AccessKey, SecretKey: bucket.SecretKey},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := &mirror{}
		m.openOn(t, objects, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour})
		return m
	}
	m, other := open(), open()
	small, large, body := "small", random(20<<20), `{"schemaVersion":2,"layers":[]}`
	o.manifest("app", "v1", body)
	things := map[string]string{
		"/manifests/v1": body,
		"/blobs/" + o.blob("app", small).String(): small,
		"/blobs/" + o.blob("app", large).String(): large,
	}
	var all sync.WaitGroup
	for path, content := range things {
		for range 4 {
			all.Go(func() { m.want(t, 200, content, "/v2/hub/app"+path) })
		}
	}
	all.Wait()
	for path := range things {
		if n := o.count("GET /v2/app" + path); n != 1 {
			t.Errorf("%s: %d requests went out", path, n)
		}
	}
	o.set(func() {
		o.before = func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "", http.StatusServiceUnavailable)
			return false
		}
	})
	for path, content := range things {
		other.want(t, 200, content, "/v2/hub/app"+path)
	}
	at := len(large) - 1000
	for path, content := range things {
		if content == large {
			other.want(t, 206, large[at:], "/v2/hub/app"+path, "Range", fmt.Sprintf("bytes=%d-", at))
		}
	}
}
