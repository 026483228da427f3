package remote_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
)

// cutAfter is a body that breaks.
type cutAfter struct {
	io.ReadCloser
	left int64
}

func (c *cutAfter) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// cutting is a proxy that breaks the connection in the middle of the first two large
// bodies.
func cutting(t *testing.T, addr string) (proxied string, cuts *atomic.Int64) {
	cuts = &atomic.Int64{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 6<<20 && cuts.Add(1) <= 2 {
			r.Body = &cutAfter{r.Body, 5 << 20}
		}
		proxy.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = proxy.ErrorLog
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), cuts
}

// TestCutUpload: an upload whose connection breaks arrives at each registry, whether
// or not that has kept what came before.
func TestCutUpload(t *testing.T) {
	content := make([]byte, 24<<20)
	rand.Read(content)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(len(content))}
	for kind, addr := range allRegistries(t) {
		for name, chunkBytes := range map[string]int64{"whole": 0, "chunks": 8 << 20} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				proxied, cuts := cutting(t, addr)
				c := remote.New(remote.Options{RetryWait: 50 * time.Millisecond, ChunkBytes: chunkBytes})
				defer c.Close()
				repo := distribution.Repository{Host: proxied, Name: "cut/" + name}
				open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
				if err := c.PushBlob(t.Context(), repo, desc, open); err != nil {
					t.Fatal(err)
				}
				if cuts.Load() < 2 {
					t.Errorf("cut %d times", cuts.Load())
				}
				repo.Host = addr
				r, err := c.Blob(t.Context(), repo, desc, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if _, err := io.Copy(io.Discard, distribution.Verify(r, desc)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
