package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// Helper is a program that keeps credentials for Docker and its like, usually
// in the user's keychain: docker-credential-NAME, found in PATH. Its protocol
// is that of docker-credential-helpers: the action is the argument, the rest
// goes through standard input and output, so that no secret is in a command line.
type Helper string

const (
	helperPrefix  = "docker-credential-"
	helperTimeout = 60 * time.Second // a keychain may ask its owner
	// tokenUser is the user name of a credential that is an identity token.
	tokenUser = "<token>"
	// notFoundMessage is how helpers say that they have nothing, on standard output.
	notFoundMessage = "credentials not found in native keychain"
)

// helperName keeps a name from a file from becoming a path.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// helperEntry is what helpers read and write. The names are the protocol's.
type helperEntry struct {
	ServerURL string
	Username  string
	Secret    string
}

var errNoHelper = errors.New("no such program in PATH")

// get returns the credential for a key, and whether the helper has one.
func (h Helper) get(ctx context.Context, key string) (Credential, bool, error) {
	out, err := h.run(ctx, "get", []byte(key))
	if err != nil {
		if strings.Contains(string(out), notFoundMessage) {
			return Credential{}, false, nil
		}
		return Credential{}, false, err
	}
	var e helperEntry
	if err := json.Unmarshal(out, &e); err != nil {
		return Credential{}, false, h.failed("get", errors.New("answer is "+describe(err))) // and not quoted
	}
	if e.Username == tokenUser {
		return Credential{IdentityToken: e.Secret}, true, nil
	}
	return Credential{Username: e.Username, Password: e.Secret}, true, nil
}

func (h Helper) store(ctx context.Context, key string, c Credential) error {
	e := helperEntry{ServerURL: key, Username: c.Username, Secret: c.Password}
	if c.IdentityToken != "" {
		e.Username, e.Secret = tokenUser, c.IdentityToken
	}
	data, err := json.Marshal(e)
	if err == nil {
		_, err = h.run(ctx, "store", data)
	}
	return err
}

func (h Helper) erase(ctx context.Context, key string) error {
	out, err := h.run(ctx, "erase", []byte(key))
	if err != nil && strings.Contains(string(out), notFoundMessage) {
		return nil
	}
	return err
}

func (h Helper) failed(action string, err error) error {
	return fmt.Errorf("credential helper %s%s %s: %w", helperPrefix, string(h), action, err)
}

// run returns what the helper wrote to standard output, also when it failed;
// the error then has no word of that.
func (h Helper) run(ctx context.Context, action string, input []byte) ([]byte, error) {
	if !helperName.MatchString(string(h)) {
		return nil, fmt.Errorf("credential helper %q: not a name of one", string(h))
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := exec.CommandContext(ctx, helperPrefix+string(h), action)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(input)
	out := &boundedBuffer{left: maxFileBytes, full: stop}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, h.failed(action, context.Cause(ctx))
	case err != nil && len(out.data) > 0 && action != "get":
		// Only get is told a secret back.
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(firstLine(string(out.data))))
	case errors.Is(err, exec.ErrNotFound):
		err = errNoHelper
	}
	if err != nil {
		return out.data, h.failed(action, err)
	}
	return out.data, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.ToValidUTF8(line[:min(len(line), 200)], "")
}

// boundedBuffer takes so many bytes; who writes more is stopped.
type boundedBuffer struct {
	data []byte // no bytes.Buffer, whose ReadFrom io.Copy would call past Write
	left int
	full context.CancelCauseFunc
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		err := fmt.Errorf("output: %w", distribution.ErrTooLarge)
		b.full(err)
		return 0, err
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
