package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server/config"
)

// certificates are read again when their files have changed, which is looked
// for at most once a second, when somebody connects. What cannot be read leaves
// what was there before.
type certificates struct {
	files config.TLS
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	stamp   [3]fileStamp
	looked  time.Time
}

type fileStamp struct {
	modified  time.Time
	sizeBytes int64
}

const lookInterval = time.Second

func loadCertificates(files config.TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log}
	c.stamp = c.stamps()
	var err error
	c.current, err = c.load()
	c.looked = time.Now()
	return c, err
}

func (c *certificates) stamps() (stamps [3]fileStamp) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

func (c *certificates) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", c.files.Cert, err)
	}
	t := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.files.ClientCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.files.ClientCA)
	if err == nil {
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			err = errors.New("no certificate in it")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load client authority %s: %w", c.files.ClientCA, err)
	}
	t.ClientAuth = tls.RequireAndVerifyClientCert
	return t, nil
}

// config is for the listener; each connection gets the current one.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.get(), nil
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &c.get().Certificates[0], nil // net/http wants to see one
		},
	}
}

func (c *certificates) get() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookInterval {
		return c.current
	}
	c.looked = time.Now()
	stamp := c.stamps()
	if stamp == c.stamp {
		return c.current
	}
	c.stamp = stamp
	fresh, err := c.load()
	if err != nil {
		// Perhaps only one of two files is new yet: the other will change, too.
		c.log.Error("certificate not reloaded", "err", err)
		return c.current
	}
	c.log.Info("certificate reloaded", "file", c.files.Cert)
	c.current = fresh
	return fresh
}
