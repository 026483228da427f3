package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/internal/version"
)

// registryFlags say how to talk to registries.
type registryFlags struct {
	creds, authFile, caFile *string
	plainHTTP               *bool
}

func declareRegistryFlags(flags flagSet) registryFlags {
	return registryFlags{
		creds:     flags.String("creds", "", "sign in to the registry as `USER:PASSWORD`"),
		authFile:  flags.String("authfile", "", "read credentials from `FILE`, as docker login or podman login wrote it"),
		caFile:    flags.String("ca-file", "", "trust the certificate authorities in the PEM `FILE` as well"),
		plainHTTP: flags.Bool("plain-http", false, "talk to the registry without TLS (on loopback addresses this is tried by itself)"),
	}
}

// with is the same with other credentials, unless they are empty.
func (f registryFlags) with(creds string) registryFlags {
	if creds != "" {
		f.creds = &creds
	}
	return f
}

// client makes the registry client that the flags ask for.
func (f registryFlags) client(getenv func(string) string) (*remote.Client, error) {
	options := remote.Options{UserAgent: "tare/" + version.Version, Credentials: auth.DefaultFiles(getenv)}
	if *f.authFile != "" {
		if _, err := os.Stat(*f.authFile); err != nil {
			return nil, usageError{fmt.Errorf("--authfile: %w", err)}
		}
		options.Credentials = auth.Files{Paths: []string{*f.authFile}}
	}
	if *f.creds != "" {
		user, password, ok := strings.Cut(*f.creds, ":")
		if !ok || user == "" {
			return nil, usageError{errors.New("--creds: want USER:PASSWORD")}
		}
		options.Credentials = anyHost{auth.Credential{Username: user, Password: password}}
	}
	if *f.caFile != "" {
		pool, err := remote.LoadCAs(*f.caFile)
		if err != nil {
			return nil, err
		}
		options.RootCAs = pool
	}
	if *f.plainHTTP {
		options.PlainHTTP = func(string) bool { return true }
	}
	return remote.New(options), nil
}

// anyHost is a credential for the one registry that a command talks to.
type anyHost struct{ value auth.Credential }

// Credential implements auth.Source.
func (s anyHost) Credential(context.Context, distribution.Repository) (auth.Credential, error) {
	return s.value, nil
}
