package service

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/tare-oci/tare/distribution/server/config"
)

// TestQuota: who is refused reads why, and the figures have it.
func TestQuota(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Quota = []config.Quota{{Namespaces: []string{"*"}, Size: 10}} })
	r.log.with(t, "usage counted")
	push(t, "http://"+r.addr, "team/app", "0123456789")
	resp, err := http.Post("http://"+r.addr+"/v2/team/other/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := `"message":"requested access to the resource is denied: the quota of team is exceeded: 10 of 10 bytes are in use"`
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 || !strings.Contains(string(answer), want) {
		t.Errorf("%s: %s", resp.Status, answer)
	}
	_, figures := get(t, http.DefaultClient, "http://"+r.addr+"/metrics")
	for _, line := range []string{`tare_registry_quota_used_bytes{namespace="team"} 10`, `tare_registry_quota_limit_bytes{namespace="team"} 10`} {
		if !strings.Contains(figures, line+"\n") {
			t.Errorf("no %s in\n%s", line, figures)
		}
	}
}

// TestAccess: what the file says about users and tags is what happens.
func TestAccess(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	var lines string
	for _, user := range []string{"alice", "bob", "ci"} {
		hash, err := bcrypt.GenerateFromPassword([]byte("password of "+user), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		lines += user + ":" + string(hash) + "\n"
	}
	if err := os.WriteFile(users, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *config.Config) {
		c.Auth.Passwords = users
		c.Access = []config.Rule{
			{Users: []string{"alice"}, Repositories: []string{"**"}, Allow: []string{"pull", "push", "delete", "catalog", "metrics"}},
			{Users: []string{"bob"}, Repositories: []string{"bob/*"}, Allow: []string{"pull", "push"}},
			{Users: []string{"ci"}, Repositories: []string{"app"}, Allow: []string{"pull", "create"}},
			{Users: []string{"anonymous"}, Repositories: []string{"public"}, Allow: []string{"pull"}},
		}
		c.Fixed = []config.Fixed{{Repositories: []string{"app"}, Tags: []string{"v*"}}}
	})
	do := func(want int, user, method, path, body string) http.Header {
		t.Helper()
		q, err := http.NewRequest(method, "http://"+r.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			q.SetBasicAuth(user, "password of "+user)
		}
		q.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Errorf("%s: %s %s: %d, want %d: %s", user, method, path, resp.StatusCode, want, answer)
		}
		return resp.Header
	}
	if h := do(401, "", "GET", "/v2/", ""); !strings.HasPrefix(h.Get("Www-Authenticate"), "Basic ") {
		t.Error(h)
	}
	do(200, "bob", "GET", "/v2/", "")
	do(403, "bob", "GET", "/v2/_catalog", "")
	do(200, "alice", "GET", "/v2/_catalog", "")
	if h := do(401, "", "GET", "/metrics", ""); !strings.HasPrefix(h.Get("Www-Authenticate"), "Basic ") {
		t.Error(h)
	}
	do(403, "bob", "GET", "/metrics", "")
	do(200, "alice", "GET", "/metrics", "")
	do(200, "", "GET", "/healthz", "")

	secret := digest.FromString("secret").String()
	do(201, "alice", "POST", "/v2/private/blobs/uploads/?digest="+secret, "secret")
	do(201, "bob", "POST", "/v2/bob/x/blobs/uploads/?digest="+digest.FromString("bob's").String(), "bob's")
	do(403, "bob", "GET", "/v2/private/blobs/"+secret, "")
	do(202, "bob", "POST", "/v2/bob/x/blobs/uploads/?from=private&mount="+secret, "") // as if it were not there
	do(202, "bob", "POST", "/v2/bob/x/blobs/uploads/?mount="+secret, "")
	do(404, "bob", "GET", "/v2/bob/x/blobs/"+secret, "")
	do(401, "", "GET", "/v2/private/manifests/x", "")
	do(404, "", "GET", "/v2/public/manifests/x", "")

	// Who may only create moves no tag, and nobody moves a fixed one.
	do(201, "ci", "PUT", "/v2/app/manifests/latest", `{"a":1}`)
	do(201, "ci", "PUT", "/v2/app/manifests/latest", `{"a":1}`)
	do(403, "ci", "PUT", "/v2/app/manifests/latest", `{"a":2}`)
	do(403, "ci", "PUT", "/v2/app/manifests/"+digest.FromString(`{"a":2}`).String()+"?tag=latest", `{"a":2}`)
	do(201, "alice", "PUT", "/v2/app/manifests/latest", `{"a":2}`)
	do(403, "ci", "DELETE", "/v2/app/manifests/latest", "")
	do(201, "alice", "PUT", "/v2/app/manifests/v1", `{"a":1}`)
	do(403, "alice", "PUT", "/v2/app/manifests/v1", `{"a":3}`)
	do(403, "alice", "DELETE", "/v2/app/manifests/v1", "")
	do(403, "alice", "DELETE", "/v2/app/manifests/"+digest.FromString(`{"a":1}`).String(), "")
	do(202, "alice", "DELETE", "/v2/app/manifests/"+digest.FromString(`{"a":2}`).String(), "")
	do(200, "alice", "GET", "/v2/app/manifests/v1", "")
	if strings.Contains(r.log.with(t, "user=alice"), "password of") {
		t.Error("the log names no users, or passwords")
	}
}
