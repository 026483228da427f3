package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tare-oci/tare/distribution"
)

// Files is the Source that reads credential files, the first that has an entry
// wins. A file that does not exist is skipped. Files are read anew each time:
// a login while a long pull runs counts.
type Files struct{ Paths []string }

const maxFileBytes = 1 << 20

// DefaultFiles are the places containers-auth.json(5) and Docker's
// documentation name, in that order. getenv is os.Getenv.
func DefaultFiles(getenv func(string) string) Files {
	var paths []string
	add := func(base string, elem ...string) {
		if base != "" {
			paths = append(paths, filepath.Join(append([]string{base}, elem...)...))
		}
	}
	home := getenv("HOME")
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	add(getenv("REGISTRY_AUTH_FILE"))
	add(getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if getenv("XDG_RUNTIME_DIR") == "" {
		add(fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	}
	add(config, "containers", "auth.json")
	if docker := getenv("DOCKER_CONFIG"); docker != "" {
		add(docker, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	return Files{Paths: paths}
}

// Credential implements Source.
func (f Files) Credential(ctx context.Context, repo distribution.Repository) (Credential, error) {
	for _, path := range f.Paths {
		doc, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Credential{}, err
		}
		c, found, err := doc.credential(ctx, repo)
		if err != nil {
			return Credential{}, fmt.Errorf("read credentials %s: %w", path, err)
		}
		if found {
			return c, nil
		}
	}
	return Credential{}, nil
}

// document is what of a credential file is for us.
type document struct {
	Auths       map[string]entry  `json:"auths"`
	CredHelpers map[string]Helper `json:"credHelpers"` // by host
	CredsStore  Helper            `json:"credsStore"`  // Docker: for all hosts
}

// credential finds the one for a repository. A helper for the host is asked
// first. Docker writes an empty entry for what it has put into its store.
func (d document) credential(ctx context.Context, repo distribution.Repository) (Credential, bool, error) {
	for key, helper := range d.CredHelpers {
		if hostOf(key) != repo.Host {
			continue
		}
		c, found, err := helper.get(ctx, key)
		if err != nil || found {
			return c, found, err
		}
	}
	if e, ok := lookUp(d.Auths, repo); ok && e != (entry{}) {
		c, err := e.credential()
		if err != nil {
			err = fmt.Errorf("entry for %s: %w", repo.Host, err)
		}
		return c, true, err
	}
	if d.CredsStore == "" {
		return Credential{}, false, nil
	}
	c, found, err := d.CredsStore.get(ctx, serverKey(repo.Host))
	if errors.Is(err, errNoHelper) {
		// The file may come from another machine. Who has no keychain has nothing
		// in it, and most of what is pulled needs no credential.
		return Credential{}, false, nil
	}
	return c, found, err
}

// serverKey is the name under which Docker keeps the credential for a host.
func serverKey(host string) string {
	if host == "docker.io" {
		return "https://index.docker.io/v1/"
	}
	return host
}

// entry is an element of "auths". Docker and containers share its form.
type entry struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

func readFile(path string) (document, error) {
	data, err := readBytes(path)
	if err != nil || len(data) == 0 {
		return document{}, err
	}
	var doc document
	// The decoder's own error may quote the file, so it only lends its place.
	if err := json.Unmarshal(data, &doc); err != nil {
		return document{}, fmt.Errorf("read credentials %s: %s", path, describe(err))
	}
	return doc, nil
}

func readBytes(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials %s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read credentials %s: %w", path, errors.Unwrap(err))
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("read credentials %s: %w", path, distribution.ErrTooLarge)
	}
	return data, nil
}

func describe(err error) string {
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("not valid JSON near byte %d", syntax.Offset)
	case errors.As(err, &typed):
		return fmt.Sprintf("wrong type near byte %d, want %s", typed.Offset, typed.Type)
	}
	return "not valid JSON"
}

// lookUp finds the most specific entry: host/a/b, host/a, host
// (containers-auth.json(5)), then any spelling of the host.
func lookUp(entries map[string]entry, repo distribution.Repository) (entry, bool) {
	for key := repo.String(); ; {
		if e, ok := entries[key]; ok {
			return e, true
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			break
		}
		key = key[:i]
	}
	for key, e := range entries {
		if hostOf(key) == repo.Host {
			return e, true
		}
	}
	return entry{}, false
}

// hostOf reads the key Docker writes: for its own registry that is
// https://index.docker.io/v1/, for others a host, once with scheme and path.
func hostOf(key string) string {
	hadScheme := false
	for _, scheme := range [...]string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(key, scheme); ok {
			key, hadScheme = rest, true
			break
		}
	}
	host, path, _ := strings.Cut(key, "/")
	if !hadScheme && path != "" && path != "v1/" && path != "v2/" && path != "v1" && path != "v2" {
		return "" // an entry for one repository or namespace, not for the host
	}
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

func (e entry) credential() (Credential, error) {
	c := Credential{
		Username:      e.Username,
		Password:      e.Password,
		IdentityToken: e.IdentityToken,
		RegistryToken: e.RegistryToken,
	}
	if e.Auth == "" {
		return c, nil
	}
	plain, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return Credential{}, errors.New(`"auth" is not base64`)
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return Credential{}, errors.New(`"auth" is not user:password`)
	}
	// Docker pads old entries with zero bytes.
	c.Username, c.Password = user, strings.Trim(password, "\x00")
	return c, nil
}
