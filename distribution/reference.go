package distribution

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Names Docker made the world's default. The registry people call docker.io
// answers on another host.
const (
	defaultHost      = "docker.io"
	defaultAPIHost   = "registry-1.docker.io"
	defaultNamespace = "library/"
	legacyHost       = "index.docker.io"
	DefaultTag       = "latest"
)

const (
	maxHostBytes      = 255
	maxReferenceBytes = maxHostBytes + 1 + maxPathBytes + 1 + maxTagBytes + 1 + maxDigestBytes
)

// Repository is a place on a registry: host[:port] and path.
type Repository struct {
	Host string // lower case; an IPv6 address is in brackets
	Name string // the path, as the API has it
}

func (r Repository) String() string { return r.Host + "/" + r.Name }

// APIHost is the host (and port) to talk to.
func (r Repository) APIHost() string {
	if r.Host == defaultHost {
		return defaultAPIHost
	}
	return r.Host
}

// Reference names an image: a repository and a tag, a digest, or both. With
// both, the digest decides and the tag is for people.
type Reference struct {
	Repository
	Tag    string
	Digest digest.Digest
}

// ParseReference reads host[:port]/path[:tag][@digest] with the short names
// people use: "debian" is docker.io/library/debian, and what stands before the
// first slash is a host only when it looks like one: has a dot or a colon, or
// is "localhost". ParseReference(r.String()) is r.
func ParseReference(s string) (Reference, error) {
	r, err := parseReference(s)
	if err != nil {
		if len(s) > 300 {
			s = s[:300] + "…"
		}
		return Reference{}, fmt.Errorf("reference %q: %w", s, err)
	}
	return r, nil
}

func parseReference(s string) (r Reference, err error) {
	if s == "" || len(s) > maxReferenceBytes {
		return r, fmt.Errorf("%d bytes long: %w", len(s), ErrInvalidReference)
	}
	name, dgst, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if r.Digest, err = ParseDigest(dgst); err != nil {
			return r, err
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		r.Tag, name = name[i+1:], name[:i]
		if err := ValidateTag(r.Tag); err != nil {
			return r, err
		}
	}
	if isHex64(name) {
		return r, fmt.Errorf("64 hexadecimal digits are an image ID, not a name: %w", ErrInvalidReference)
	}
	r.Host, r.Name = splitHost(name)
	if r.Host, err = parseHost(r.Host); err != nil {
		return r, err
	}
	if r.Host == legacyHost {
		r.Host = defaultHost
	}
	if r.Host == defaultHost && !strings.Contains(r.Name, "/") {
		r.Name = defaultNamespace + r.Name
	}
	return r, ValidateName(r.Name)
}

func splitHost(name string) (host, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:[") || first == "localhost") {
		return first, rest
	}
	return defaultHost, name
}

// parseHost checks host[:port] and returns its one spelling.
func parseHost(s string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("host %q: %s: %w", s, why, ErrInvalidReference)
	}
	if len(s) > maxHostBytes {
		return bad("too long")
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return bad("bad port")
		}
		port = ":" + port
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return bad("bad IPv6 address")
		}
		return "[" + addr.String() + "]" + port, nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return bad("bad name")
		}
	}
	return strings.ToLower(host) + port, nil
}

func validLabel(s string) bool {
	if s == "" || !isAlnum(s[0]) || !isAlnum(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isHex64(s string) bool {
	if len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// String is the full spelling, with the host and without a default tag.
func (r Reference) String() string {
	s := r.Repository.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Target is what the API's <reference> is for r: the digest if there is one,
// else the tag, else "latest".
func (r Reference) Target() string {
	switch {
	case r.Digest != "":
		return r.Digest.String()
	case r.Tag != "":
		return r.Tag
	}
	return DefaultTag
}

// WithDefaultTag is r, with the tag "latest" when it names neither tag nor digest.
func (r Reference) WithDefaultTag() Reference {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r
}

// Familiar is the short spelling people know: docker.io/library/debian:12 is debian:12.
func (r Reference) Familiar() string {
	s := r.String()
	short, ok := strings.CutPrefix(s, defaultHost+"/")
	if !ok {
		return s
	}
	if one, ok := strings.CutPrefix(short, defaultNamespace); ok && !strings.Contains(one, "/") {
		short = one
	}
	if back, err := ParseReference(short); err != nil || back != r {
		return s // a name that would not survive being shortened
	}
	return short
}
