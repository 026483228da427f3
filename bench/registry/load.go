package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

type sample struct {
	name  string
	value float64
}

// load puts a registry to work; after the first error it does nothing more.
type load struct {
	*server
	ctx     context.Context
	samples []sample
	err     error
}

const (
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	blobBytes     = 20 << 20
	layerBytes    = 256 << 20 / 5
	smallRequests = 10_000
	blobRequests  = 64
)

func (l *load) add(name string, value float64) { l.samples = append(l.samples, sample{name, value}) }

func (l *load) all() {
	time.Sleep(200 * time.Millisecond)
	l.memoryOf("idle memory, MB", "VmRSS")
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	blob := make([]byte, blobBytes)
	rand.Read(blob)
	manifest := l.pushImage("bench/app", config, [][]byte{blob})
	time.Sleep(3 * time.Second) // what has just been changed may be handled otherwise
	configPath := "/v2/bench/app/blobs/" + digest.FromBytes(config).String()
	blobPath := "/v2/bench/app/blobs/" + digest.FromBytes(blob).String()
	for _, small := range []struct {
		name, path string
		size       int
	}{{"manifest GET", "/v2/bench/app/manifests/v1", len(manifest)}, {"config blob GET", configPath, len(config)}} {
		took, cpu := l.timed(func() { l.get(small.path, int64(small.size), smallRequests, 8) })
		l.add(small.name+", µs CPU", float64(cpu.Microseconds())/smallRequests)
		l.add(small.name+", 1/s", smallRequests/took.Seconds())
	}
	for _, clients := range []int{8, 64} {
		l.do(l.forgetPeak)
		took, cpu := l.timed(func() { l.get(blobPath, blobBytes, blobRequests, clients) })
		gb := float64(blobBytes) * blobRequests / 1e9
		l.add(fmt.Sprintf("20 MB blobs, %d clients, MB/s", clients), gb*1e3/took.Seconds())
		l.add(fmt.Sprintf("20 MB blobs, %d clients, CPU s/GB", clients), cpu.Seconds()/gb)
		l.memoryOf(fmt.Sprintf("20 MB blobs, %d clients, peak MB", clients), "VmHWM")
	}
	layers := make([][]byte, 5)
	for i := range layers {
		layers[i] = make([]byte, layerBytes)
		rand.Read(layers[i])
	}
	l.do(l.forgetPeak)
	took, cpu := l.timed(func() { l.pushImage("bench/large", config, layers) })
	l.add("push of 256 MB, s", took.Seconds())
	l.add("push of 256 MB, CPU s", cpu.Seconds())
	l.memoryOf("push of 256 MB, peak MB", "VmHWM")
}

func (l *load) do(f func() error) {
	if l.err == nil {
		l.err = f()
	}
}

func (l *load) memoryOf(name, line string) {
	l.do(func() error {
		mb, err := l.memory(line)
		l.add(name, mb)
		return err
	})
}

// timed returns the wall time of f, and the server's processor time meanwhile.
func (l *load) timed(f func()) (took, cpu time.Duration) {
	before, err := l.cpu()
	start := time.Now()
	l.do(func() error { return err })
	f()
	took = time.Since(start)
	after, err := l.cpu()
	l.do(func() error { return err })
	return took, after - before
}

// get asks n times for the same, by so many clients side by side.
func (l *load) get(path string, wantBytes int64, n, clients int) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(n))
	var group sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := l.getOne(client, path, wantBytes); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		l.do(func() error { return err })
	}
}

func (l *load) getOne(client *http.Client, path string, wantBytes int64) error {
	q, err := http.NewRequestWithContext(l.ctx, http.MethodGet, l.url+path, nil)
	if err != nil {
		return err
	}
	q.Header.Set("Accept", manifestType)
	resp, err := client.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || got != wantBytes) {
		err = fmt.Errorf("GET %s: %s, %d bytes, want %d", path, resp.Status, got, wantBytes)
	}
	return err
}

// pushImage pushes layers side by side, then the manifest with the tag v1.
func (l *load) pushImage(repo string, config []byte, layers [][]byte) (manifest []byte) {
	var group sync.WaitGroup
	var mu sync.Mutex
	var list []byte
	for _, blob := range append([][]byte{config}, layers...) {
		group.Go(func() {
			err := l.pushBlob(repo, blob)
			mu.Lock()
			defer mu.Unlock()
			l.do(func() error { return err })
		})
	}
	group.Wait()
	for _, layer := range layers {
		list = fmt.Appendf(list, `,{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromBytes(layer), len(layer))
	}
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		manifestType, digest.FromBytes(config), len(config), list[1:])
	l.do(func() error {
		_, err := l.send(http.MethodPut, l.url+"/v2/"+repo+"/manifests/v1", manifestType, manifest, http.StatusCreated)
		return err
	})
	return manifest
}

func (l *load) pushBlob(repo string, blob []byte) error {
	location, err := l.send(http.MethodPost, l.url+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	u := location.Query()
	u.Set("digest", digest.FromBytes(blob).String())
	location.RawQuery = u.Encode()
	_, err = l.send(http.MethodPut, location.String(), "application/octet-stream", blob, http.StatusCreated)
	return err
}

// send returns the answer's Location, as an absolute URL.
func (l *load) send(method, target, contentType string, body []byte, want int) (*url.URL, error) {
	q, err := http.NewRequestWithContext(l.ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: %s: %s", method, target, resp.Status, text)
	}
	if err != nil {
		return nil, err
	}
	return q.URL.Parse(resp.Header.Get("Location"))
}
