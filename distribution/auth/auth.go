// Package auth knows who the user is to a registry: credentials and where they
// are kept (Docker's config.json, containers' auth.json), and the challenges
// registries send (RFC 9110 section 11; Docker's token authentication). What
// the Distribution Spec leaves to implementations, this package follows Docker in.
package auth

import (
	"context"
	"log/slog"

	"github.com/tare-oci/tare/distribution"
)

// Credential is what proves who the user is. It prints as a placeholder in
// every form, so that it cannot reach a log by accident.
type Credential struct {
	Username string
	Password string
	// IdentityToken is an OAuth2 refresh token, as docker login keeps it for
	// registries that give one.
	IdentityToken string
	// RegistryToken is a bearer token to be sent as it is.
	RegistryToken string
}

const placeholder = "[redacted]"

// IsZero reports whether c is no credential: the user is anonymous.
func (c Credential) IsZero() bool { return c == Credential{} }

func (c Credential) String() string       { return placeholder }
func (c Credential) GoString() string     { return placeholder }
func (c Credential) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON keeps c out of JSON logs; nothing here writes credentials.
func (c Credential) MarshalJSON() ([]byte, error) { return []byte(`"` + placeholder + `"`), nil }

// Source finds the credential for a repository; the zero Credential when there
// is none, which is no error. It must be safe for concurrent use.
type Source interface {
	Credential(ctx context.Context, repo distribution.Repository) (Credential, error)
}

// Static is the Source that has one credential for one registry host.
type Static struct {
	Host  string // as in distribution.Repository
	Value Credential
}

// Credential implements Source.
func (s Static) Credential(_ context.Context, repo distribution.Repository) (Credential, error) {
	if repo.Host != s.Host {
		return Credential{}, nil
	}
	return s.Value, nil
}
