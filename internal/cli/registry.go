package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/registries"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/internal/version"
)

// registryFlags say how to talk to registries.
type registryFlags struct {
	creds, authFile, caFile, certFile, keyFile, certDir *string
	plainHTTP, tlsVerify                                *bool
}

func declareRegistryFlags(flags flagSet) registryFlags {
	return registryFlags{
		creds:     flags.String("creds", "", "sign in to the registry as `USER:PASSWORD`"),
		authFile:  flags.String("authfile", "", "read credentials from `FILE`, as tare login, docker login or podman login wrote it"),
		caFile:    flags.String("cacert", "", "trust the certificate authorities in the PEM `FILE` as well"),
		certFile:  flags.String("cert", "", "show the registry the client certificate in the PEM `FILE`"),
		keyFile:   flags.String("key", "", "the client certificate's key, a PEM `FILE`"),
		certDir:   flags.String("cert-dir", "", "take *.crt, *.cert and *.key from `DIR` instead of from certs.d"),
		tlsVerify: flags.Bool("tls-verify", true, "refuse certificates that nobody vouches for; with =false also go without TLS where there is none"),
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

// client makes the registry client that the flags and registries.conf ask for.
func (f registryFlags) client(a *app) (remote.Routed, error) {
	options, err := f.options(a)
	if err != nil {
		return remote.Routed{}, err
	}
	return a.routed(options)
}

// routed makes a client with options and registries.conf.
func (a *app) routed(options remote.Options) (remote.Routed, error) {
	config, err := loadRegistries(a.getenv)
	if err != nil {
		return remote.Routed{}, err
	}
	return remote.NewRouted(options, config), nil
}

func loadRegistries(getenv func(string) string) (*registries.Config, error) {
	files, err := registries.Files(getenv)
	if err != nil {
		return nil, err
	}
	return registries.Load(files...)
}

func (f registryFlags) options(a *app) (remote.Options, error) {
	options, getenv := remote.Options{UserAgent: "tare/" + version.Version, Warn: a.warnings.add}, a.getenv
	var err error
	if options.Credentials, err = f.credentials(getenv); err != nil {
		return options, err
	}
	if *f.creds != "" {
		options.MirrorCredentials = f.files(getenv) // they are the registry's, and no mirror's
	}
	if *f.caFile != "" {
		if options.RootCAs, err = remote.LoadCAs(*f.caFile); err != nil {
			return options, err
		}
	}
	if *f.plainHTTP {
		options.PlainHTTP = func(string) bool { return true }
	}
	if !*f.tlsVerify {
		options.Insecure = func(string) bool { return true }
	}
	return options, f.certificates(&options, getenv)
}

// credentials are those of the flags, or else those in the usual files.
func (f registryFlags) credentials(getenv func(string) string) (auth.Source, error) {
	switch {
	case *f.creds != "":
		user, password, ok := strings.Cut(*f.creds, ":")
		if !ok || user == "" {
			return nil, usageError{errors.New("--creds: want USER:PASSWORD")}
		}
		return anyHost{auth.Credential{Username: user, Password: password}}, nil
	case *f.authFile != "":
		if _, err := os.Stat(*f.authFile); err != nil {
			return nil, usageError{fmt.Errorf("--authfile: %w", err)}
		}
	}
	return f.files(getenv), nil
}

func (f registryFlags) files(getenv func(string) string) auth.Source {
	if *f.authFile != "" {
		return auth.Files{Paths: []string{*f.authFile}}
	}
	return auth.DefaultFiles(getenv)
}

// certificates puts those of the flags into the options: the client's own are for
// the registry alone, authorities count for every host. Without flags certs.d is
// looked at.
func (f registryFlags) certificates(options *remote.Options, getenv func(string) string) error {
	switch {
	case (*f.certFile == "") != (*f.keyFile == ""):
		return usageError{errors.New("--cert and --key go together")}
	case *f.certFile != "":
		pair, err := tls.LoadX509KeyPair(*f.certFile, *f.keyFile)
		if err != nil {
			return fmt.Errorf("--cert: %w", err)
		}
		options.Certificates = []tls.Certificate{pair}
	case *f.certDir != "":
		config, err := remote.LoadCertDir(*f.certDir)
		if err != nil {
			return fmt.Errorf("--cert-dir: %w", err)
		}
		options.Certificates = config.Certificates
		options.HostTLS = func(string) (*tls.Config, error) {
			return &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12}, nil
		}
		return nil
	}
	options.HostTLS = remote.DefaultCertDirs(getenv).TLS
	return nil
}

// anyHost is a credential for the one registry that a command talks to.
type anyHost struct{ value auth.Credential }

// Credential implements auth.Source.
func (s anyHost) Credential(context.Context, distribution.Repository) (auth.Credential, error) {
	return s.value, nil
}
