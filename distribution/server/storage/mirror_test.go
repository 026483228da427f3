package storage_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// TestPushMeetsMark: of a push and a mark that come at the same time, by different
// registries, never both succeed.
func TestPushMeetsMark(t *testing.T) {
	dir := t.TempDir()
	pusher, marker, other := open(t, dir), open(t, dir), open(t, dir)
	m := storage.Manifest{MediaType: "x/y", Body: []byte("{}"), Digest: digest.FromString("{}")}
	pushes, marks := 0, 0
	for i := range 200 {
		repo := fmt.Sprintf("r%d", i)
		var pushed, marked, again error
		var all sync.WaitGroup
		all.Go(func() {
			time.Sleep(time.Duration(i%10) * 20 * time.Microsecond)
			pushed = pusher.PutManifest(t.Context(), repo, m, []string{"v1"}, false, func() error {
				from, err := pusher.Upstream(t.Context(), repo)
				if err == nil && from != "" {
					err = errors.New("a copy")
				}
				return err
			})
		})
		all.Go(func() { marked = marker.SetUpstream(t.Context(), repo, "https://there/"+repo) })
		all.Go(func() { again = other.SetUpstream(t.Context(), repo, "https://there/"+repo) })
		all.Wait()
		from, err := pusher.Upstream(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		if pushed == nil && from != "" {
			t.Fatalf("%s: pushed to, and marked: %v, %v", repo, marked, again)
		}
		if own, err := marker.IsOwn(t.Context(), repo); err != nil || own != (pushed == nil) {
			t.Fatalf("%s: own is %v, %v; push: %v", repo, own, err, pushed)
		}
		if pushed == nil {
			pushes++
		}
		if from != "" {
			marks++
		}
	}
	t.Logf("%d pushes, %d marks", pushes, marks)
}

// TestExpireCopies: what was pushed here is never too old, nor what is fixed.
func TestExpireCopies(t *testing.T) {
	s := storage.New(objects(t, t.TempDir()), storage.Options{Fixed: func(_, tag string) bool { return tag == "fixed" }})
	m := storage.Manifest{MediaType: "x/y", Body: []byte("{}"), Digest: digest.FromString("{}")}
	for repo, tag := range map[string]string{"copy": "v1", "copy/fixed": "fixed", "own": "v1"} {
		if repo != "own" {
			if err := s.SetUpstream(t.Context(), repo, "https://there/"+repo); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.PutManifest(t.Context(), repo, m, []string{tag}, false, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetUpstream(t.Context(), "own", "https://there/own"); !errors.Is(err, storage.ErrExist) {
		t.Error(err)
	}
	later := time.Now().Add(time.Hour)
	for _, cutoff := range []struct {
		at      time.Time
		removed int
	}{{time.Time{}, 0}, {time.Now().Add(-time.Hour), 0}, {later, 1}, {later, 0}} {
		n, err := s.ExpireManifests(t.Context(), func(repo, from string) time.Time {
			if from != "https://there/"+repo {
				t.Error(repo, from)
			}
			return cutoff.at
		})
		if err != nil || n != cutoff.removed {
			t.Errorf("%d removed, %v", n, err)
		}
	}
	if _, _, err := s.Tag(t.Context(), "copy", "v1"); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	for repo, tag := range map[string]string{"copy/fixed": "fixed", "own": "v1"} {
		if d, _, err := s.Tag(t.Context(), repo, tag); err != nil || d != m.Digest {
			t.Error(d, err)
		}
	}
	// One that is gone is not brought back by being in use.
	if err := s.RenewManifest(t.Context(), "copy", m, later); err != nil {
		t.Error(err)
	}
	if _, err := s.Manifest(t.Context(), "copy", m.Digest.String()); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
}
