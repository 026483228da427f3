package service

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/internal/testenv"
)

// tokenServer gives tokens for what its policy has: "user repository action".
type tokenServer struct {
	signer jose.Signer
	policy []string
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	query := r.URL.Query()
	if r.Method == http.MethodPost { // the OAuth2 form of the same
		r.ParseForm()
		user, password, query = r.Form.Get("username"), r.Form.Get("password"), r.Form
	}
	if user != "" && password != "password of "+user {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range strings.Fields(strings.Join(query["scope"], " ")) {
		parts := strings.Split(scope, ":")
		if len(parts) != 3 {
			continue
		}
		a := access{Type: parts[0], Name: parts[1]}
		for _, action := range strings.Split(parts[2], ",") {
			if slices.Contains(s.policy, user+" "+a.Name+" "+action) {
				a.Actions = append(a.Actions, action)
			}
		}
		granted = append(granted, a)
	}
	now := time.Now().Unix()
	token, err := jwt.Signed(s.signer).Claims(map[string]any{
		"iss": "test issuer", "sub": user, "aud": query.Get("service"), "exp": now + 60, "nbf": now, "access": granted,
	}).Serialize()
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 60})
}

func startTokenServer(t *testing.T, policy ...string) (realm, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one"}}})
	if err != nil {
		t.Fatal(err)
	}
	keyFile = filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(keyFile, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&tokenServer{signer, policy})
	t.Cleanup(server.Close)
	// crane goes to no address of a private network, but to names there.
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/token", keyFile
}

const craneModule = "github.com/google/go-containerregistry/cmd/crane@v0.22.1"

// TestTokenClients: real clients get their tokens and do with them what they may,
// and no more.
func TestTokenClients(t *testing.T) {
	image := "oci:" + filepath.Join(testenv.Images(t), "small") + ":latest"
	realm, keys := startTokenServer(t, "alice team/app pull", "alice team/app push", "bob team/app pull", " public pull", "alice public push", "alice public pull")
	r := start(t, func(c *config.Config) {
		c.Auth.Token = config.Token{Realm: realm, Service: "test registry", Issuer: "test issuer", Keys: keys}
	})
	skopeo, crane := testenv.Tool(t, "skopeo"), testenv.GoTool(t, craneModule)
	home := t.TempDir()
	as := func(user string) string { return user + ":password of " + user }
	run := func(ok bool, tool string, args ...string) {
		t.Helper()
		cmd := exec.Command(tool, args...)
		cmd.Env = append(os.Environ(), "HOME="+home, "DOCKER_CONFIG="+home, "REGISTRY_AUTH_FILE="+filepath.Join(home, "config.json"))
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("%s %s: %v\n%s", filepath.Base(tool), strings.Join(args, " "), err, out)
		}
	}
	app, public := "docker://"+r.addr+"/team/app:v1", "docker://"+r.addr+"/public:v1"
	copyTo := func(ok bool, user, to string) {
		t.Helper()
		run(ok, skopeo, "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--dest-creds="+as(user), image, to)
	}
	copyTo(true, "alice", app)
	copyTo(true, "alice", public) // mounts, perhaps, what is there already
	copyTo(false, "bob", app)
	run(true, skopeo, "inspect", "--tls-verify=false", "--creds="+as("bob"), app)
	run(false, skopeo, "inspect", "--tls-verify=false", "--creds="+as("bob"), "docker://"+r.addr+"/other:v1")
	run(true, skopeo, "inspect", "--tls-verify=false", "--no-creds", public)
	run(false, skopeo, "inspect", "--tls-verify=false", "--no-creds", app)

	run(true, crane, "auth", "login", r.addr, "-u", "alice", "-p", "password of alice")
	run(true, crane, "digest", "--insecure", r.addr+"/team/app:v1")
	run(true, crane, "tag", "--insecure", r.addr+"/team/app:v1", "v2")
	run(true, crane, "copy", "--insecure", r.addr+"/team/app:v1", r.addr+"/public:v3")
	run(false, crane, "copy", "--insecure", r.addr+"/team/app:v1", r.addr+"/other:v1")
	run(false, crane, "delete", "--insecure", r.addr+"/team/app:v2")
	if all := r.log.with(t, "user=alice"); strings.Contains(all, "password of") || strings.Contains(all, "eyJ") {
		t.Error("the log has passwords or tokens in it")
	}
}
