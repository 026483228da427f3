package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/server/access"
)

// Token says which bearer tokens count.
type Token struct {
	Realm   string   `toml:"realm"`
	Service string   `toml:"service"`
	Issuer  string   `toml:"issuer"`
	Keys    string   `toml:"keys"`
	CA      string   `toml:"ca"`
	Leeway  Duration `toml:"leeway"`
}

func (c *Config) checkToken() error {
	t := c.Auth.Token
	if t.Realm == "" && t.Service == "" && t.Issuer == "" && t.Keys == "" && t.CA == "" {
		return nil
	}
	for _, value := range []struct{ key, text string }{{"realm", t.Realm}, {"service", t.Service}, {"issuer", t.Issuer}, {"keys", t.Keys}} {
		switch {
		case value.text == "":
			return fmt.Errorf("auth.token.%s: is not set; realm, service, issuer and keys go together", value.key)
		case strings.ContainsFunc(value.text, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r == 0x7f }):
			return fmt.Errorf("auth.token.%s: has quotes or control characters in it", value.key)
		}
	}
	if access.IsKeysURL(t.Keys) {
		if err := access.CheckKeysURL(t.Keys); err != nil {
			return fmt.Errorf("auth.token.keys: %w", err)
		}
	}
	if t.CA != "" && !access.IsKeysURL(t.Keys) {
		return errors.New("auth.token.ca: auth.token.keys is no URL")
	}
	realm, err := url.Parse(t.Realm)
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return fmt.Errorf("auth.token.realm: %q is no URL of a token server", t.Realm)
	}
	if local, _ := loopback("auth.token.realm", net.JoinHostPort(realm.Hostname(), "1")); realm.Scheme == "http" && !local {
		return errors.New("auth.token.realm: must be https, as clients send passwords there")
	}
	return nil
}

// TokenOptions are the same as package access has them, without the authorities; nil
// if no tokens count.
func (c *Config) TokenOptions() *access.Token {
	t := c.Auth.Token
	if t.Keys == "" {
		return nil
	}
	return &access.Token{Realm: t.Realm, Service: t.Service, Issuer: t.Issuer, Keys: t.Keys, Leeway: time.Duration(t.Leeway)}
}
