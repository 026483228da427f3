package remote

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
)

// uploads is the part of a registry that takes blobs, with one session at a
// time. Each request with a body first goes to the next of its faults, which
// says how many of the bytes to take, and what to answer instead of the truth.
type uploads struct {
	faults []uploadFault

	mu       sync.Mutex
	sessions int
	got      []byte
	done     bool
	bodies   int
	largest  int64
}

type uploadFault struct {
	take   int // bytes of the body
	status int // 0: the connection breaks
}

func (u *uploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	here := fmt.Sprintf("/v2/a/b/blobs/uploads/%d?state=%d", u.sessions, len(u.got))
	w.Header().Set("Location", here)
	if n := len(u.got); n > 0 {
		w.Header().Set("Range", distribution.UploadRange{Last: int64(n) - 1}.String())
	}
	switch r.Method {
	case http.MethodHead:
		w.WriteHeader(map[bool]int{true: 200, false: 404}[u.done])
		return
	case http.MethodPost:
		u.sessions++
		u.got = nil
		w.Header().Set("Location", fmt.Sprintf("/v2/a/b/blobs/uploads/%d", u.sessions))
		w.WriteHeader(202)
		return
	}
	if !strings.HasSuffix(r.URL.Path, fmt.Sprint("/", u.sessions)) {
		w.WriteHeader(404)
		return
	}
	if r.Method == http.MethodGet {
		w.WriteHeader(204)
		return
	}
	u.receive(w, r)
}

func (u *uploads) receive(w http.ResponseWriter, r *http.Request) {
	if span, err := distribution.ParseUploadRange(r.Header.Get("Content-Range")); err == nil && span.First != int64(len(u.got)) {
		w.WriteHeader(416)
		return
	}
	u.largest = max(u.largest, r.ContentLength)
	if r.ContentLength > 0 {
		u.bodies++
		if len(u.faults) > 0 {
			f := u.faults[0]
			u.faults = u.faults[1:]
			part, _ := io.ReadAll(io.LimitReader(r.Body, int64(f.take)))
			u.got = append(u.got, part...)
			if f.status == 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(f.status)
			return
		}
	}
	rest, _ := io.ReadAll(r.Body)
	u.got = append(u.got, rest...)
	if r.Method == http.MethodPatch {
		w.Header().Set("Range", distribution.UploadRange{Last: int64(len(u.got)) - 1}.String())
		w.WriteHeader(202)
		return
	}
	if digest.FromBytes(u.got).String() != r.URL.Query().Get("digest") {
		w.WriteHeader(400)
		return
	}
	u.done = true
	w.WriteHeader(201)
}

// A large upload that breaks goes on where it broke, and where the registry
// has forgotten it, from the start.
func TestUploadGoesOn(t *testing.T) {
	content, desc := blob(20 << 20)
	cut := uploadFault{take: 8 << 20}
	for name, c := range map[string]struct {
		faults   []uploadFault
		chunk    int64
		sessions int
		bodies   int
		largest  int64
	}{
		"whole":               {nil, 0, 1, 1, 20 << 20},
		"cut":                 {[]uploadFault{cut}, 0, 1, 2, 20 << 20},
		"cut twice":           {[]uploadFault{cut, cut}, 0, 1, 3, 20 << 20},
		"cut at once":         {[]uploadFault{{}}, 0, 2, 2, 20 << 20},
		"503 in the middle":   {[]uploadFault{{5 << 20, 503}}, 0, 1, 2, 20 << 20},
		"chunks":              {nil, 5 << 20, 1, 4, 5 << 20},
		"chunks, the 2nd cut": {[]uploadFault{{5 << 20, 202}, {3 << 20, 0}}, 5 << 20, 1, 5, 5 << 20},
		"too large at once":   {[]uploadFault{{0, 413}}, 0, 2, 3, 20 << 20},
		"session lost":        {[]uploadFault{{5 << 20, 404}}, 0, 2, 2, 20 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			u := &uploads{faults: c.faults}
			f := newFaulty(t, u.ServeHTTP)
			opts := Options{RetryWait: time.Millisecond} // with time for 20 MB
			opts.ChunkBytes = c.chunk
			if err := newClient(t, opts).PushBlob(t.Context(), f.repo, desc, opener(content)); err != nil {
				t.Fatal(err)
			}
			if !u.done || !bytes.Equal(u.got, content) {
				t.Errorf("%d bytes of %d", len(u.got), len(content))
			}
			if u.sessions != c.sessions || u.bodies != c.bodies || u.largest != c.largest {
				t.Errorf("%d sessions, %d bodies, the largest of %d bytes; want %d, %d, %d", u.sessions, u.bodies, u.largest, c.sessions, c.bodies, c.largest)
			}
		})
	}
}

// A registry that takes nothing, or says it has more than there is, ends the
// attempts.
func TestUploadGivesUp(t *testing.T) {
	content, desc := blob(20 << 20)
	for name, fault := range map[string]uploadFault{"cut": {}, "refused": {1, 403}, "too large": {1, 413}} {
		u := &uploads{}
		for range 50 {
			u.faults = append(u.faults, fault)
		}
		f := newFaulty(t, u.ServeHTTP)
		if err := newClient(t, Options{RetryWait: time.Millisecond}).PushBlob(t.Context(), f.repo, desc, opener(content)); err == nil || u.bodies > 10 {
			t.Errorf("%s: %v after %d", name, err, u.bodies)
		}
	}
	patches := 0
	stuck := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(404)
			return
		}
		if r.Method == http.MethodPatch {
			patches++
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
		w.Header().Set("Range", "0-9")
		w.WriteHeader(map[bool]int{true: 204, false: 202}[r.Method == http.MethodGet])
	}
	f := newFaulty(t, stuck)
	if err := newClient(t, Options{RetryWait: time.Millisecond, ChunkBytes: 1 << 20}).PushBlob(t.Context(), f.repo, desc, opener(content)); err == nil || patches > 30 {
		t.Errorf("stuck: %v after %d", err, patches)
	}
	lies := func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(404)
		default:
			w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
			w.Header().Set("Range", "0-99999999999")
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(202)
		}
	}
	f = newFaulty(t, lies)
	if err := newClient(t, Options{RetryWait: time.Millisecond}).PushBlob(t.Context(), f.repo, desc, opener(content)); err == nil || !strings.Contains(err.Error(), "99999999999") {
		t.Error(err)
	}
}
