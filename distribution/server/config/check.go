package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/upstream"
	"github.com/tare-oci/tare/distribution/server/webhook"
)

// ErrNeedsAuth is a registry that everybody on the network could write to.
var ErrNeedsAuth = errors.New("refuses to listen beyond this machine without authentication")

// Check finds what no registry can be made of. It opens no file and no port.
func (c *Config) Check() error {
	for _, check := range []func() error{
		c.checkHTTP, c.checkTLS, c.checkStorage, c.checkLimits, c.checkLog, c.checkAccess, c.checkUpstreams, c.checkWebhooks,
		c.checkRetention, c.checkQuota, c.checkToken, c.checkRate,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkHTTP() error {
	local, err := loopback("http.addr", c.HTTP.Addr)
	if err != nil {
		return err
	}
	if !local && !c.HasAuth() && !c.HTTP.InsecureNoAuth {
		return fmt.Errorf("http.addr %s: %w", c.HTTP.Addr, ErrNeedsAuth)
	}
	if c.Metrics.Addr != "" {
		if _, err := loopback("metrics.addr", c.Metrics.Addr); err != nil {
			return err
		}
	}
	for name, d := range map[string]Duration{
		"header-timeout": c.HTTP.HeaderTimeout, "idle-timeout": c.HTTP.IdleTimeout,
		"keep-alive": c.HTTP.KeepAlive, "drain-timeout": c.HTTP.DrainTimeout,
	} {
		if d <= 0 {
			return fmt.Errorf("http.%s: must be more than nothing", name)
		}
	}
	if c.HTTP.MaxHeader < 4<<10 || c.HTTP.MaxHeader > 16<<20 {
		return errors.New("http.max-header: must be from 4KiB to 16MiB")
	}
	return nil
}

// HasAuth reports whether clients have to say who they are.
func (c *Config) HasAuth() bool {
	return c.TLS.ClientCA != "" || c.Auth.Passwords != "" || c.Auth.Token.Keys != ""
}

// loopback reports whether nobody outside this machine can connect to addr.
func loopback(key, addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return false, fmt.Errorf("%s: %q is no HOST:PORT", key, addr)
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback(), nil
}

func (c *Config) checkTLS() error {
	switch t := c.TLS; {
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("tls: cert and key go together")
	case t.ClientCA != "" && t.Cert == "":
		return errors.New("tls.client-ca: needs cert and key, too")
	}
	return nil
}

func (c *Config) checkStorage() error {
	switch scheme, _, remote := strings.Cut(c.Storage.Location, "://"); {
	case c.Storage.Location == "":
		return errors.New("storage.location: is not set")
	case remote && scheme != "s3":
		return fmt.Errorf("storage.location: no driver for %s://", scheme)
	case c.Storage.VerifyOnRead && c.Storage.S3.Redirect:
		return errors.New("storage.verify-on-read: what clients read from the bucket (storage.s3.redirect) cannot be verified")
	}
	return nil
}

func (c *Config) checkLimits() error {
	l := c.Limits
	switch {
	case l.ManifestSize < 1<<10 || l.ManifestSize > distribution.MaxManifestSizeBytes:
		return fmt.Errorf("limits.manifest-size: must be from 1KiB to %s", Size(distribution.MaxManifestSizeBytes))
	case l.UploadAge <= 0:
		return errors.New("limits.upload-age: must be more than nothing")
	}
	for name, n := range map[string]int{"tags-page": l.TagsPage, "catalog-page": l.CatalogPage, "uploads": l.Uploads} {
		if n < 1 || n > 1_000_000 {
			return fmt.Errorf("limits.%s: must be from 1 to 1000000", name)
		}
	}
	return nil
}

func (c *Config) checkLog() error {
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return fmt.Errorf("log.format: %q is neither text nor json", c.Log.Format)
	}
	return nil
}

func (c *Config) checkAccess() error {
	if len(c.Access) > 0 && !c.HasAuth() {
		return errors.New("access: rules need auth.passwords, auth.token or tls.client-ca")
	}
	if err := access.Check(c.Rules(), c.Auth.Groups); err != nil {
		return err
	}
	for i, f := range c.Fixed {
		for _, pattern := range slices.Concat(f.Repositories, f.Tags) {
			if !access.ValidPattern(pattern) {
				return fmt.Errorf("fixed rule %d: bad pattern %q", i+1, pattern)
			}
		}
	}
	return nil
}

func (c *Config) checkUpstreams() error {
	for i, u := range c.Upstream {
		switch {
		case u.PasswordFile != "" && u.PasswordEnv != "":
			return fmt.Errorf("upstream %d: password-file or password-env, not both", i+1)
		case (u.User != "") != (u.PasswordFile+u.PasswordEnv != ""):
			return fmt.Errorf("upstream %d: user goes together with password-file or password-env", i+1)
		}
	}
	return upstream.Check(c.Sources())
}

func (c *Config) checkWebhooks() error {
	for i, e := range c.Endpoints() {
		if err := e.Check(); err != nil {
			return fmt.Errorf("webhook %d: %w", i+1, err)
		}
	}
	return nil
}

// Endpoints are the webhooks as package webhook has them, without what is in files.
func (c *Config) Endpoints() (endpoints []webhook.Endpoint) {
	for _, w := range c.Webhook {
		endpoints = append(endpoints, webhook.Endpoint{
			URL: w.URL, Format: cmp.Or(w.Format, "cloudevents"), Source: w.Source, Repositories: w.Repositories, Actions: w.Actions,
			Timeout: time.Duration(w.Timeout), Attempts: w.Attempts, Queue: w.Queue,
		})
	}
	return endpoints
}

const (
	defaultFresh   = 5 * time.Minute
	defaultMissing = 10 * time.Second
)

// Sources are the upstreams as package upstream has them, without passwords and
// authorities.
func (c *Config) Sources() (sources []upstream.Source) {
	for _, u := range c.Upstream {
		sources = append(sources, upstream.Source{
			Prefix: u.Prefix, KeepPrefix: u.KeepPrefix, URL: u.URL, Namespace: u.Namespace, Except: u.Except,
			Fresh: u.Fresh.or(defaultFresh), Missing: u.Missing.or(defaultMissing), Keep: time.Duration(u.Keep),
		})
	}
	return sources
}

// Rules are the access rules as package access has them.
func (c *Config) Rules() (rules []access.Rule) {
	for _, r := range c.Access {
		rules = append(rules, access.Rule(r))
	}
	return rules
}

// IsFixed reports whether a tag may not be moved or removed.
func (c *Config) IsFixed(repo, tag string) bool {
	return slices.ContainsFunc(c.Fixed, func(f Fixed) bool { return matches(f.Repositories, repo) && matches(f.Tags, tag) })
}
