package service

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/internal/testenv"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// alice is a file of users with one in it, whose password is "pw".
func alice(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "users", "alice:"+string(hash)+"\n")
}

// TestWebhook: what the file says is sent, also what waits when the registry ends.
func TestWebhook(t *testing.T) {
	got := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Authorization") + string(body)
	}))
	defer service.Close()
	bearer := write(t, "token", "first\n")
	r := start(t, func(c *config.Config) {
		c.Webhook = []config.Webhook{{URL: service.URL + "/secret-path", BearerFile: bearer, Actions: []string{"push"}}}
	})
	put := func(tag string) {
		q, err := http.NewRequest("PUT", "http://"+r.addr+"/v2/app/manifests/"+tag, strings.NewReader(`{"schemaVersion":2}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(q)
		if err != nil || resp.StatusCode != 201 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	put("a")
	if text := <-got; !strings.HasPrefix(text, "Bearer first{") || !strings.Contains(text, `"app:a@`) {
		t.Error(text)
	}
	if err := os.WriteFile(bearer, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	put("b")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if text := <-got; !strings.HasPrefix(text, "Bearer second{") {
		t.Error(text)
	}
	if strings.Contains(r.log.String(), "secret-path") {
		t.Error("the log has the webhook's path")
	}
}

// TestUpstream: Debian's registry, which wants a password, behind ours, for
// Debian's skopeo, with everything that a client may list.
func TestUpstream(t *testing.T) {
	testenv.Leaks(t)
	addr := testenv.RegistryAuth(t, "reader", "pass:word")
	testenv.PushLayout(t, addr, filepath.Join(testenv.Images(t), "multiarch"), "latest", "team/app:v1", "--dest-creds=reader:pass:word")
	password := write(t, "password", "pass:word\n")
	r := start(t, func(c *config.Config) {
		c.Log.Format = "json"
		c.Upstream = []config.Upstream{
			{Prefix: "cache/deb", URL: "http://" + addr, User: "reader", PasswordFile: password, Namespace: "deb.example.com"},
			{Prefix: "anonymous", URL: "http://" + addr},
		}
	})
	pull := func(name string) {
		t.Helper()
		testenv.Run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
			"docker://"+r.addr+"/"+name, "oci:"+t.TempDir()+":x")
	}
	pull("cache/deb/team/app:v1")
	if status, _ := get(t, http.DefaultClient, "http://"+r.addr+"/v2/anonymous/team/app/manifests/v1"); status != 404 {
		t.Errorf("without the password: %d", status)
	}
	for path, want := range map[string]string{
		"/v2/cache/deb/team/app/tags/list":          `{"name":"cache/deb/team/app","tags":["v1"]}`,
		"/v2/team/app/tags/list?ns=deb.example.com": `{"name":"cache/deb/team/app","tags":["v1"]}`,
		"/v2/_catalog": `{"repositories":["cache/deb/team/app"]}`,
		"/v2/cache/deb/team/app/referrers/" + emptyDigest: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	} {
		if status, body := get(t, http.DefaultClient, "http://"+r.addr+path); status != 200 || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	// As podman and skopeo use a mirror: the name says nothing of it.
	registries := write(t, "registries.conf", fmt.Sprintf(`
[[registry]]
location = "deb.example.com"
blocked = false
[[registry.mirror]]
location = "%s/cache/deb"
insecure = true
`, r.addr))
	testenv.Run(t, "skopeo", "--insecure-policy", "--registries-conf="+registries, "copy", "--quiet", "docker://deb.example.com/team/app:v1", "oci:"+t.TempDir()+":x")
	_, figures := get(t, http.DefaultClient, "http://"+r.addr+"/metrics")
	for _, want := range []string{`upstream_reads_total{prefix="cache/deb",kind="blob",result="fetched"}`, `{prefix="anonymous",kind="manifest",result="missing"} 1`} {
		if !strings.Contains(figures, want) {
			t.Errorf("no %s in %s", want, figures)
		}
	}
	if log := r.log.String(); strings.Contains(log, "pass:word") || !strings.Contains(log, "upstream refuses") {
		t.Errorf("the log has a password, or no refusal: %s", log)
	}
}

const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// TestMissingFiles: what the configuration names has to be there from the start.
func TestMissingFiles(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	for name, change := range map[string]func(*config.Config){
		"password": func(c *config.Config) {
			c.Upstream = []config.Upstream{{URL: "https://a.b", User: "u", PasswordFile: absent}}
		},
		"environment": func(c *config.Config) {
			c.Upstream = []config.Upstream{{URL: "https://a.b", User: "u", PasswordEnv: "TARE_TEST_ABSENT"}}
		},
		"ca":     func(c *config.Config) { c.Upstream = []config.Upstream{{URL: "https://a.b", CA: absent}} },
		"secret": func(c *config.Config) { c.Webhook = []config.Webhook{{URL: "https://a.b", SecretFile: absent}} },
		"bearer": func(c *config.Config) { c.Webhook = []config.Webhook{{URL: "https://a.b", BearerFile: absent}} },
	} {
		c := config.Default()
		c.Storage.Location = t.TempDir()
		change(&c)
		if _, err := New(c, io.Discard, os.Getenv); err == nil || !strings.Contains(err.Error(), "absent") && !strings.Contains(err.Error(), "ABSENT") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUpstreamAccess: rules are about the names that copies have here, however a
// client asks for them, and what is refused is not fetched either.
func TestUpstreamAccess(t *testing.T) {
	var asked atomic.Int32
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		io.WriteString(w, `{"schemaVersion":2}`)
	}))
	defer origin.Close()
	users := alice(t)
	r := start(t, func(c *config.Config) {
		c.Auth.Passwords = users
		c.Access = []config.Rule{
			{Users: []string{"anonymous"}, Repositories: []string{"hub/open/*", "shut/*"}, Allow: []string{"pull"}},
			{Users: []string{"alice"}, Repositories: []string{"**"}, Allow: []string{"pull"}},
		}
		c.Upstream = []config.Upstream{{Prefix: "hub", URL: origin.URL, Namespace: "hub.example.com"}}
	})
	for _, one := range []struct {
		path, user  string
		want, asked int
	}{
		{"/v2/hub/open/x/manifests/v1", "", 200, 1},
		{"/v2/open/x/manifests/v1?ns=hub.example.com", "", 200, 0},
		{"/v2/hub/shut/x/manifests/v1", "", 401, 0},
		{"/v2/shut/x/manifests/v1?ns=hub.example.com", "", 401, 0},
		{"/v2/shut/x/manifests/v1?ns=HUB.example.com", "", 401, 0},
		{"/v2/shut/x/manifests/v1", "", 404, 0},
		{"/v2/shut/x/manifests/v1?ns=hub.example.com", "alice", 200, 1},
		{"/ui/hub/shut/x:v1", "", 401, 0},
		{"/ui/hub/shut/x:v1", "alice", 200, 0},
		{"/ui/hub/open/x", "", 200, 0},
		{"/ui/hub/open/never:v1", "", 404, 0}, // pages fetch nothing
		{"/", "", 200, 0},
	} {
		asked.Store(0)
		q, err := http.NewRequest("GET", "http://"+r.addr+one.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if one.user != "" {
			q.SetBasicAuth(one.user, "pw")
		}
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != one.want || int(asked.Load()) != one.asked {
			t.Errorf("%s for %q: %d, asked %d times; want %d, %d", one.path, one.user, resp.StatusCode, asked.Load(), one.want, one.asked)
		}
	}
}

// TestNoPages: who wants none has none.
func TestNoPages(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Web.Enabled = false })
	for _, path := range []string{"/", "/ui", "/ui/", "/ui/a"} {
		if status, _ := get(t, http.DefaultClient, "http://"+r.addr+path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// TestRateOfPages: who asks for pages, or guesses passwords there, is on the same
// account as who asks the API.
func TestRateOfPages(t *testing.T) {
	users := alice(t)
	r := start(t, func(c *config.Config) {
		c.Auth.Passwords = users
		c.Rate = config.Rate{Requests: 1, Burst: 3}
	})
	for _, user := range []string{"", "alice", "mallory"} { // in this order: who guesses keeps his whole address off
		status := http.StatusUnauthorized
		if user == "alice" {
			status = http.StatusOK
		}
		var last *http.Response
		for i, path := range []string{"/ui/", "/v2/", "/ui/", "/ui/", "/ui/"} {
			q, err := http.NewRequest("GET", "http://"+r.addr+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if user != "" {
				q.SetBasicAuth(user, "pw")
			}
			if last, err = http.DefaultClient.Do(q); err != nil {
				t.Fatal(err)
			}
			last.Body.Close()
			if i < 3 && last.StatusCode != status {
				t.Errorf("%q: %s: %d", user, path, last.StatusCode)
			}
		}
		if last.StatusCode != http.StatusTooManyRequests || last.Header.Get("Retry-After") == "" {
			t.Errorf("%q: %d %v", user, last.StatusCode, last.Header)
		}
	}
}
