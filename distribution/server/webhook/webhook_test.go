package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// receiver is a service that fails, hangs and recovers as it is told to.
type receiver struct {
	*httptest.Server
	got    chan request
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) // nil is 202
}

type request struct {
	header http.Header
	body   string
}

func newReceiver(t *testing.T) *receiver {
	v := &receiver{got: make(chan request, 1000)}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	v.mu.Lock()
	answer := v.answer
	v.mu.Unlock()
	if err != nil {
		return
	}
	if answer != nil {
		answer(w, r)
		return
	}
	v.got <- request{r.Header, string(body)}
	w.WriteHeader(http.StatusAccepted)
}

func (v *receiver) set(answer func(http.ResponseWriter, *http.Request)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer = answer
}

func (v *receiver) next(t *testing.T) request {
	t.Helper()
	select {
	case r := <-v.got:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes")
		return request{}
	}
}

// counts is what became of events.
type counts struct {
	mu  sync.Mutex
	all map[string]int
}

func (c *counts) add(_, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]int{}
	}
	c.all[result]++
}

func (c *counts) of(result string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[result]
}

func (c *counts) wait(t *testing.T, result string, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); c.of(result) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d %s, want %d", c.of(result), result, n)
		}
	}
}

func newHub(t *testing.T, endpoints ...Endpoint) (*Hub, *counts) {
	t.Helper()
	c := &counts{}
	for i := range endpoints {
		endpoints[i].Source = "//registry.example.com"
	}
	h, err := New(Options{Endpoints: endpoints, Count: c.add, retryWait: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		h.Close(ended)
	})
	return h, c
}

// registry is ours, which tells h, and a function to ask it.
func registry(t *testing.T, h *Hub) func(method, path, body string) int {
	t.Helper()
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(server.New(storage.New(objects, storage.Options{}), server.Options{Observe: h.Notify}))
	t.Cleanup(s.Close)
	return func(method, path, body string) int {
		t.Helper()
		r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		r.Header.Set("User-Agent", "test")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
}

func TestEvents(t *testing.T) {
	clouds, all, few := newReceiver(t), newReceiver(t), newReceiver(t)
	key := func() (string, error) { return "key", nil }
	h, _ := newHub(t,
		Endpoint{URL: clouds.URL + "/x", Format: "cloudevents", Actions: Actions(), Secret: key, Bearer: func() (string, error) { return "token", nil }},
		Endpoint{URL: all.URL, Format: "distribution", Actions: Actions()},
		Endpoint{URL: few.URL, Format: "cloudevents", Repositories: []string{"team/**"}})
	do := registry(t, h)
	blob, manifest := "a blob", `{"schemaVersion":2,"layers":[]}`
	b, m := digest.FromString(blob).String(), digest.FromString(manifest).String()
	for _, one := range []struct {
		method, path, body string
		status             int
		action, subject    string // none: nobody is told
	}{
		{"POST", "/v2/a/blobs/uploads/?digest=" + b, blob, 201, "", ""},
		{"POST", "/v2/b/blobs/uploads/?from=a&mount=" + b, "", 201, "mount", "b@" + b},
		{"POST", "/v2/b/blobs/uploads/?from=a&mount=" + m, "", 202, "", ""},
		{"POST", "/v2/b/blobs/uploads/?from=a&mount=" + m + "&digest=" + digest.FromString("other").String(), "other", 201, "", ""}, // no mount after all
		{"GET", "/v2/a/manifests/v1", "", 404, "", ""},
		{"PUT", "/v2/a/manifests/v1", "{", 400, "", ""},
		{"PUT", "/v2/a/manifests/v1", manifest, 201, "push", "a:v1@" + m},
		{"GET", "/v2/a/manifests/v1", "", 200, "pull", "a:v1@" + m},
		{"HEAD", "/v2/a/manifests/v1", "", 200, "", ""},
		{"GET", "/v2/a/manifests/" + m, "", 200, "pull", "a@" + m},
		{"DELETE", "/v2/a/manifests/v1", "", 202, "delete", "a:v1"},
		{"DELETE", "/v2/a/manifests/" + m, "", 202, "delete", "a@" + m},
		{"PUT", "/v2/team/app/manifests/" + m + "?tag=x&tag=y", manifest, 201, "push", "team/app:x@" + m},
	} {
		if status := do(one.method, one.path, one.body); status != one.status {
			t.Fatalf("%s %s: %d", one.method, one.path, status)
		}
		if one.action == "" {
			continue
		}
		got := clouds.next(t)
		var event cloudEvent
		if err := json.Unmarshal([]byte(got.body), &event); err != nil {
			t.Fatal(got.body, err)
		}
		if event.SpecVersion != "1.0" || event.ID == "" || event.Source != "//registry.example.com" || event.Type != typePrefix+one.action ||
			event.Subject != one.subject || time.Since(event.Time) > time.Minute || event.Data.Action != one.action || event.Data.Agent != "test" {
			t.Errorf("%s %s: %s", one.method, one.path, got.body)
		}
		if (one.action == "push" || one.action == "pull") && (event.Data.SizeBytes != int64(len(manifest)) || event.Data.MediaType == "") {
			t.Error(got.body)
		}
		mac := hmac.New(sha256.New, []byte("key"))
		mac.Write([]byte(got.body))
		if got.header.Get("X-Hub-Signature-256") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || got.header.Get("Authorization") != "Bearer token" ||
			!strings.HasPrefix(got.header.Get("Content-Type"), "application/cloudevents+json") {
			t.Error(got.header)
		}
		var same envelope
		got = all.next(t)
		if err := json.Unmarshal([]byte(got.body), &same); err != nil || same.Events[0].Action != one.action || same.Events[0].Target.Repository == "" ||
			same.Events[0].Target.Digest != event.Data.Digest || len(same.Events) != max(len(event.Data.Tags), 1) {
			t.Errorf("%s: %v", got.body, err)
		}
	}
	if got := few.next(t); !strings.Contains(got.body, `"tags":["x","y"]`) || len(few.got) != 0 {
		t.Errorf("%s and %d more", got.body, len(few.got))
	}
}

// An event does not keep what a client makes large.
func TestEventIsBounded(t *testing.T) {
	r := httptest.NewRequest("GET", "/v2/a/manifests/v1", nil)
	r.Host = strings.Repeat("h", 60_000)
	r.Header.Set("User-Agent", strings.Repeat("a", 60_000))
	e := newEvent(ActionPull, &server.Observation{Request: r, Endpoint: distribution.Endpoint{Route: distribution.RouteManifest, Name: "a", Argument: "v1"}})
	if size := len(e.Host + e.URL + e.Agent); size > 1000 {
		t.Errorf("%d bytes", size)
	}
}

// TestRecovers: events wait for an endpoint that fails, hangs or redirects, and
// come in their order when it is back.
func TestRecovers(t *testing.T) {
	v := newReceiver(t)
	h, c := newHub(t, Endpoint{URL: v.URL, Format: "cloudevents", Timeout: time.Second, Attempts: 100})
	do := registry(t, h)
	for _, answer := range []func(w http.ResponseWriter, r *http.Request){
		func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Retry-After", "0"); w.WriteHeader(429) },
		func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		v.set(answer)
		start := time.Now()
		for _, tag := range []string{"a", "b", "c"} {
			do("PUT", "/v2/app/manifests/"+tag, `{"schemaVersion":2}`)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a push waits for a webhook: %s", took)
		}
		time.Sleep(120 * time.Millisecond)
		v.set(nil)
		for _, tag := range []string{"a", "b", "c"} {
			if got := v.next(t); !strings.Contains(got.body, `"tags":["`+tag+`"]`) {
				t.Errorf("want %s: %s", tag, got.body)
			}
		}
	}
	// What it says it will never take is not offered again.
	var asked sync.WaitGroup
	asked.Add(1)
	v.set(func(w http.ResponseWriter, r *http.Request) { asked.Done(); w.WriteHeader(400) })
	do("PUT", "/v2/app/manifests/refused", `{"schemaVersion":2}`)
	c.wait(t, "failed", 1)
	asked.Wait()
	asked.Add(1)
	v.set(func(w http.ResponseWriter, r *http.Request) {
		asked.Done()
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	})
	do("PUT", "/v2/app/manifests/redirected", `{"schemaVersion":2}`)
	c.wait(t, "failed", 2)
}

// TestFullQueue: what does not fit in is dropped, and counted; the end waits for
// what is under way, but not for good.
func TestFullQueue(t *testing.T) {
	v := newReceiver(t)
	hang := make(chan struct{})
	v.set(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		w.WriteHeader(500)
	})
	h, c := newHub(t, Endpoint{URL: v.URL, Format: "distribution", Queue: 3})
	do := registry(t, h)
	for range 10 {
		if status := do("PUT", "/v2/app/manifests/x", `{"schemaVersion":2}`); status != 201 {
			t.Fatal(status)
		}
	}
	c.wait(t, "dropped", 6) // three wait, one is under way
	v.set(nil)
	close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	h.Close(ctx)
	if sent, dropped := c.of("sent"), c.of("dropped"); sent+dropped != 10 || sent < 3 {
		t.Errorf("%d sent, %d dropped", sent, dropped)
	}
	do("PUT", "/v2/app/manifests/late", `{"schemaVersion":2}`)
	if c.of("sent")+c.of("dropped") != 11 {
		t.Error("an event after the end is lost without a word")
	}

	v.set(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h, c = newHub(t, Endpoint{URL: v.URL, Format: "distribution"})
	do = registry(t, h)
	for range 3 {
		do("PUT", "/v2/app/manifests/x", `{"schemaVersion":2}`)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	h.Close(ctx)
	if took := time.Since(start); took > 5*time.Second || c.of("dropped") != 3 {
		t.Errorf("took %s, %d dropped", took, c.of("dropped"))
	}
}

// TestEndWithoutAnswer: a service that is down does not hold up the end.
func TestEndWithoutAnswer(t *testing.T) {
	v := newReceiver(t)
	v.Close()
	c := &counts{}
	h, err := New(Options{Endpoints: []Endpoint{{URL: v.URL, Format: "cloudevents"}}, Count: c.add, retryWait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	do := registry(t, h)
	for range 3 {
		do("PUT", "/v2/app/manifests/x", `{"schemaVersion":2}`)
	}
	start := time.Now()
	h.Close(t.Context())
	if took := time.Since(start); took > 5*time.Second || c.of("dropped") != 3 {
		t.Errorf("took %s, %d dropped", took, c.of("dropped"))
	}
}

func TestCheck(t *testing.T) {
	for want, e := range map[string]Endpoint{
		"url: is no":   {URL: "ftp://x"},
		"password":     {URL: "http://u:p@x"},
		"format":       {URL: "http://x", Format: "xml"},
		"actions":      {URL: "http://x", Format: "cloudevents", Actions: []string{"look"}},
		"repositories": {URL: "http://x", Format: "cloudevents", Repositories: []string{""}},
		"queue":        {URL: "http://x", Format: "cloudevents", Queue: -1},
	} {
		if err := e.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}
