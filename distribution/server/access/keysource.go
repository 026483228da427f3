package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// keySource is where a token server's keys are.
type keySource interface {
	// look returns the keys, nil if they have not changed since they were last looked
	// at. It is not called by two at a time.
	look() ([]key, error)
	// every is how often to look, again how soon if a token has a key that is not known.
	every() time.Duration
	again() time.Duration
}

func newKeySource(o Token) (keySource, error) {
	if !IsKeysURL(o.Keys) {
		return &keyFile{path: o.Keys}, nil
	}
	return newKeyURL(o.Keys, o.RootCAs)
}

// IsKeysURL tells the address of a key set from a file's name.
func IsKeysURL(keys string) bool { return strings.Contains(keys, "://") }

// keyFile is a file with keys.
type keyFile struct {
	path  string
	stamp time.Time
	size  int64
}

func (f *keyFile) every() time.Duration { return lookInterval }
func (f *keyFile) again() time.Duration { return lookInterval }

func (f *keyFile) look() ([]key, error) {
	info, err := os.Stat(f.path)
	if err == nil && info.ModTime().Equal(f.stamp) && info.Size() == f.size {
		return nil, nil
	}
	var data []byte
	if err == nil && info.Size() > maxFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", f.path, maxFileBytes)
	}
	if err == nil {
		f.stamp, f.size = info.ModTime(), info.Size()
		data, err = os.ReadFile(f.path)
	}
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return keys, nil
}

// keyURL is a key set that is served over HTTP, a jwks_uri.
type keyURL struct {
	url  string
	http *http.Client
	last string // what the keys were made of
}

const (
	keyURLEvery   = 5 * time.Minute
	keyURLAgain   = 5 * time.Second
	keyURLLimit   = 5 * time.Second // for one look
	maxKeyBytes   = 1 << 20
	maxRedirects  = 3
	keysMediaType = "application/jwk-set+json, application/json, */*;q=0.1"
)

// CheckKeysURL wants https, or http where nobody is between.
func CheckKeysURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("want https://HOST[:PORT]/PATH")
	case !trusted(u):
		return errors.New("must be https: who can change the keys is everybody")
	}
	return nil
}

func trusted(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

func newKeyURL(text string, roots *x509.CertPool) (*keyURL, error) {
	if err := CheckKeysURL(text); err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.DisableKeepAlives = true // it is not asked often
	redirect := func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || !trusted(r.URL) {
			return fmt.Errorf("redirected to %s://%s", r.URL.Scheme, r.URL.Host)
		}
		return nil
	}
	return &keyURL{url: text, http: &http.Client{Transport: transport, CheckRedirect: redirect}}, nil
}

func (k *keyURL) every() time.Duration { return keyURLEvery }
func (k *keyURL) again() time.Duration { return keyURLAgain }

func (k *keyURL) look() ([]key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keyURLLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", keysMediaType)
	resp, err := k.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", k.url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKeyBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", k.url, err)
	case len(data) > maxKeyBytes:
		return nil, fmt.Errorf("%s has more than %d bytes", k.url, maxKeyBytes)
	case string(data) == k.last:
		return nil, nil
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.url, err)
	}
	k.last = string(data)
	return keys, nil
}
