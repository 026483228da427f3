package clients

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/testenv"
)

// clients have a script each, NAME.sh. A module is the version that test/run builds,
// none a package of Debian's.
var clients = []struct{ name, module string }{
	{"skopeo", ""},
	{"podman", ""},
	{"buildah", ""},
	{"crane", "github.com/google/go-containerregistry/cmd/crane@v0.22.1"},
	{"regctl", "github.com/regclient/regclient/cmd/regctl@v0.11.7"},
	{"oras", "oras.land/oras/cmd/oras@v1.3.6"},
	{"helm", "helm.sh/helm/v3/cmd/helm@v3.22.0"},
}

// patience is how long one script may take.
const patience = 2 * time.Minute

// functions are what all scripts begin with: is WANT COMMAND... runs a command that
// has to write exactly that, and fails COMMAND... one that has to fail.
const functions = `set -eu
is() { w=$1; shift; got=$("$@"); [ "$got" = "$w" ] || { echo "$*: \"$got\"; want \"$w\"" >&2; exit 1; }; }
fails() { if "$@"; then echo "$*: succeeded" >&2; exit 1; fi; }
set -x
`

func TestClients(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	layout := filepath.Join(testenv.Images(t), "small")
	open, secure := testenv.Serve(t), testenv.SecureServe(t)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			path := os.Getenv("PATH")
			if c.module != "" {
				path = filepath.Dir(testenv.GoTool(t, c.module)) + ":" + path
			} else {
				testenv.Tool(t, c.name)
			}
			for kind, s := range map[string]testenv.Served{"plain": open, "secure": secure} {
				t.Run(kind, func(t *testing.T) {
					dir := t.TempDir()
					run(t, c.name, dir, append(environment(t, dir, layout, s), "PATH="+path))
				})
			}
		})
	}
}

// TestRegistries is our own client and the registries that others have written, with
// a password.
func TestRegistries(t *testing.T) {
	layout := filepath.Join(testenv.Images(t), "small")
	path := filepath.Dir(testenv.Command(t, "tare")) + ":" + os.Getenv("PATH")
	for _, kind := range testenv.Distributions(t) {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			s := testenv.Served{User: "me", Password: "pass:word"}
			s.Addr = testenv.StartRegistry(t, testenv.RegistryOptions{Command: kind.Command, User: s.User, Password: s.Password})
			dir := t.TempDir()
			run(t, "tare", dir, append(environment(t, dir, layout, s), "PATH="+path, "REPO=team"))
		})
	}
}

// run runs a client's script in dir.
func run(t *testing.T, name, dir string, env []string) {
	t.Helper()
	script, err := os.ReadFile(name + ".sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", functions+string(script))
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), env...)
	stop := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer stop.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s.sh: %v\n%s", name, err, out)
	}
}

// environment is what a script is told:
//
//	REG              the registry, 127.0.0.1:PORT
//	PLAIN            not empty on plain HTTP
//	LOGIN, PASSWORD  the user, empty if the registry wants none
//	IMAGE            an image layout, with the tag "latest"
//	DIGEST, ID       the digests of its manifest and of its config
//	REPO             a repository that only this script uses
//
// Everything a client may write is in the script's directory. Certificates are
// trusted by Go's SSL_CERT_FILE, which all of them know.
func environment(t *testing.T, dir, layout string, s testenv.Served) []string {
	t.Helper()
	var index ocispec.Index
	var manifest ocispec.Manifest
	read := func(path string, v any) {
		data, err := os.ReadFile(filepath.Join(layout, path))
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read("index.json", &index)
	digest := index.Manifests[0].Digest
	read("blobs/sha256/"+digest.Encoded(), &manifest)
	plain := ""
	if s.CA == "" {
		plain = "yes"
	}
	return []string{
		"REG=" + s.Addr, "PLAIN=" + plain, "LOGIN=" + s.User, "PASSWORD=" + s.Password, "SSL_CERT_FILE=" + s.CA,
		"IMAGE=" + layout, fmt.Sprint("DIGEST=", digest), fmt.Sprint("ID=", manifest.Config.Digest),
		"REPO=" + strings.ToLower(t.Name()),
		"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_CACHE_HOME=" + dir,
		"XDG_DATA_HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "TMPDIR=" + dir,
	}
}
