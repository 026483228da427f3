package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// CertDirs finds the certificates for registries in directories laid out as
// Docker's and containers' certs.d (containers-certs.d(5)):
//
//	DIR/HOST[:PORT]/NAME.crt               an authority to be trusted, beside the system's
//	DIR/HOST[:PORT]/NAME.cert, NAME.key    what this client shows of itself
//
// The first directory that has one for the host counts. Files of other names
// are not looked at.
type CertDirs []string

// DefaultCertDirs are the usual places. getenv is os.Getenv.
func DefaultCertDirs(getenv func(string) string) CertDirs {
	dirs := CertDirs{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		dirs = append(CertDirs{filepath.Join(config, "containers/certs.d")}, dirs...)
	}
	return dirs
}

// TLS makes a configuration for host, nil where there are no certificates for
// it: it is for Options.HostTLS.
func (d CertDirs) TLS(host string) (*tls.Config, error) {
	if host == "" || strings.ContainsAny(host, "/\x00") || host[0] == '.' {
		return nil, nil // no host, and no name of a directory
	}
	for _, dir := range d {
		dir = filepath.Join(dir, host)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return LoadCertDir(dir)
	}
	return nil, nil
}

// LoadCertDir reads the certificates in one directory, as CertDirs has them
// for a host.
func LoadCertDir(dir string) (*tls.Config, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var authorities []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch base := strings.TrimSuffix(path, filepath.Ext(path)); filepath.Ext(path) {
		case ".crt":
			authorities = append(authorities, path)
		case ".cert":
			pair, err := tls.LoadX509KeyPair(path, base+".key")
			if err != nil {
				return nil, fmt.Errorf("load client certificate %s with %s: %w", path, filepath.Base(base)+".key", err)
			}
			config.Certificates = append(config.Certificates, pair)
		case ".key":
			if _, err := os.Stat(base + ".cert"); err != nil {
				return nil, fmt.Errorf("load client key %s: no certificate beside it: %w", path, err)
			}
		}
	}
	if len(authorities) > 0 {
		config.RootCAs, err = LoadCAs(authorities...)
	}
	return config, err
}

// hostTransports sends requests to hosts with certificates of their own by
// transports of their own.
type hostTransports struct {
	*http.Transport // for all others
	tls             func(host string) (*tls.Config, error)
	certificates    []tls.Certificate // for the registry that a call is for, see askedFor

	mu     sync.Mutex
	byHost map[shown]*http.Transport
}

// shown is a host, and whether it is shown the certificates.
type shown struct {
	host         string
	certificates bool
}

// askedFor is the key of a request's context with the host that the call is for. A
// redirect keeps the context, and leads to another host.
type askedFor struct{}

// RoundTrip implements http.RoundTripper.
func (h *hostTransports) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	t, err := h.transport(shown{host, len(h.certificates) > 0 && req.Context().Value(askedFor{}) == host})
	if err != nil {
		return nil, permanent{err}
	}
	return t.RoundTrip(req)
}

func (h *hostTransports) transport(to shown) (*http.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.byHost[to]; ok {
		return t, nil
	}
	config, err := h.tls(to.host)
	if err != nil {
		return nil, err
	}
	if to.certificates {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		config.Certificates = h.certificates
	}
	t := h.Transport
	if config != nil {
		if config.RootCAs == nil {
			config.RootCAs = t.TLSClientConfig.RootCAs
		}
		t = t.Clone()
		t.TLSClientConfig = config
	}
	h.byHost[to] = t
	return t, nil
}

// CloseIdleConnections is for http.Client.
func (h *hostTransports) CloseIdleConnections() {
	h.Transport.CloseIdleConnections()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.byHost {
		t.CloseIdleConnections()
	}
}

// LoadCAs is the system's certificate authorities and those in the PEM files.
func LoadCAs(files ...string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("load system certificates: %w", err)
	}
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("load certificates: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load certificates %s: no PEM certificate in it", file)
		}
	}
	return pool, nil
}
