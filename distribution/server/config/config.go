// Package config reads the file that describes a registry of the OCI
// Distribution Spec: TOML, in which a key that nobody knows is an error with
// its line. docs/registry.md tells what each key means.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Config is the whole file. Its zero value is not valid: begin with Default.
type Config struct {
	HTTP    HTTP    `toml:"http"`
	TLS     TLS     `toml:"tls"`
	Storage Storage `toml:"storage"`
	Limits  Limits  `toml:"limits"`
	Log     Log     `toml:"log"`
	Metrics Metrics `toml:"metrics"`
	Web     Web     `toml:"web"`
	GC      GC      `toml:"gc"`
	Auth    Auth    `toml:"auth"`
	Access  []Rule  `toml:"access"`
	Fixed   []Fixed `toml:"fixed"`

	Retention []Retention `toml:"retention"`
	Quota     []Quota     `toml:"quota"`
	Scrub     Scrub       `toml:"scrub"`
	Rate      Rate        `toml:"rate"`
	Upstream  []Upstream  `toml:"upstream"`
	Webhook   []Webhook   `toml:"webhook"`
}

// Auth says who users are.
type Auth struct {
	Passwords string              `toml:"passwords"`
	Groups    map[string][]string `toml:"groups"`
	Token     Token               `toml:"token"`
}

// Rule allows some users something in some repositories.
type Rule struct {
	Users        []string `toml:"users"`
	Repositories []string `toml:"repositories"`
	Allow        []string `toml:"allow"`
}

// Fixed are tags that may not be moved or removed.
type Fixed struct {
	Repositories []string `toml:"repositories"`
	Tags         []string `toml:"tags"`
}

// HTTP says where the registry listens and how long it waits.
type HTTP struct {
	Addr           string   `toml:"addr"`
	InsecureNoAuth bool     `toml:"insecure-no-auth"`
	HeaderTimeout  Duration `toml:"header-timeout"`
	IdleTimeout    Duration `toml:"idle-timeout"`
	KeepAlive      Duration `toml:"keep-alive"`
	DrainTimeout   Duration `toml:"drain-timeout"`
	MaxHeader      Size     `toml:"max-header"`
	TrustedProxies []string `toml:"trusted-proxies"`
}

// TLS names the certificate, its key, and the authority of clients' ones. The
// files are read again when they have changed.
type TLS struct {
	Cert     string `toml:"cert"`
	Key      string `toml:"key"`
	ClientCA string `toml:"client-ca"`
}

// Storage says where everything is kept.
type Storage struct {
	Location string `toml:"location"`
	Sync     bool   `toml:"sync"`
	S3       S3     `toml:"s3"`

	VerifyOnRead bool `toml:"verify-on-read"`
}

// S3 says how to reach the bucket of a location "s3://BUCKET/PREFIX".
type S3 struct {
	Endpoint      string `toml:"endpoint"`
	Region        string `toml:"region"`
	AccessKey     string `toml:"access-key"`
	SecretKeyFile string `toml:"secret-key-file"`
	Redirect      bool   `toml:"redirect"`
}

// Limits bound what clients may ask for.
type Limits struct {
	ManifestSize Size     `toml:"manifest-size"`
	BlobSize     Size     `toml:"blob-size"`
	TagsPage     int      `toml:"tags-page"`
	CatalogPage  int      `toml:"catalog-page"`
	Uploads      int      `toml:"uploads"`
	UploadAge    Duration `toml:"upload-age"`
	Delete       bool     `toml:"delete"`
	Sparse       bool     `toml:"sparse"`
}

// Log says what is logged, and how.
type Log struct {
	Format string `toml:"format"`
	Access bool   `toml:"access"`
}

// Metrics says where the figures are to be had.
type Metrics struct {
	Enabled bool   `toml:"enabled"`
	Addr    string `toml:"addr"`
}

// Web says whether there are pages for people.
type Web struct {
	Enabled bool `toml:"enabled"`
}

// GC says when what nothing refers to is removed.
type GC struct {
	Interval Duration `toml:"interval"`
	Grace    Duration `toml:"grace"`
	Untagged bool     `toml:"untagged"`
}

// Scrub says how blobs are read again to see whether they are right.
type Scrub struct {
	Rate     Size     `toml:"rate"` // bytes per second; 0 is never
	Interval Duration `toml:"interval"`
}

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		HTTP: HTTP{
			Addr:          "127.0.0.1:5000",
			HeaderTimeout: Duration(10 * second),
			IdleTimeout:   Duration(60 * second),
			KeepAlive:     Duration(120 * second),
			DrainTimeout:  Duration(30 * second),
			MaxHeader:     64 << 10,
		},
		Storage: Storage{Sync: true},
		Limits: Limits{
			ManifestSize: 4 << 20,
			TagsPage:     10_000,
			CatalogPage:  1_000,
			Uploads:      10_000,
			UploadAge:    Duration(24 * hour),
			Delete:       true,
		},
		Log:     Log{Format: "text", Access: true},
		Metrics: Metrics{Enabled: true},
		Web:     Web{Enabled: true},
		Auth:    Auth{Token: Token{Leeway: Duration(60 * second)}},
		Scrub:   Scrub{Interval: Duration(7 * day)},
		GC:      GC{Interval: Duration(6 * hour), Grace: Duration(24 * hour)},
	}
}

// Upstream is a registry that repositories here are copies of.
type Upstream struct {
	Prefix       string    `toml:"prefix"`
	KeepPrefix   bool      `toml:"keep-prefix"`
	URL          string    `toml:"url"`
	Namespace    string    `toml:"namespace"`
	Except       []string  `toml:"except"`
	Fresh        *Duration `toml:"fresh"` // nil is the default
	Missing      *Duration `toml:"missing"`
	Keep         Duration  `toml:"keep"`
	User         string    `toml:"user"`
	PasswordFile string    `toml:"password-file"`
	PasswordEnv  string    `toml:"password-env"`
	CA           string    `toml:"ca"`
}

// Webhook is a service that is told what happens.
type Webhook struct {
	URL          string   `toml:"url"`
	Format       string   `toml:"format"`
	Source       string   `toml:"source"`
	Repositories []string `toml:"repositories"`
	Actions      []string `toml:"actions"`
	SecretFile   string   `toml:"secret-file"`
	BearerFile   string   `toml:"bearer-file"`
	CA           string   `toml:"ca"`
	Timeout      Duration `toml:"timeout"`
	Attempts     int      `toml:"attempts"`
	Queue        int      `toml:"queue"`
}

const maxFileBytes = 4 << 20

// Load reads a file. Paths in it that are relative are meant from its directory.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFileBytes {
		err = fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), maxFileBytes)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := Parse(path, data)
	if err != nil {
		return Config{}, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c.resolve(dir)
	return c, nil
}

// Parse reads a file's text; name stands in errors.
func Parse(name string, text []byte) (Config, error) {
	c := Default()
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, locate(name, err)
	}
	if err := checkNumbers(text); err != nil {
		return Config{}, locate(name, err)
	}
	return c, nil
}

// locate says on which line an error is.
func locate(name string, err error) error {
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		row, _ := first.Position()
		return fmt.Errorf("%s:%d: unknown key %s", name, row, strings.Join(first.Key(), "."))
	}
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := at.Position()
		where := ""
		if key := strings.Join(at.Key(), "."); key != "" {
			where = key + ": "
		}
		return fmt.Errorf("%s:%d:%d: %s%s", name, row, column, where, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
}

// resolve makes relative paths relative to dir.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.TLS.Cert, &c.TLS.Key, &c.TLS.ClientCA, &c.Storage.Location, &c.Storage.S3.SecretKeyFile, &c.Auth.Passwords, &c.Auth.Token.Keys, &c.Auth.Token.CA}
	for i := range c.Upstream {
		paths = append(paths, &c.Upstream[i].PasswordFile, &c.Upstream[i].CA)
	}
	for i := range c.Webhook {
		paths = append(paths, &c.Webhook[i].SecretFile, &c.Webhook[i].BearerFile, &c.Webhook[i].CA)
	}
	for _, path := range paths {
		if *path != "" && !strings.Contains(*path, "://") && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}
