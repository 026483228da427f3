package distribution

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Bounds of the grammar ("Pulling manifests"). A repository's path is held to
// 255 bytes because clients and file systems hold it to that.
const (
	maxPathBytes   = 255
	maxTagBytes    = 128
	maxDigestBytes = 160 // "sha512:" and 128 digits is 135
)

// ValidateName reports whether s is a repository name as the API has it,
// without the host: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* joined by slashes.
func ValidateName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("repository name is empty: %w", ErrInvalidReference)
	case len(s) > maxPathBytes:
		return fmt.Errorf("repository name is %d bytes long, at most %d are allowed: %w", len(s), maxPathBytes, ErrInvalidReference)
	}
	for rest := s; ; {
		component, after, more := strings.Cut(rest, "/")
		if !validComponent(component) {
			return fmt.Errorf("repository name %q: bad component %q: %w", s, component, ErrInvalidReference)
		}
		if !more {
			return nil
		}
		rest = after
	}
}

func validComponent(s string) bool {
	i := 0
	for {
		start := i
		for i < len(s) && isLowerAlnum(s[i]) {
			i++
		}
		if i == start {
			return false // also an empty component, and one that ends with a separator
		}
		if i == len(s) {
			return true
		}
		switch s[i] {
		case '.':
			i++
		case '_':
			if i++; i < len(s) && s[i] == '_' {
				i++
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
	}
}

// ValidateTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func ValidateTag(s string) error {
	if s == "" || len(s) > maxTagBytes {
		return fmt.Errorf("tag is %d bytes long, 1 to %d are allowed: %w", len(s), maxTagBytes, ErrInvalidReference)
	}
	for i := range len(s) {
		c := s[i]
		if isLowerAlnum(c) || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c == '.' || c == '-') {
			continue
		}
		return fmt.Errorf("tag %q: character %q is not allowed here: %w", s, c, ErrInvalidReference)
	}
	return nil
}

// ParseDigest is go-digest's check with a bound on the length: only digests
// this program can verify are accepted.
func ParseDigest(s string) (digest.Digest, error) {
	if len(s) > maxDigestBytes {
		return "", fmt.Errorf("digest is %d bytes long: %w", len(s), ErrInvalidReference)
	}
	d := digest.Digest(s)
	if hex, ok := strings.CutPrefix(s, "sha256:"); ok && len(hex) == 64 && isLowerHex(hex) {
		return d, nil // go-digest's regular expressions say the same of nearly every digest there is
	}
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w (%w)", s, err, ErrInvalidReference)
	}
	return d, nil
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isAlnum(c byte) bool { return isLowerAlnum(c) || c >= 'A' && c <= 'Z' }
