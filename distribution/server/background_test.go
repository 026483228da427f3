package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
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
	"github.com/tare-oci/tare/distribution/server/upstream"
	"github.com/tare-oci/tare/internal/testenv"
)

// background is everything that a registry does beside its clients' requests, again
// and again, on two registries that share a storage and on a copy of them. The pause
// is for the clients: without, they come to one round each, in half a minute.
type background struct {
	t      *testing.T
	grace  time.Duration
	stores []*storage.Store
	urls   []string
	mirror *upstream.Set
	copied string // the copy's URL
	done   atomic.Int64
}

func newBackground(t *testing.T, grace time.Duration, open func(name string) (storage.Objects, error)) *background {
	b := &background{t: t, grace: grace}
	quota := func(repo string) (storage.Quota, bool) {
		first, _, _ := strings.Cut(repo, "/")
		return storage.Quota{Namespace: first, LimitBytes: 1 << 40}, true
	}
	store := func(name string) *storage.Store {
		objects, err := open(name)
		if err != nil {
			t.Fatal(err)
		}
		return storage.New(objects, storage.Options{Grace: grace, Patience: 5 * time.Second, Quota: quota, QuotaRules: "first", Rotten: func(r storage.Rot) { t.Errorf("rotten: %+v", r) }})
	}
	for range 2 {
		s := store("registry")
		b.stores = append(b.stores, s)
		b.urls = append(b.urls, "http://"+serve(t, server.New(s, server.Options{})))
	}
	copies := store("copy")
	var err error
	b.mirror, err = upstream.New(copies, upstream.Options{Sources: []upstream.Source{{URL: b.urls[0], Keep: time.Millisecond}}, SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.mirror.Close)
	b.copied = "http://" + serve(t, server.New(copies, server.Options{Upstream: b.mirror}))
	return b
}

// work does one kind of it until ctx ends. That another registry is at the same is
// no error.
func (b *background) work(ctx context.Context, group *sync.WaitGroup, what string, do func(context.Context) error) {
	group.Go(func() {
		rounds := 0
		for ; ctx.Err() == nil; rounds++ {
			time.Sleep(5 * time.Millisecond)
			if err := do(ctx); err != nil && !errors.Is(err, storage.ErrBusy) && ctx.Err() == nil {
				b.t.Errorf("%s: %v", what, err)
			}
		}
		b.t.Logf("%s: %d times", what, rounds)
	})
}

func (b *background) start(ctx context.Context, group *sync.WaitGroup) {
	collect := storage.CollectOptions{Grace: b.grace, Untagged: true, Retention: func(repo string) *storage.Retention {
		if strings.HasPrefix(repo, "old/") {
			return &storage.Retention{KeepNewest: 1}
		}
		return nil
	}}
	for _, s := range append(b.stores, b.mirror.Store) {
		b.work(ctx, group, "collect", func(ctx context.Context) error { _, err := s.Collect(ctx, collect); return err })
		b.work(ctx, group, "expire uploads", func(ctx context.Context) error {
			_, err := s.ExpireUploads(ctx, time.Now().Add(-time.Minute))
			return err
		})
		b.work(ctx, group, "scrub", func(ctx context.Context) error { _, err := s.Scrub(ctx, storage.ScrubOptions{}); return err })
	}
	b.work(ctx, group, "expire copies", func(ctx context.Context) error { _, err := b.mirror.Expire(ctx); return err })
}

// client is one that works against one of the registries, or the copy.
func (b *background) client(url, repo string) *client {
	return &client{b.t, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}, url, repo, b.grace, &b.done}
}

// image pushes an image of a config and a layer, the layer in two chunks that two
// registries get.
func (b *background) image(c *client, tag, content string) ocispec.Descriptor {
	config, layer := []byte(`{"of":"`+content+`"}`), []byte(strings.Repeat(content, 5000))
	c.do("POST", "/blobs/uploads/?digest="+digest.FromBytes(config).String(), config, 201)
	q, _ := http.NewRequest("POST", b.urls[0]+"/v2/"+c.repo+"/blobs/uploads/", nil)
	resp, err := c.http.Do(q)
	if err != nil || resp.StatusCode != 202 {
		b.t.Error("begin upload: ", err)
		return ocispec.Descriptor{}
	}
	resp.Body.Close()
	upload := strings.TrimPrefix(resp.Header.Get("Location"), "/v2/"+c.repo)
	for i, piece := range [][]byte{layer[:1000], layer[1000:]} {
		at := *c
		at.url = b.urls[i]
		at.do("PATCH", upload, piece, 202)
		at.do("GET", upload, nil, 204)
	}
	c.do("PUT", upload+"?digest="+digest.FromBytes(layer).String(), nil, 201)
	c.do("HEAD", "/blobs/"+digest.FromBytes(layer).String(), nil, 200)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(config), len(config), digest.FromBytes(layer), len(layer))
	c.do("PUT", "/manifests/"+tag, manifest, 201)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
}

// round moves a tag, attaches something to what it leads to, reads all of it at the
// other registry, and removes what the tag led to before.
func (b *background) round(c *client, i int, random *rand.Rand) {
	tag := fmt.Sprintf("t%d", i)
	content := func() string { return fmt.Sprintf("%s %x", tag, random.Uint64()) }
	one := b.image(c, tag, content())
	two := b.image(c, tag, content())
	referrer := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"a/b","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":%s}`,
		ocispec.MediaTypeImageManifest, ocispec.DescriptorEmptyJSON.Digest, descriptor(two))
	c.do("POST", "/blobs/uploads/?digest="+ocispec.DescriptorEmptyJSON.Digest.String(), []byte("{}"), 201)
	c.do("PUT", "/manifests/"+digest.FromBytes(referrer).String(), referrer, 201)
	other := *c
	other.url = b.urls[1]
	if list := other.do("GET", "/referrers/"+two.Digest.String(), nil, 200); !bytes.Contains(list, []byte(digest.FromBytes(referrer))) {
		b.t.Errorf("referrers: %s", list)
	}
	if list := other.do("GET", "/tags/list", nil, 200); !bytes.Contains(list, []byte(`"`+tag+`"`)) {
		b.t.Errorf("tags: %s", list)
	}
	for _, at := range []*client{&other, {c.t, c.http, b.copied, c.repo, c.grace, c.done}} {
		m := parseImage(b.t, at.do("GET", "/manifests/"+tag, nil, 200))
		for _, desc := range append(m.Layers, m.Config) {
			if got := at.do("GET", "/blobs/"+desc.Digest.String(), nil, 200); digest.FromBytes(got) != desc.Digest {
				b.t.Errorf("blob of %d bytes", len(got))
			}
		}
	}
	c.do("DELETE", "/manifests/"+one.Digest.String(), nil, 202, 404) // or collected, having no tag
	other.do("GET", "/manifests/"+tag, nil, 200)
	old := *c
	old.repo = "old/" + c.repo
	b.image(&old, fmt.Sprintf("t%d", random.Uint64()), content())
	c.do("POST", "/blobs/uploads/?from="+c.repo+"&mount="+ocispec.DescriptorEmptyJSON.Digest.String(), nil, 201)
	other.do("DELETE", "/manifests/"+tag, nil, 202)
}

// TestBackground: clients notice nothing of expiry, collection, retention, counting
// and scrubbing, on whichever registry.
func TestBackground(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clients int
		lasts   time.Duration
		grace   time.Duration
		open    func(t *testing.T) func(name string) (storage.Objects, error)
	}{
		"files": {12, 3 * time.Second, 5 * time.Second, func(t *testing.T) func(string) (storage.Objects, error) {
			dir := t.TempDir()
			return func(name string) (storage.Objects, error) {
				return storagefs.New(dir+"/"+name, storagefs.Options{NoSync: true})
			}
		}},
		"S3": {4, 3 * time.Second, 20 * time.Second, func(t *testing.T) func(string) (storage.Objects, error) {
			s := testenv.StartS3(t)
			return func(name string) (storage.Objects, error) {
				return s3.New(s3.Options{Bucket: s.Bucket, Prefix: name, Endpoint: s.Endpoint, Credentials: s3.Credentials{AccessKey: s.AccessKey, SecretKey: s.SecretKey}})
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackground(t, c.grace, c.open(t))
			ctx, stop := context.WithCancel(t.Context())
			var workers, clients sync.WaitGroup
			b.start(ctx, &workers)
			end := time.Now().Add(c.lasts)
			for i := range c.clients {
				client := b.client(b.urls[i%2], fmt.Sprintf("team/app%d", i%3))
				random := rand.New(rand.NewPCG(3, uint64(i)))
				clients.Go(func() {
					defer client.http.CloseIdleConnections()
					for time.Now().Before(end) && !t.Failed() {
						b.round(client, i, random)
					}
				})
			}
			clients.Wait()
			stop()
			workers.Wait()
			t.Logf("%d requests", b.done.Load())
		})
	}
}
