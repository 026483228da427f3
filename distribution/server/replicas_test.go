package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	storagefs "github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/internal/testenv"
)

// replicas are three registries on the same objects behind a proxy that sends
// each request to the next one.
type replicas struct {
	t      *testing.T
	stores []*storage.Store
	url    string
	next   atomic.Uint64

	pushed, refused, removed atomic.Int64
}

func newReplicas(t *testing.T, open func() (storage.Objects, error)) *replicas {
	r := &replicas{t: t}
	var registries []http.Handler
	for range 3 {
		objects, err := open()
		if err != nil {
			t.Fatal(err)
		}
		store := storage.New(objects, storage.Options{})
		r.stores = append(r.stores, store)
		registries = append(registries, server.New(store, server.Options{}))
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		registries[r.next.Add(1)%3].ServeHTTP(w, q)
	}))
	t.Cleanup(proxy.Close)
	r.url = proxy.URL
	return r
}

func (r *replicas) do(method, path, contentType string, body []byte) (int, []byte, string) {
	q, err := http.NewRequest(method, r.url+path, bytes.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return 0, nil, ""
	}
	q.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Error(err)
		return 0, nil, ""
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Error(method, path, err)
	}
	if resp.StatusCode >= 500 {
		r.t.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return resp.StatusCode, answer, resp.Header.Get("Location")
}

// blob uploads in two requests, as clients do, so that two registries see it.
func (r *replicas) blob(repo, content string) ocispec.Descriptor {
	d := digest.FromString(content)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}
	if status, _, _ := r.do("HEAD", "/v2/"+repo+"/blobs/"+d.String(), "", nil); status == 200 {
		return desc // what clients do, and where a collector can come between
	}
	status, answer, location := r.do("POST", "/v2/"+repo+"/blobs/uploads/?mount="+d.String(), "", nil)
	if status == 201 {
		return desc
	}
	if status == 202 {
		status, answer, _ = r.do("PUT", location+"?digest="+d.String(), "application/octet-stream", []byte(content))
	}
	if status != 201 {
		r.t.Errorf("blob: %d %s", status, answer)
	}
	return desc
}

// image pushes an image of some layers that others push, too, and reports
// whether it was acknowledged.
func (r *replicas) image(repo, tag string, seed uint64) ([]byte, bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	config := r.blob(repo, fmt.Sprintf("config of %s:%s %d", repo, tag, seed%5))
	config.MediaType = ocispec.MediaTypeImageConfig
	var layers []string
	for range 2 {
		layers = append(layers, descriptor(r.blob(repo, strings.Repeat(fmt.Sprint("layer ", random.IntN(6)), 500))))
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocispec.MediaTypeImageManifest, descriptor(config), strings.Join(layers, ","))
	status, answer, _ := r.do("PUT", "/v2/"+repo+"/manifests/"+tag, ocispec.MediaTypeImageManifest, body)
	switch {
	case status == 201:
		r.pushed.Add(1)
		return body, true
	case status == 400 && bytes.Contains(answer, []byte("MANIFEST_BLOB_UNKNOWN")):
		r.refused.Add(1) // collected in the meantime: with a grace period it would not be
	default:
		r.t.Errorf("manifest: %d %s", status, answer)
	}
	return nil, false
}

// check pulls a tag whole.
func (r *replicas) check(repo, tag string, want []byte) {
	status, body, _ := r.do("GET", "/v2/"+repo+"/manifests/"+tag, "", nil)
	if status != 200 || !bytes.Equal(body, want) {
		r.t.Errorf("%s:%s is lost: %d %s", repo, tag, status, body)
		return
	}
	m := parseImage(r.t, body)
	for _, desc := range append(m.Layers, m.Config) {
		status, blob, _ := r.do("GET", "/v2/"+repo+"/blobs/"+desc.Digest.String(), "", nil)
		if status != 200 || digest.FromBytes(blob) != desc.Digest {
			r.t.Errorf("%s:%s: layer %s is lost: %d", repo, tag, desc.Digest, status)
		}
	}
}

// work pushes, checks and deletes in a repository that others use as well.
func (r *replicas) work(worker int, end time.Time) map[string][]byte {
	kept := map[string][]byte{}
	random := rand.New(rand.NewPCG(uint64(worker), 2))
	repo := fmt.Sprintf("team/app%d", worker%2)
	for i := uint64(0); time.Now().Before(end) && !r.t.Failed(); i++ {
		tag := fmt.Sprintf("w%d-%d", worker, random.IntN(4))
		switch random.IntN(5) {
		case 0:
			if kept[tag] == nil {
				continue
			}
			if status, answer, _ := r.do("DELETE", "/v2/"+repo+"/manifests/"+tag, "", nil); status != 202 {
				r.t.Errorf("delete: %d %s", status, answer)
			}
			delete(kept, tag)
			r.removed.Add(1)
		default:
			if body, ok := r.image(repo, tag, i); ok {
				kept[tag] = body
			}
			if kept[tag] != nil {
				r.check(repo, tag, kept[tag])
			}
		}
	}
	for tag, body := range kept {
		r.check(repo, tag, body)
	}
	return kept
}

// collect collects again and again, now this registry and now that one, without
// any grace.
func (r *replicas) collect(ctx context.Context) (report storage.CollectReport) {
	for i := 0; ctx.Err() == nil; i++ {
		got, err := r.stores[i%3].Collect(ctx, storage.CollectOptions{Untagged: true})
		if err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrBusy) {
			r.t.Error(err)
		}
		report.Links += got.Links
		report.BlobsRemoved += got.BlobsRemoved
		report.Manifests += got.Manifests
	}
	return report
}

// TestReplicas: nothing that an acknowledged tag leads to is ever lost, whatever
// is pushed, deleted and collected beside it, and at the end the collector
// leaves nothing else.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		long time.Duration
		open func(t *testing.T) func() (storage.Objects, error)
	}{
		{"files", 3 * time.Second, func(t *testing.T) func() (storage.Objects, error) {
			dir := t.TempDir()
			return func() (storage.Objects, error) { return storagefs.New(dir, storagefs.Options{NoSync: true}) }
		}},
		{"S3", 6 * time.Second, func(t *testing.T) func() (storage.Objects, error) {
			s := testenv.StartS3(t)
			return func() (storage.Objects, error) {
				return s3.New(s3.Options{Bucket: s.Bucket, Endpoint: s.Endpoint, Credentials: s3.Credentials{AccessKey: s.AccessKey, SecretKey: s.SecretKey}})
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newReplicas(t, c.open(t))
			ctx, stop := context.WithCancel(t.Context())
			var workers, collectors sync.WaitGroup
			var report storage.CollectReport
			collectors.Go(func() { report = r.collect(ctx) })
			end := time.Now().Add(c.long)
			all := make([]map[string][]byte, 6)
			for w := range all {
				workers.Go(func() { all[w] = r.work(w, end) })
			}
			workers.Wait()
			stop()
			collectors.Wait()
			t.Logf("%d pushes, %d refused, %d tags deleted; collected %+v", r.pushed.Load(), r.refused.Load(), r.removed.Load(), report)
			if r.pushed.Load() == 0 || report.Links == 0 {
				t.Error("nothing happened")
			}
			r.checkRest(all)
		})
	}
}

// checkRest collects once more and counts what is left.
func (r *replicas) checkRest(all []map[string][]byte) {
	if _, err := r.stores[0].Collect(r.t.Context(), storage.CollectOptions{Untagged: true}); err != nil {
		r.t.Fatal(err)
	}
	blobs := map[digest.Digest]bool{}
	for w, kept := range all {
		for tag, body := range kept {
			r.check(fmt.Sprintf("team/app%d", w%2), tag, body)
			m := parseImage(r.t, body)
			for _, desc := range append(m.Layers, m.Config) {
				blobs[desc.Digest] = true
			}
		}
	}
	report, err := r.stores[1].Collect(r.t.Context(), storage.CollectOptions{Untagged: true, DryRun: true})
	if err != nil || report.Blobs != len(blobs) || report.Links+report.BlobsRemoved+report.Manifests > 0 {
		r.t.Errorf("%+v, %v; %d blobs are in use", report, err, len(blobs))
	}
}

func descriptor(d ocispec.Descriptor) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.MediaType, d.Digest, d.Size)
}

func parseImage(t *testing.T, body []byte) (m ocispec.Manifest) {
	if err := json.Unmarshal(body, &m); err != nil {
		t.Error(err)
	}
	return m
}
