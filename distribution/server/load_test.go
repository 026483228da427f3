package server_test

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
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// A blob that was deleted cannot be mounted from where it was, but from where it
// still is.
func TestDeletedBlobIsNotMounted(t *testing.T) {
	a := newAPI(t)
	d := a.pushBlob("a", "content").String()
	a.pushBlob("other", "content")
	a.do(202, "", "DELETE", "/v2/a/blobs/"+d, "")
	a.do(202, "", "POST", "/v2/b/blobs/uploads/?from=a&mount="+d, "")
	a.do(404, "BLOB_UNKNOWN", "HEAD", "/v2/b/blobs/"+d, "")
	a.do(201, "", "POST", "/v2/b/blobs/uploads/?from=other&mount="+d, "")
	a.do(201, "", "POST", "/v2/a/blobs/uploads/?mount="+d, "")
	if got := text(a.do(200, "", "GET", "/v2/a/blobs/"+d, "")); got != "content" {
		t.Error(got)
	}
	for _, repo := range []string{"a", "b", "other"} {
		a.do(202, "", "DELETE", "/v2/"+repo+"/blobs/"+d, "")
	}
	a.do(202, "", "POST", "/v2/b/blobs/uploads/?mount="+d, "")
}

// A tag that is moved all the time is there all the time, and leads to one
// manifest or the other, whole.
func TestTagMovedWhileRead(t *testing.T) {
	a := newAPI(t)
	bodies := [][]byte{a.pushImage("a", "1", "one"), a.pushImage("a", "2", "two, which is longer")}
	ctx, cancel := context.WithCancel(t.Context())
	var writer, readers sync.WaitGroup
	moved := 0
	writer.Go(func() {
		for ; ctx.Err() == nil; moved++ {
			a.do(201, "", "PUT", "/v2/a/manifests/latest", string(bodies[moved%2]), "Content-Type: "+ocispec.MediaTypeImageManifest)
		}
	})
	a.do(201, "", "PUT", "/v2/a/manifests/latest", string(bodies[0]), "Content-Type: "+ocispec.MediaTypeImageManifest)
	for range 4 {
		readers.Go(func() {
			for range 2500 {
				resp := a.do(200, "", "GET", "/v2/a/manifests/latest", "")
				if body := text(resp); resp.Header.Get("Docker-Content-Digest") != digest.FromString(body).String() {
					t.Errorf("%s: %s", resp.Header.Get("Docker-Content-Digest"), body)
				}
			}
		})
	}
	readers.Wait()
	cancel()
	writer.Wait()
	if moved < 10 {
		t.Errorf("moved %d times", moved)
	}
}

// client is one of those of TestLoad.
type client struct {
	t    *testing.T
	http *http.Client
	url  string
	repo string
	// grace is the collector's: who takes longer for a push may have to push again.
	grace time.Duration
	done  *atomic.Int64
}

// do sends a request and checks that its answer has one of the statuses.
func (c *client) do(method, path string, body []byte, want ...int) []byte {
	q, err := http.NewRequest(method, c.url+"/v2/"+c.repo+path, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	q.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
	resp, err := c.http.Do(q)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	for _, status := range want {
		if err == nil && resp.StatusCode == status {
			c.done.Add(1)
			return answer
		}
	}
	c.t.Errorf("%s %s%s: %s %.200s %v", method, c.repo, path, resp.Status, answer, err)
	return nil
}

// round pushes an image of blobs that are the client's own and of one that all
// push, pulls it, and deletes it again.
func (c *client) round(random *rand.Rand) {
	config, layer, common := fmt.Appendf(nil, "{%q:%d}", c.repo, random.Uint64()), make([]byte, 64<<10), []byte("of all")
	for i := range layer {
		layer[i] = byte(random.Uint32())
	}
	began := time.Now()
	for _, blob := range [][]byte{config, layer, common} {
		c.do("POST", "/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob, 201)
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d},{"digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(config), len(config), digest.FromBytes(layer), len(layer), digest.FromBytes(common), len(common))
	allowed := []int{201}
	if time.Since(began) > c.grace {
		allowed = append(allowed, 400)
	}
	if answer := c.do("PUT", "/manifests/latest", manifest, allowed...); bytes.Contains(answer, []byte("MANIFEST_BLOB_UNKNOWN")) {
		return
	}
	if got := c.do("GET", "/manifests/latest", nil, 200); !bytes.Equal(got, manifest) {
		c.t.Errorf("manifest of %s: %s", c.repo, got)
	}
	for _, blob := range [][]byte{config, layer, common} {
		if got := c.do("GET", "/blobs/"+digest.FromBytes(blob).String(), nil, 200); !bytes.Equal(got, blob) {
			c.t.Errorf("blob of %s: %d bytes of %d", c.repo, len(got), len(blob))
		}
	}
	c.do("DELETE", "/manifests/"+digest.FromBytes(manifest).String(), nil, 202)
	c.do("GET", "/manifests/latest", nil, 404)
}

// TestLoad: many clients that push, pull and delete while the collector is at
// work see no error, and leave nothing open.
func TestLoad(t *testing.T) {
	httptest.NewServer(nil).Close() // Go's poller keeps two files, once there is anything to wait for
	for name, c := range map[string]struct {
		objects func(testing.TB) storage.Objects
		clients int
		lasts   time.Duration
		grace   time.Duration
	}{
		"files": {files, 64, 6 * time.Second, time.Second},
		"S3":    {bucket, 24, 3 * time.Second, 20 * time.Second},
	} {
		openFiles := func() int {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(entries)
		}
		goroutines, fds := runtime.NumGoroutine(), openFiles()
		t.Run(name, func(t *testing.T) {
			store := storage.New(c.objects(t), storage.Options{Grace: c.grace})
			requests, removed := loaded(t, store, c.clients, c.lasts, c.grace)
			t.Logf("%d requests, %d blobs collected", requests, removed)
		})
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines || openFiles() > fds; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d goroutines and %d files are open, before it were %d and %d", name, runtime.NumGoroutine(), openFiles(), goroutines, fds)
			}
		}
	}
}

// loaded puts a registry to work.
func loaded(t *testing.T, store *storage.Store, clients int, lasts, grace time.Duration) (requests int64, removed int) {
	const maxHeapBytes = 256 << 20
	addr := serve(t, server.New(store, server.Options{}))
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var done atomic.Int64
	var group sync.WaitGroup
	end := time.Now().Add(lasts)
	for i := range clients {
		c := &client{t, &http.Client{Transport: transport}, "http://" + addr, fmt.Sprintf("team%d/app", i), grace, &done}
		random := rand.New(rand.NewPCG(1, uint64(i)))
		group.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				c.round(random)
			}
		})
	}
	for time.Now().Before(end) {
		report, err := store.Collect(t.Context(), storage.CollectOptions{Grace: grace})
		if err != nil && !errors.Is(err, storage.ErrBusy) {
			t.Error(err)
		}
		removed += report.BlobsRemoved
		var memory runtime.MemStats
		if runtime.ReadMemStats(&memory); memory.HeapAlloc > maxHeapBytes {
			t.Errorf("%d bytes of memory", memory.HeapAlloc)
		}
		time.Sleep(50 * time.Millisecond)
	}
	group.Wait()
	return done.Load(), removed
}
