package service

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/internal/testenv"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// with is the log when it has the text: lines about requests take a moment.
func (l *logged) with(t *testing.T, text string) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if all := l.String(); strings.Contains(all, text) {
			return all
		} else if time.Now().After(deadline) {
			t.Fatalf("no %s in %s", text, all)
		}
	}
}

type running struct {
	addr string
	log  *logged
	stop func() error
}

// start runs a service on a free port and a directory of the test's.
func start(t *testing.T, change func(*config.Config)) running {
	t.Helper()
	c := config.Default()
	c.HTTP.Addr = "127.0.0.1:0"
	c.Storage.Location = filepath.Join(t.TempDir(), "registry")
	if change != nil {
		change(&c)
	}
	log := &logged{}
	s, err := New(c, log, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	addr, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(a net.Addr) { addr <- a }) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-addr:
		return running{a.String(), log, stop}
	case err := <-ended:
		t.Fatalf("%v\n%s", err, log)
		return running{}
	}
}

func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func push(t *testing.T, url, repo, content string) {
	t.Helper()
	resp, err := http.Post(url+"/v2/"+repo+"/blobs/uploads/?digest="+digest.FromString(content).String(), "", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
}

func TestHealthMetricsAndLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	r := start(t, func(c *config.Config) { c.Storage.Location = dir; c.Log.Format = "json" })
	url := "http://" + r.addr
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t, http.DefaultClient, url+path); status != 200 || body != "ok\n" {
			t.Error(path, status, body)
		}
	}
	push(t, url, "a/b", "12345")
	get(t, http.DefaultClient, url+"/v2/a/b/blobs/"+digest.FromString("12345").String())
	get(t, http.DefaultClient, url+"/nothing")
	status, figures := get(t, http.DefaultClient, url+"/metrics")
	for _, want := range []string{
		`tare_registry_requests_total{resource="uploads",method="POST",status="201"} 1`,
		`tare_registry_requests_total{resource="blob",method="GET",status="200"} 1`,
		`tare_registry_requests_total{resource="none",method="GET",status="404"} 1`,
		`tare_registry_request_duration_seconds_count{resource="blob",method="GET"} 1`,
		`tare_registry_received_bytes_total 5`,
		`tare_registry_uploads_open 0`,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("%d: no %s in\n%s", status, want, figures)
		}
	}
	var line map[string]any
	for _, text := range strings.Split(strings.TrimSpace(r.log.with(t, "/nothing")), "\n") {
		var one map[string]any
		if err := json.Unmarshal([]byte(text), &one); err != nil {
			t.Fatal(text, err)
		}
		if one["method"] == "POST" {
			line = one
		}
	}
	if line["msg"] != "request" || line["status"] != 201.0 || line["received"] != 5.0 || line["repository"] != "a/b" ||
		line["digest"] != digest.FromString("12345").String() || line["client"] == "" {
		t.Error(line)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, http.DefaultClient, url+"/readyz"); status != 503 {
		t.Error("ready without storage")
	}
	if status, _ := get(t, http.DefaultClient, url+"/healthz"); status != 200 {
		t.Error("not alive without storage")
	}
}

func TestMetricsElsewhere(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	r := start(t, func(c *config.Config) { c.Metrics.Addr = addr })
	if status, _ := get(t, http.DefaultClient, "http://"+r.addr+"/metrics"); status != 404 {
		t.Error(status)
	}
	if status, body := get(t, http.DefaultClient, "http://"+addr+"/metrics"); status != 200 || !strings.Contains(body, "tare_registry_") {
		t.Error(status, body)
	}
}

func TestLimits(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Limits.Uploads, c.Limits.BlobSize, c.Limits.Delete, c.Limits.ManifestSize, c.Limits.CatalogPage = 2, 10, false, 1<<10, 2
	})
	url := "http://" + r.addr
	do := func(method, path, body string, want int) http.Header {
		t.Helper()
		req, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s: %s, want %d: %s", method, path, resp.Status, want, text)
		}
		return resp.Header
	}
	for range 2 {
		do("POST", "/v2/a/blobs/uploads/", "", 202)
	}
	if h := do("POST", "/v2/a/blobs/uploads/", "", 429); h.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	d := digest.FromString("x").String()
	do("DELETE", "/v2/a/blobs/"+d, "", 405)
	do("DELETE", "/v2/a/manifests/"+d, "", 405)
	do("DELETE", "/v2/a/manifests/tag", "", 405)
	do("PUT", "/v2/a/manifests/x", `{"a":"`+strings.Repeat("x", 1<<10)+`"}`, 413)
	for _, repo := range []string{"c", "a", "a/b", "a-b", "a/b/c"} {
		do("PUT", "/v2/"+repo+"/manifests/x", "{}", 201)
	}
	var all []string
	for path, pages := "/v2/_catalog?n=100000000", 0; path != ""; pages++ {
		status, body := get(t, http.DefaultClient, url+path)
		var list struct{ Repositories []string }
		if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || len(list.Repositories) > 2 || pages > 5 {
			t.Fatal(status, body)
		}
		all = append(all, list.Repositories...)
		path = ""
		if len(list.Repositories) == 2 {
			path = "/v2/_catalog?last=" + list.Repositories[1]
		}
	}
	if got := strings.Join(all, " "); got != "a a/b a/b/c a-b c" {
		t.Error(got)
	}
	for _, bad := range []string{"n=-1", "n=x", "last=../x", "last=A"} {
		do("GET", "/v2/_catalog?"+bad, "", 400)
	}
}

func TestBlobSizeLimit(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Limits.BlobSize = 10 })
	url := "http://" + r.addr
	push(t, url, "a", "0123456789")
	resp, err := http.Post(url+"/v2/a/blobs/uploads/?digest="+digest.FromString("01234567890").String(), "", strings.NewReader("01234567890"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Error(resp.Status)
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.make("authority", 1, true)
	return a
}

func (a *authority) make(name string, serial int64, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: isCA, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if isCA {
		parent, signer = template, key
		template.KeyUsage = x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(dir, name string, cert *x509.Certificate, key *ecdsa.PrivateKey) (certFile, keyFile string) {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert.Raw}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// TestCertificatesAreReloaded: a new certificate is served without a restart,
// and half a one is not.
func TestCertificatesAreReloaded(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := ca.make("first", 2, false)
	certFile, keyFile := ca.write(dir, "server", cert, key)
	r := start(t, func(c *config.Config) { c.TLS.Cert, c.TLS.Key = certFile, keyFile })
	serial := func() int64 {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
		resp, err := client.Get("https://" + r.addr + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Error("no HTTP/2")
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 2 {
		t.Fatal(got)
	}
	if err := os.WriteFile(certFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lookInterval + 100*time.Millisecond)
	if got := serial(); got != 2 || !strings.Contains(r.log.String(), "certificate not reloaded") {
		t.Fatal(got, r.log)
	}
	cert, key = ca.make("second", 3, false)
	ca.write(dir, "server", cert, key)
	time.Sleep(lookInterval + 100*time.Millisecond)
	if got := serial(); got != 3 {
		t.Fatal(got)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := ca.make("server", 2, false)
	certFile, keyFile := ca.write(dir, "server", cert, key)
	caFile, _ := ca.write(dir, "ca", ca.cert, ca.key)
	r := start(t, func(c *config.Config) { c.TLS = config.TLS{Cert: certFile, Key: keyFile, ClientCA: caFile} })
	cert, key = ca.make("client", 4, false)
	stranger := newAuthority(t)
	strange, strangeKey := stranger.make("client", 5, false)
	for name, c := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{
		"ours":  {[]tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, true},
		"other": {[]tls.Certificate{{Certificate: [][]byte{strange.Raw}, PrivateKey: strangeKey}}, false},
		"none":  {nil, false},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool(), Certificates: c.certs}, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + r.addr + "/v2/")
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}

// TestStopDrains: who has begun may finish, and is told nothing of the end.
func TestStopDrains(t *testing.T) {
	r := start(t, nil)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234", digest.FromString("0123456789"))
	time.Sleep(100 * time.Millisecond)
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	time.Sleep(100 * time.Millisecond)
	io.WriteString(conn, "56789")
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 201")) {
		t.Errorf("%s %v", answer, err)
	}
	if err := <-stopped; err != nil || !strings.Contains(r.log.String(), "msg=stopped") {
		t.Error(err, r.log)
	}
}

func TestHalfAHeaderIsNotWaitedFor(t *testing.T) {
	r := start(t, func(c *config.Config) { c.HTTP.HeaderTimeout = config.Duration(200 * time.Millisecond) })
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHo")
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Error(err)
	}
}

// TestBucket: the whole on object storage, with blobs read from where they are.
func TestBucket(t *testing.T) {
	server := testenv.StartS3(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(server.SecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, redirect := range []bool{false, true} {
		r := start(t, func(c *config.Config) {
			c.Storage.Location = "s3://" + server.Bucket + "/deep/prefix"
			c.Storage.S3 = config.S3{Endpoint: server.Endpoint, AccessKey: server.AccessKey, SecretKeyFile: key, Redirect: redirect}
		})
		url := "http://" + r.addr
		if status, body := get(t, http.DefaultClient, url+"/readyz"); status != 200 {
			t.Fatal(status, body, r.log)
		}
		content := strings.Repeat("0123456789", 2_000_000) // several pieces
		push(t, url, "a/b", content)
		hops := 0
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { hops++; return nil }}
		status, body := get(t, client, url+"/v2/a/b/blobs/"+digest.FromString(content).String())
		if status != 200 || body != content || hops > 0 != redirect {
			t.Errorf("%d, %d bytes, %d redirects", status, len(body), hops)
		}
	}
}
