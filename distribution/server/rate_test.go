package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/limit"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// TestClientAddr: only what trusted proxies say counts.
func TestClientAddr(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"1.2.3.4:5", nil, "1.2.3.4"},
		{"1.2.3.4:5", []string{"6.6.6.6"}, "1.2.3.4"},
		{"10.0.0.1:5", []string{"6.6.6.6"}, "6.6.6.6"},
		{"[::ffff:10.0.0.1]:5", []string{"::ffff:6.6.6.6"}, "6.6.6.6"},
		{"[::1]:5", []string{"7.7.7.7, 6.6.6.6", "10.9.9.9"}, "6.6.6.6"},
		{"10.0.0.1:5", []string{"10.0.0.2"}, "10.0.0.2"},
		{"10.0.0.1:5", []string{"x"}, "10.0.0.1"},
		{"10.0.0.1:5", []string{"6.6.6.6, x"}, "10.0.0.1"},
		{"10.0.0.1:5", []string{""}, "10.0.0.1"},
		{"[fe80::1%eth0]:5", nil, "fe80::1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.forwarded
		if got := clientAddr(r, trusted); got.String() != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for addr, want := range map[string]string{"1.2.3.4": "1.2.3.4", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		if got := neighbours(netip.MustParseAddr(addr)); got != want {
			t.Error(got)
		}
	}
}

func newStore(t *testing.T) *storage.Store {
	t.Helper()
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return storage.New(objects, storage.Options{})
}

// names is a Guard that knows users by name, and takes no password.
type names struct{}

func (names) Allow(r *http.Request, _ []Access) (Grant, error) {
	user, _, ok := r.BasicAuth()
	if ok && user == "mallory" {
		return Grant{}, distribution.ErrUnauthorized
	}
	return Grant{User: user}, nil
}

func (names) Challenge(*http.Request, []Access) []string { return []string{"Basic"} }

// TestRate: each user and each address has its own account, and so have those who
// cannot sign in.
func TestRate(t *testing.T) {
	g := New(newStore(t), Options{Guard: names{}, Limit: limit.New(limit.Options{Requests: 1, Burst: 3})})
	do := func(user, remote string) *http.Response {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.RemoteAddr = remote
		if user != "" {
			r.SetBasicAuth(user, "")
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Result()
	}
	for _, c := range []struct {
		user, remote string
		want         []int
	}{
		{"", "1.1.1.1:1", []int{200, 200, 200, 429, 429}},
		{"", "1.1.1.2:1", []int{200}},
		{"alice", "1.1.1.1:1", []int{200, 200}},
		{"alice", "1.1.1.2:1", []int{200, 429}},
		{"bob", "1.1.1.1:1", []int{200}},
		{"mallory", "1.1.1.1:1", []int{401, 401, 401, 429}},
		{"bob", "1.1.1.1:1", []int{429}}, // he tries to sign in where others failed to
		{"bob", "1.1.1.3:1", []int{200}},
		{"", "[2001:db8::1]:1", []int{200, 200}},
		{"", "[2001:db8::2]:1", []int{200, 429}},
	} {
		for i, want := range c.want {
			resp := do(c.user, c.remote)
			if resp.StatusCode != want {
				t.Errorf("%s at %s, request %d: %s", c.user, c.remote, i+1, resp.Status)
			}
			seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			if want == 429 && (err != nil || seconds != 1 || resp.Header.Get("Www-Authenticate") != "") || want != 429 && err == nil {
				t.Error(resp.Header)
			}
		}
	}
}

// TestRateOfBytes: what a client sends and gets, by all its requests, takes its
// time, and comes whole.
func TestRateOfBytes(t *testing.T) {
	const rate = 2 << 20
	g := New(newStore(t), Options{Limit: limit.New(limit.Options{BytesPerSecond: rate})})
	srv := httptest.NewServer(g)
	defer srv.Close()
	content := strings.Repeat("x", rate/4)
	d := digest.FromString(content).String()
	start := time.Now()
	resp, err := http.Post(srv.URL+"/v2/a/blobs/uploads/?digest="+d, "", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for range 2 {
		resp, err := http.Get(srv.URL + "/v2/a/blobs/" + d)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != content {
			t.Error(len(body), err)
		}
		resp.Body.Close()
	}
	// Three quarters of what goes in a second; the last piece is not waited for.
	if took := time.Since(start); took < 500*time.Millisecond || took > 5*time.Second {
		t.Error(took)
	}
}
