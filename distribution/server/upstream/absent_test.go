package upstream

import (
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestMissing: what the other registry has not, it is asked for once in a while; and
// what a manifest names is not missing because somebody was too early.
func TestMissing(t *testing.T) {
	o := newOrigin(t)
	m := newMirror(t, Source{Prefix: "hub", URL: o.URL, Fresh: time.Hour, Missing: 300 * time.Millisecond}, Source{Prefix: "each", URL: o.URL, Fresh: time.Hour})
	layer, body := "a layer", `{"schemaVersion":2,"layers":[]}`
	d, b := digest.FromString(body), digest.FromString(layer)
	paths := []string{"manifests/v1", "manifests/" + d.String(), "blobs/" + b.String()}
	for _, path := range paths {
		for range 3 {
			m.want(t, 404, "", "/v2/hub/a/"+path)
			m.want(t, 404, "", "/v2/each/a/"+path)
		}
		if n := o.count("GET /v2/a/" + path); n != 1+3 {
			t.Errorf("%s: %d requests", path, n)
		}
	}
	o.manifest("a", "v1", body)
	o.blob("a", layer)
	time.Sleep(310 * time.Millisecond)
	m.want(t, 404, "", "/v2/hub/a/manifests/none")
	m.want(t, 200, body, "/v2/hub/a/manifests/v1")
	m.want(t, 200, layer, "/v2/hub/a/blobs/"+b.String())

	// Too early for the blob, and then there is a manifest that may name it.
	early := digest.FromString("early")
	m.want(t, 404, "", "/v2/hub/a/blobs/"+early.String())
	o.blob("a", "early")
	o.manifest("a", "v2", body+" ")
	m.want(t, 200, body+" ", "/v2/hub/a/manifests/v2")
	m.want(t, 200, "early", "/v2/hub/a/blobs/"+early.String())
}

func TestAbsentIsBounded(t *testing.T) {
	var a absent
	for i := range 3 * maxAbsent {
		a.put(strconv.Itoa(i), time.Hour)
	}
	if len(a.until) > maxAbsent {
		t.Error(len(a.until))
	}
	a.put("r@x", time.Hour)
	a.put("r/s@x", time.Hour)
	a.put("never", 0)
	a.forget("r")
	for key, there := range map[string]bool{"r@x": false, "r/s@x": true, "never": false} {
		if a.has(key) != there {
			t.Error(key)
		}
	}
}
