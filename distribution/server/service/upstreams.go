package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/upstream"
)

// openUpstreams makes the registries that the configuration names, nil if there
// are none. Passwords are read again for each use, but have to be there now.
func (s *Service) openUpstreams(getenv func(string) string) (*upstream.Set, error) {
	sources := s.config.Sources()
	if len(sources) == 0 {
		return nil, nil
	}
	for i, c := range s.config.Upstream {
		fail := func(err error) (*upstream.Set, error) { return nil, fmt.Errorf("upstream %d: %w", i+1, err) }
		if c.User != "" {
			sources[i].User, sources[i].Password = c.User, password(c, getenv)
			if _, err := sources[i].Password(); err != nil {
				return fail(err)
			}
		}
		if c.CA != "" {
			pool, err := remote.LoadCAs(c.CA)
			if err != nil {
				return fail(err)
			}
			sources[i].RootCAs = pool
		}
	}
	reads := s.metrics.Counter("tare_registry_upstream_reads_total", "Reads of what is a copy, by the upstream's prefix, what was read, and what became of it.", "prefix", "kind", "result")
	o := upstream.Options{
		Sources: sources, Log: s.log,
		Count: func(prefix, kind, result string) { reads.Add(1, prefix, kind, result) },
	}
	if location := s.config.Storage.Location; !strings.Contains(location, "://") {
		o.SpoolDir = filepath.Join(location, spoolDir)
		if err := os.MkdirAll(o.SpoolDir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory for blobs that come: %w", err)
		}
	}
	return upstream.New(s.store, o)
}

// spoolDir is beside the storage driver's own directories.
const spoolDir = "spool"

const maxSecretBytes = 64 << 10

func password(c config.Upstream, getenv func(string) string) func() (string, error) {
	if c.PasswordFile != "" {
		return func() (string, error) { return readSecret(c.PasswordFile) }
	}
	return func() (string, error) {
		value := getenv(c.PasswordEnv)
		if value == "" {
			return "", fmt.Errorf("password-env: %s is not set", c.PasswordEnv)
		}
		return value, nil
	}
}

// readSecret is a file's text without the line feed at its end.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read secret: %w", err)
	case len(data) > maxSecretBytes:
		return "", fmt.Errorf("read secret: %s has more than %d bytes", path, maxSecretBytes)
	}
	return string(bytes.TrimRight(data, "\r\n")), nil
}

const expireInterval = time.Hour

// expireNowAndThen removes from copies what was not asked for in a long time.
func (s *Service) expireNowAndThen(ctx context.Context) {
	for {
		removed, err := s.upstreams.Expire(ctx)
		switch {
		case errors.Is(err, storage.ErrBusy): // another registry does it
		case err != nil && ctx.Err() == nil:
			s.log.Error("expire copies", "err", err)
		case removed > 0:
			s.log.Info("expired copies", "manifests-removed", removed)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(expireInterval):
		}
	}
}
