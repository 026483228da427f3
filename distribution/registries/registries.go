// Package registries reads registries.conf, the file in which the tools of the
// containers project, podman and skopeo among them, are told where images are
// found: mirrors, other locations, blocked registries, and what a short name
// stands for. It follows containers-registries.conf(5), version 2; the
// Distribution Spec has nothing of it.
package registries

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/tare-oci/tare/distribution"
)

// Config is what the files say, those read later over those read before. The
// zero Config leads everything where its name says.
type Config struct {
	Search     []string // registries that a name without one is looked for on
	Aliases    map[string]string
	Registries []Registry
}

// Registry is a rule for the references that begin with Prefix.
type Registry struct {
	Prefix             string   `toml:"prefix"`   // host[:port][/path], or *.domain for all hosts below one
	Location           string   `toml:"location"` // what takes the prefix's place
	Insecure           bool     `toml:"insecure"`
	Blocked            bool     `toml:"blocked"`
	MirrorByDigestOnly bool     `toml:"mirror-by-digest-only"`
	Mirrors            []Mirror `toml:"mirror"`
}

// Mirror is a place that is asked before the registry itself.
type Mirror struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"` // "all", "digest-only" or "tag-only"; empty is all
}

// Place is where an image can be had.
type Place struct {
	distribution.Repository
	Insecure bool // without TLS, or with a certificate that nobody vouches for
	Mirror   bool // stands in for the registry, on another host
}

// ErrBlocked is in the chain of the error for a registry that is not to be used.
var ErrBlocked = errors.New("blocked by registries.conf")

const maxFileBytes = 1 << 20

// document is a file as it is written.
type document struct {
	Search     []string          `toml:"unqualified-search-registries"`
	Aliases    map[string]string `toml:"aliases"`
	Registries []Registry        `toml:"registry"`
	V1         map[string]any    `toml:"registries"`
}

// Files are the files to read, in the order in which they count: the later
// over the earlier. getenv is os.Getenv.
func Files(getenv func(string) string) ([]string, error) {
	if file := getenv("CONTAINERS_REGISTRIES_CONF"); file != "" {
		return []string{file}, nil
	}
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	bases := []string{"/etc/containers"}
	if config != "" {
		bases = append(bases, filepath.Join(config, "containers"))
	}
	var files []string
	for _, base := range slices.Backward(bases) { // the user's file stands in for the system's
		file := filepath.Join(base, "registries.conf")
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
			break
		}
	}
	for _, base := range bases {
		dropIns, err := filepath.Glob(filepath.Join(base, "registries.conf.d", "*.conf")) // sorted
		if err != nil {
			return nil, err
		}
		files = append(files, dropIns...)
	}
	return files, nil
}

// Load reads the files.
func Load(files ...string) (*Config, error) {
	c := &Config{Aliases: map[string]string{}}
	for _, file := range files {
		if err := c.add(file); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
	}
	return c, nil
}

func (c *Config) add(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return errors.Unwrap(err)
	}
	if info.Size() > maxFileBytes {
		return distribution.ErrTooLarge
	}
	data, err := os.ReadFile(file)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return err
	}
	return c.parse(data)
}

// parse takes up what one file says.
func (c *Config) parse(data []byte) error {
	var doc document
	if err := toml.Unmarshal(data, &doc); err != nil {
		var where *toml.DecodeError
		if errors.As(err, &where) {
			row, column := where.Position()
			return fmt.Errorf("line %d, column %d: %w", row, column, err)
		}
		return err
	}
	if doc.V1 != nil {
		return errors.New("table [registries]: this is version 1 of the format; want [[registry]] (see containers-registries.conf(5))")
	}
	if doc.Search != nil {
		c.Search = doc.Search
	}
	for name, value := range doc.Aliases {
		c.Aliases[name] = value
	}
	for i, r := range doc.Registries {
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("registry %d: %w", i+1, err)
		}
		same := func(other Registry) bool { return other.Prefix == r.Prefix }
		if at := slices.IndexFunc(c.Registries, same); at >= 0 {
			c.Registries[at] = r
		} else {
			c.Registries = append(c.Registries, r)
		}
	}
	return nil
}

func (r Registry) check() error {
	wild := strings.HasPrefix(r.Prefix, "*.")
	switch {
	case r.Prefix == "":
		return errors.New("neither prefix nor location")
	case wild && strings.Contains(r.Prefix, "/"):
		return fmt.Errorf("prefix %q: a host with a wildcard has no path", r.Prefix)
	case r.Location == "" && !wild && !r.Blocked && len(r.Mirrors) == 0 && !r.Insecure:
		return fmt.Errorf("prefix %q: nothing is said of it", r.Prefix)
	case strings.Contains(r.Location, "://"):
		return fmt.Errorf("location %q: want a host without a scheme", r.Location)
	}
	for _, m := range r.Mirrors {
		switch m.PullFromMirror {
		case "", "all", "digest-only", "tag-only":
		default:
			return fmt.Errorf("mirror %q: pull-from-mirror %q: want all, digest-only or tag-only", m.Location, m.PullFromMirror)
		}
		if m.Location == "" || strings.Contains(m.Location, "://") {
			return fmt.Errorf("mirror %q: want a host without a scheme", m.Location)
		}
	}
	return nil
}

// find returns the rule with the longest prefix of the name.
func (c *Config) find(name string) (best *Registry, matched int) {
	host, _, _ := strings.Cut(name, "/")
	for i := range c.Registries {
		r, n := &c.Registries[i], 0
		if domain, ok := strings.CutPrefix(r.Prefix, "*"); ok {
			bare, _, _ := strings.Cut(host, ":")
			if strings.HasSuffix(bare, domain) {
				n = len(host)
			}
		} else if name == r.Prefix || strings.HasPrefix(name, r.Prefix) && strings.ContainsRune("/:@", rune(name[len(r.Prefix)])) {
			n = len(r.Prefix)
		}
		// An exact host comes before one with a wildcard.
		if n > matched || n == matched && n > 0 && strings.HasPrefix(best.Prefix, "*") {
			best, matched = r, n
		}
	}
	return best, matched
}

// Places lists where to get what ref names, in the order in which to ask.
func (c *Config) Places(ref distribution.Reference) ([]Place, error) {
	name := ref.Repository.String()
	r, matched := c.find(name)
	if r == nil {
		return []Place{{Repository: ref.Repository}}, nil
	}
	if r.Blocked {
		return nil, fmt.Errorf("%s: %w", r.Prefix, ErrBlocked)
	}
	var places []Place
	for _, m := range r.Mirrors {
		byDigest := ref.Digest != ""
		if r.MirrorByDigestOnly && !byDigest || m.PullFromMirror == "digest-only" && !byDigest || m.PullFromMirror == "tag-only" && byDigest {
			continue
		}
		p, err := place(m.Location+name[matched:], m.Insecure)
		if err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", m.Location, r.Prefix, err)
		}
		places = append(places, p)
	}
	last, err := c.Location(ref.Repository)
	for i := range places {
		places[i].Mirror = places[i].Host != last.Host && places[i].Host != ref.Host
	}
	return append(places, last), err
}

// Location is where a repository itself is, mirrors aside: where to push to.
func (c *Config) Location(repo distribution.Repository) (Place, error) {
	name := repo.String()
	r, matched := c.find(name)
	switch {
	case r == nil:
		return Place{Repository: repo}, nil
	case r.Blocked:
		return Place{}, fmt.Errorf("%s: %w", r.Prefix, ErrBlocked)
	case r.Location == "":
		return Place{Repository: repo, Insecure: r.Insecure}, nil
	}
	p, err := place(r.Location+name[matched:], r.Insecure)
	if err != nil {
		return p, fmt.Errorf("location %s of %s: %w", r.Location, r.Prefix, err)
	}
	return p, nil
}

func place(name string, insecure bool) (Place, error) {
	ref, err := distribution.ParseReference(name)
	if err == nil && (ref.Tag != "" || ref.Digest != "") {
		err = fmt.Errorf("%q: %w", name, distribution.ErrInvalidReference)
	}
	return Place{Repository: ref.Repository, Insecure: insecure}, err
}

// Candidates are the references that a name as people write it may stand for:
// one for a name with a registry in it or with an alias; for another short name
// one for each of the registries to search, or that of docker.io if there are
// none.
func (c *Config) Candidates(name string) ([]distribution.Reference, error) {
	ref, err := distribution.ParseReference(name)
	if err != nil || !short(name) {
		return []distribution.Reference{ref}, err
	}
	bare := name
	if i := strings.IndexAny(name, ":@"); i >= 0 {
		bare = name[:i]
	}
	if alias := c.Aliases[bare]; alias != "" {
		ref, err := distribution.ParseReference(alias + name[len(bare):])
		if err != nil {
			return nil, fmt.Errorf("alias %s: %w", bare, err)
		}
		return []distribution.Reference{ref}, nil
	}
	if len(c.Search) == 0 {
		return []distribution.Reference{ref}, nil
	}
	var all []distribution.Reference
	for _, host := range c.Search {
		ref, err := distribution.ParseReference(host + "/" + name)
		if err != nil {
			return nil, fmt.Errorf("unqualified-search-registries %q: %w", host, err)
		}
		all = append(all, ref)
	}
	return all, nil
}

// short: what stands before the first slash is no host.
func short(name string) bool {
	first, _, more := strings.Cut(name, "/")
	return !more || !strings.ContainsAny(first, ".:") && first != "localhost"
}
