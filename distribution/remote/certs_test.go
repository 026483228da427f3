package remote_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/registries"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestCertDirs is a registry that wants to see a certificate, and shows one of
// an authority that nobody knows.
func TestCertDirs(t *testing.T) {
	made, dirs := testenv.MakeCertificates(t), t.TempDir()
	pool, err := remote.LoadCAs(made.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(made.Cert, made.Key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, ClientCAs: pool, Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	defer s.Close()
	host := s.Listener.Addr().String()

	place := func(name, from string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Join(dirs, host), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dirs, host, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ping := func() error {
		c := remote.New(remote.Options{HostTLS: remote.CertDirs{filepath.Join(dirs, "none"), dirs}.TLS, MaxAttempts: 1})
		defer c.Close()
		return c.Ping(t.Context(), host)
	}
	var unknown x509.UnknownAuthorityError
	if err := ping(); !errors.As(err, &unknown) {
		t.Error(err)
	}
	place("ca.crt", made.CA)
	if err := ping(); err == nil || errors.As(err, &unknown) {
		t.Error(err)
	}
	place("me.key", made.Key)
	if err := ping(); err == nil || !strings.Contains(err.Error(), "me.key") {
		t.Error(err)
	}
	place("me.cert", made.Cert)
	if err := ping(); err != nil {
		t.Error(err)
	}
	place("me.cert", made.Key)
	if err := ping(); err == nil || !strings.Contains(err.Error(), "me.cert") {
		t.Error(err)
	}
	for _, host := range []string{"", "..", ".", "a/b", "nobody.example"} {
		if c, err := (remote.CertDirs{dirs}).TLS(host); c != nil || err != nil {
			t.Error(host, c, err)
		}
	}
}

// A client's certificate is shown to the registry, to its token server on the same
// host, and neither to where it redirects nor to a mirror.
func TestCertificatesAreShownToTheRegistryOnly(t *testing.T) {
	made := testenv.MakeCertificates(t)
	pool, err := remote.LoadCAs(made.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(made.Cert, made.Key)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]bool{} // who was shown one
	start := func(name string, answer http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[name] = seen[name] || len(r.TLS.PeerCertificates) > 0
			mu.Unlock()
			answer(w, r)
		}))
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{pair}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	manifest := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q}`, ocispec.MediaTypeImageManifest)
	}
	storage := start("storage", manifest)
	mirror := start("mirror", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) })
	registry := start("registry", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="x"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, storage.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	handler := registry.Config.Handler
	registry.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			mu.Lock()
			seen["token server"] = len(r.TLS.PeerCertificates) > 0
			mu.Unlock()
			fmt.Fprint(w, `{"token":"good"}`)
			return
		}
		handler.ServeHTTP(w, r)
	})
	host := registry.Listener.Addr().String()
	config := &registries.Config{Registries: []registries.Registry{{Prefix: host, Mirrors: []registries.Mirror{{Location: mirror.Listener.Addr().String()}}}}}
	c := remote.NewRouted(remote.Options{RootCAs: pool, Certificates: []tls.Certificate{pair}, MaxAttempts: 1}, config)
	defer c.Close()
	if _, _, err := c.Resolve(t.Context(), parse(t, host+"/a:b")); err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"registry": true, "token server": true, "storage": false, "mirror": false}; !maps.Equal(seen, want) {
		t.Errorf("%v; want %v", seen, want)
	}
}
