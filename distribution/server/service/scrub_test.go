package service

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/config"
)

// spoil changes a byte of a blob's file.
func spoil(t *testing.T, dir string, d digest.Digest) {
	t.Helper()
	file := filepath.Join(dir, "blobs/sha256", d.Encoded()[:2], d.Encoded(), "data")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyOnRead: no client takes a rotten blob for a whole one, by HTTP/1.1 or
// 2, and the next one is told that it is not there.
func TestVerifyOnRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	ca := newAuthority(t)
	cert, key := ca.make("server", 2, false)
	certFile, keyFile := ca.write(t.TempDir(), "server", cert, key)
	r := start(t, func(c *config.Config) {
		c.Storage.Location, c.Storage.VerifyOnRead = dir, true
		c.TLS = config.TLS{Cert: certFile, Key: keyFile}
	})
	for _, h2 := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: true, ForceAttemptHTTP2: h2,
		}}
		content := strings.Repeat("0123456789", 200_000)
		d := digest.FromString(content)
		url := "https://" + r.addr + "/v2/a/blobs/" + d.String()
		resp, err := client.Post("https://"+r.addr+"/v2/a/blobs/uploads/?digest="+d.String(), "", strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if status, body := get(t, client, url); status != 200 || body != content {
			t.Fatal(status, len(body))
		}
		spoil(t, dir, d)
		if resp, err = client.Get(url); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil || len(got) >= len(content) || (resp.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %v: %d of %d bytes, %v", h2, len(got), len(content), err)
		}
		if status, _ := get(t, client, url); status != 404 {
			t.Error(status)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: true}}
	if _, figures := get(t, client, "https://"+r.addr+"/metrics"); !strings.Contains(figures, "tare_registry_rotten_blobs_total 2\n") {
		t.Error(figures)
	}
	r.log.with(t, "blob is rotten")
}

// TestScrubber: it begins by itself, and finds what is rotten.
func TestScrubber(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	first := start(t, func(c *config.Config) { c.Storage.Location = dir })
	push(t, "http://"+first.addr, "a", "good")
	push(t, "http://"+first.addr, "a", "bad")
	spoil(t, dir, digest.FromString("bad"))
	r := start(t, func(c *config.Config) { c.Storage.Location, c.Scrub.Rate = dir, 1<<20 })
	r.log.with(t, "msg=scrubbed blobs=1 bytes=4 rotten=1 unreadable=0")
	for content, want := range map[string]int{"good": 200, "bad": 404} {
		if status, _ := get(t, http.DefaultClient, "http://"+first.addr+"/v2/a/blobs/"+digest.FromString(content).String()); status != want {
			t.Error(content, status)
		}
	}
	if _, figures := get(t, http.DefaultClient, "http://"+r.addr+"/metrics"); !strings.Contains(figures, "tare_registry_scrubbed_bytes_total 4\n") {
		t.Error(figures)
	}
}
