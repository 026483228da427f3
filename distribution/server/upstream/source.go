package upstream

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Source is a registry to fetch from.
type Source struct {
	// Prefix is that of the repositories which are copies of the source's:
	// "docker" stands for docker/library/debian. Empty is all that no other
	// source has, and that was not pushed here.
	Prefix string
	// KeepPrefix says that the names there have the prefix, too.
	KeepPrefix bool
	// URL is http[s]://HOST[:PORT][/PATH]; names there begin with PATH.
	URL string
	// Namespace is what mirrors' clients call the registry. Default is its host.
	Namespace string
	// Except are patterns (see access.Match) of repositories here that are not
	// asked for.
	Except []string
	// Fresh is how long a tag is good without a look.
	Fresh time.Duration
	// Missing is how long the source is not asked again for what it has not.
	Missing time.Duration
	// Keep is how long what nobody asks for is kept; zero is for good.
	Keep time.Duration
	// User and Password say who we are there; an empty User is anybody.
	// Password is called for each request that needs it.
	User     string
	Password func() (string, error)
	// RootCAs are trusted in place of the system's.
	RootCAs *x509.CertPool
}

// source is a Source with a client for it.
type source struct {
	Source
	address
	client *remote.Client
	// probe is for looks at what there is an older version of: it soon gives up.
	probe *remote.Client

	mu   sync.Mutex
	rest time.Time // not to be asked about what is here before
}

// address is a Source's URL, taken apart.
type address struct {
	host  string // as in distribution.Repository
	path  string // with a slash at its end, or empty
	plain bool
}

func (a address) String() string {
	scheme := "https"
	if a.plain {
		scheme = "http"
	}
	return strings.TrimSuffix(scheme+"://"+a.host+"/"+a.path, "/")
}

const dockerHub = "docker.io"

// parseAddress checks the URL of a registry. Docker Hub's several hosts are one.
func parseAddress(s string) (a address, err error) {
	bad := func(why string) (address, error) {
		return address{}, fmt.Errorf("%s: want http[s]://HOST[:PORT][/PATH]", why)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil: // net/url quotes it, and there may be a password in it
		return bad("bad URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("a URL without http:// or https://")
	case u.User != nil:
		return bad("a URL with a password in it")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.Opaque != "":
		return bad("a URL with more than a path")
	}
	path := strings.Trim(u.Path, "/")
	if path != "" {
		if err := distribution.ValidateName(path); err != nil {
			return address{}, err
		}
		path += "/"
	}
	// The rest of the name does not matter: it makes the host one that stands there.
	ref, err := distribution.ParseReference(u.Host + "/x/y")
	if err != nil || !strings.HasPrefix(ref.String(), strings.ToLower(u.Host)+"/") && ref.Host != dockerHub {
		return bad("bad host")
	}
	if ref.APIHost() == (distribution.Repository{Host: dockerHub}).APIHost() || ref.Host == (distribution.Repository{Host: dockerHub}).APIHost() {
		ref.Host = dockerHub
	}
	return address{ref.Host, path, u.Scheme == "http"}, nil
}

// Check finds what is wrong with sources.
func Check(sources []Source) error {
	prefixes, namespaces := map[string]bool{}, map[string]bool{}
	for i, one := range sources {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("upstream %d: "+format, append([]any{i + 1}, args...)...)
		}
		a, err := parseAddress(one.URL)
		if err != nil {
			return fail("url: %w", err)
		}
		if one.Prefix != "" && distribution.ValidateName(one.Prefix) != nil {
			return fail("prefix: %q is no repository's name", one.Prefix)
		}
		namespace := cmp.Or(one.Namespace, a.host)
		switch {
		case prefixes[one.Prefix]:
			return fail("prefix: another upstream has %q", one.Prefix)
		case one.Namespace != "" && strings.ToLower(one.Namespace) != one.Namespace:
			return fail("namespace: %q is not in lower case", one.Namespace)
		case one.Namespace != "" && namespaces[namespace]:
			return fail("namespace: another upstream has %q", namespace)
		case one.Fresh < 0 || one.Keep < 0 || one.Missing < 0:
			return fail("fresh and keep cannot be negative")
		case one.KeepPrefix && one.Prefix == "":
			return fail("keep-prefix: there is no prefix")
		case one.User != "" && one.Password == nil:
			return fail("a user without a password")
		}
		prefixes[one.Prefix], namespaces[namespace] = true, true
		for _, pattern := range one.Except {
			if !access.ValidPattern(pattern) {
				return fail("except: bad pattern %q", pattern)
			}
		}
	}
	return nil
}

func newSource(o Source) (*source, error) {
	at, err := parseAddress(o.URL)
	if err != nil {
		return nil, err
	}
	u := &source{Source: o, address: at}
	u.Namespace = cmp.Or(u.Namespace, u.host)
	options := remote.Options{
		Credentials:   u,
		PlainHTTP:     func(host string) bool { return u.plain && host == u.host },
		RootCAs:       o.RootCAs,
		UserAgent:     "tare-registry",
		MaxAttempts:   4,
		MaxRetryAfter: 10 * time.Second,
		HeaderTimeout: 30 * time.Second,
	}
	u.client = remote.New(options)
	options.MaxAttempts, options.MaxRetryAfter = 2, time.Second
	u.probe = remote.New(options)
	return u, nil
}

func sortSources(all []*source) {
	slices.SortStableFunc(all, func(a, b *source) int { return len(b.Prefix) - len(a.Prefix) })
}

// Credential implements auth.Source.
func (u *source) Credential(_ context.Context, repo distribution.Repository) (auth.Credential, error) {
	if u.User == "" || repo.Host != u.host {
		return auth.Credential{}, nil
	}
	password, err := u.Password()
	return auth.Credential{Username: u.User, Password: password}, err
}

func (u *source) covers(repo string) bool {
	rest, below := strings.CutPrefix(repo, u.Prefix)
	if !below || u.Prefix != "" && !strings.HasPrefix(rest, "/") {
		return false
	}
	return !slices.ContainsFunc(u.Except, func(p string) bool { return access.Match(p, repo) })
}

// remote is what repo is a copy of.
func (u *source) remote(repo string) distribution.Repository {
	name := repo
	if u.Prefix != "" && !u.KeepPrefix {
		name = strings.TrimPrefix(repo, u.Prefix+"/")
	}
	if name = u.path + name; u.host == dockerHub && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	return distribution.Repository{Host: u.host, Name: name}
}

// local is the repository that has a copy of the one that clients of the source
// call name.
func (u *source) local(name string) string {
	if u.path != "" {
		rest, below := strings.CutPrefix(name, u.path)
		if !below {
			return ""
		}
		name = rest
	}
	switch {
	case u.Prefix == "":
		return name
	case u.KeepPrefix && !strings.HasPrefix(name, u.Prefix+"/"):
		return ""
	case u.KeepPrefix:
		return name
	}
	return u.Prefix + "/" + name
}

// resting reports whether the registry has just failed.
func (u *source) resting() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Before(u.rest)
}

// maxRest bounds what a registry may ask for by Retry-After.
const maxRest = 10 * time.Minute

// outcome gives a client's error the meaning it has here: not there, or a failure,
// after which the registry is left alone for a while. No error of another registry
// goes on to clients: it might ask them who they are.
func (u *source) outcome(err error) error {
	if err == nil {
		return nil
	}
	var refusal *distribution.ResponseError
	known := errors.As(err, &refusal)
	switch {
	case errors.Is(err, distribution.ErrNotFound):
		return fmt.Errorf("%s: %v: %w", u, err, storage.ErrNotExist)
	case known && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden):
		// Docker Hub says so of what does not exist.
		return fmt.Errorf("%s: %v: %w: %w", u, err, errRefused, storage.ErrNotExist)
	case known && refusal.Status < 500 && refusal.Status != http.StatusTooManyRequests, errors.Is(err, context.Canceled), wrong(err):
		return fmt.Errorf("%s: %v: %w", u, err, server.ErrUpstream)
	}
	rest := restTime
	if known {
		rest = min(max(rest, refusal.RetryAfter), maxRest)
	}
	u.mu.Lock()
	u.rest = time.Now().Add(rest)
	u.mu.Unlock()
	return fmt.Errorf("%s: %v: %w", u, err, server.ErrUpstream)
}

// wrong reports an answer that is no good, from a registry that is up: were it left
// alone for that, anybody could see to it by asking for the like.
func wrong(err error) bool {
	for _, kind := range []error{
		distribution.ErrDigestMismatch, distribution.ErrSizeMismatch, distribution.ErrInvalidManifest,
		distribution.ErrInvalidReference, distribution.ErrTooLarge, distribution.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// errRefused is a registry that wants somebody else to ask.
var errRefused = errors.New("refused")
