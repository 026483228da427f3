package remote_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
