package auth

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tare-oci/tare/distribution"
)

// keychain is a credential helper that keeps what it is given in files.
const keychain = `#!/bin/sh
cd "$KEYCHAIN" || exit 1
echo "$@" >>calls
case $1 in
store) in=$(cat); key=$(printf %s "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$in" >"$(printf %s "$key" | tr / _)" ;;
get) read -r key; f=$(printf %s "$key" | tr / _); [ -f "$f" ] && cat "$f" || { echo credentials not found in native keychain; exit 1; } ;;
erase) read -r key; rm "$(printf %s "$key" | tr / _)" ;;
esac
`

// withKeychain puts docker-credential-chain into PATH and returns its directory.
func withKeychain(t *testing.T) string {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-chain"), []byte(keychain), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("KEYCHAIN", dir)
	return dir
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func look(t *testing.T, path, host string) Credential {
	t.Helper()
	c, err := Files{Paths: []string{path}}.Credential(t.Context(), distribution.Repository{Host: host, Name: "a/b"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSaveAndErase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "auth.json")
	ctx := t.Context()
	me := Credential{Username: "me", Password: "pass:word"}
	for _, host := range []string{"docker.io", "registry.example.com:5000"} {
		if err := Save(ctx, path, host, me); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	text, _ := os.ReadFile(path)
	if !strings.Contains(string(text), `"https://index.docker.io/v1/"`) {
		t.Errorf("not as docker writes it: %s", text)
	}
	if got := look(t, path, "docker.io"); got != me {
		t.Errorf("user %q", got.Username)
	}
	if was, err := Erase(ctx, path, "docker.io"); !was || err != nil {
		t.Error(was, err)
	}
	if was, err := Erase(ctx, path, "docker.io"); was || err != nil {
		t.Error(was, err)
	}
	if !look(t, path, "docker.io").IsZero() || look(t, path, "registry.example.com:5000") != me {
		t.Error("the wrong entry is gone")
	}
	if was, err := Erase(ctx, filepath.Join(t.TempDir(), "none"), "x"); was || err != nil {
		t.Error(was, err)
	}
}

// What else is in the file, ours to understand or not, is kept.
func TestSaveKeepsTheRest(t *testing.T) {
	path := writeFile(t, `{"detachKeys":"ctrl-x","auths":{"http://other.example":{"auth":"`+b64("a:b")+`","email":"x"},"h.example/team":{"auth":"`+b64("t:t")+`"},"https://h.example/v1/":{}},"n":12345678901234567890}`)
	if err := Save(t.Context(), path, "h.example", Credential{IdentityToken: "T"}); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil || !strings.Contains(string(text), "12345678901234567890") || !strings.Contains(string(text), `"email"`) {
		t.Errorf("%s: %v", text, err)
	}
	auths := got["auths"].(map[string]any)
	if len(auths) != 3 || got["detachKeys"] != "ctrl-x" || look(t, path, "h.example").IdentityToken != "T" {
		t.Errorf("%s", text)
	}
	for _, bad := range []string{"{", `{"auths":[]}`, `[]`} {
		path := writeFile(t, bad)
		if err := Save(t.Context(), path, "h", Credential{Username: "u"}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", bad, err)
		}
		if text, _ := os.ReadFile(path); string(text) != bad {
			t.Errorf("%s was overwritten", bad)
		}
	}
}

func TestSavesSideBySide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.json")
	var group sync.WaitGroup
	hosts := []string{"a.example", "b.example", "c.example", "d.example"}
	for _, host := range hosts {
		group.Go(func() {
			if err := Save(t.Context(), path, host, Credential{Username: host}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, host := range hosts {
		if look(t, path, host).Username != host {
			t.Errorf("%s is lost", host)
		}
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.auth*"); len(left) > 0 {
		t.Error(left)
	}
}

func TestHelpers(t *testing.T) {
	dir := withKeychain(t)
	ctx := t.Context()
	path := writeFile(t, `{"credsStore":"chain","credHelpers":{"special.example":"chain"},"auths":{"plain.example":{"auth":"`+b64("p:p")+`"}}}`)
	for host, c := range map[string]Credential{
		"docker.io":       {Username: "me", Password: "SECRET"},
		"token.example":   {IdentityToken: "SECRET"},
		"special.example": {Username: "you", Password: "SECRET"},
	} {
		if !look(t, path, host).IsZero() {
			t.Errorf("%s: there is something", host)
		}
		if err := Save(ctx, path, host, c); err != nil {
			t.Fatal(err)
		}
		if got := look(t, path, host); got != c {
			t.Errorf("%s: user %q", host, got.Username)
		}
	}
	if look(t, path, "plain.example").Username != "p" {
		t.Error("an entry of the file itself")
	}
	text, _ := os.ReadFile(path)
	calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
	if strings.Contains(string(text)+string(calls), "SECRET") || strings.Contains(string(text), b64("me:SECRET")) {
		t.Errorf("the secret is where it should not be: %s %s", text, calls)
	}
	if was, err := Erase(ctx, path, "docker.io"); !was || err != nil {
		t.Error(was, err)
	}
	if !look(t, path, "docker.io").IsZero() {
		t.Error("not erased")
	}
	if holder, err := (Files{Paths: []string{"/nonexistent/x", path}}).Holder(ctx, "token.example"); holder != path || err != nil {
		t.Error(holder, err)
	}
}

func TestBadHelpers(t *testing.T) {
	withKeychain(t)
	bin := t.TempDir()
	for name, script := range map[string]string{
		"garbage": "echo SECRET garbage", "fails": "echo SECRET; echo it broke >&2; exit 1", "endless": "while :; do echo 0123456789012345678901234567890123456789; done",
	} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, name := range []string{"garbage", "fails", "endless", "none", "../../bin/sh", "a b", ""} {
		path := writeFile(t, `{"credHelpers":{"h.example":"`+name+`"}}`)
		_, err := Files{Paths: []string{path}}.Credential(t.Context(), distribution.Repository{Host: "h.example"})
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Docker Desktop's store in a file on a machine that has none.
	path := writeFile(t, `{"credsStore":"none"}`)
	if !look(t, path, "h.example").IsZero() {
		t.Error("no store, but a credential")
	}
}
