package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
)

func blob(t *testing.T, s *storage.Store, repo, content string) digest.Digest {
	t.Helper()
	id, err := s.StartUpload(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString(content)
	if err := s.CommitUpload(t.Context(), repo, id, 0, strings.NewReader(content), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func manifest(t *testing.T, s *storage.Store, repo, body string, subject digest.Digest, tags ...string) digest.Digest {
	t.Helper()
	m := storage.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(body), Body: []byte(body), Subject: subject}
	if err := s.PutManifest(t.Context(), repo, m, tags, false, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

// TestCollect: what is referred to stays, by any way that there is, and the rest
// goes when it is old enough.
func TestCollect(t *testing.T) {
	s := open(t, t.TempDir())
	used, unused, shared := blob(t, s, "a", "used"), blob(t, s, "a", "unused"), blob(t, s, "a", "shared")
	if err := s.MountBlob(t.Context(), "b", "a", shared, anybody); err != nil {
		t.Fatal(err)
	}
	image := manifest(t, s, "a", fmt.Sprintf(`{"config":{"digest":%q},"layers":[]}`, used), "")
	index := manifest(t, s, "a", fmt.Sprintf(`{"manifests":[{"digest":%q}]}`, image), "", "v1")
	signature := manifest(t, s, "a", fmt.Sprintf(`{"subject":{"digest":%q}}`, image), image)
	other := manifest(t, s, "a", `{"x":1}`, "")
	manifest(t, s, "b", fmt.Sprintf(`{"blobs":[{"digest":%q}]}`, shared), "", "v1")

	young := storage.CollectOptions{Grace: time.Hour, Untagged: true}
	if report, err := s.Collect(t.Context(), young); err != nil || report.Links+report.BlobsRemoved+report.Manifests != 0 || report.Blobs != 3 || report.Repositories != 2 {
		t.Errorf("young: %+v, %v", report, err)
	}
	time.Sleep(20 * time.Millisecond) // the file system's clock is coarse
	want := storage.CollectReport{Repositories: 2, Blobs: 3, Manifests: 1, Links: 2, BlobsRemoved: 1, RemovedBytes: 6}
	for _, dry := range []bool{true, false} {
		if report, err := s.Collect(t.Context(), storage.CollectOptions{Untagged: true, DryRun: dry}); err != nil || report != want {
			t.Errorf("dry run %v: %+v, %v", dry, report, err)
		}
	}
	for d, there := range map[digest.Digest]bool{image: true, index: true, signature: true, other: false} {
		if _, err := s.StatManifest(t.Context(), "a", d); (err == nil) != there {
			t.Errorf("manifest %s: %v", d, err)
		}
	}
	for d, there := range map[digest.Digest]bool{used: true, unused: false, shared: false} {
		if _, err := s.StatBlob(t.Context(), "a", d); (err == nil) != there {
			t.Errorf("blob %s: %v", d, err)
		}
	}
	if _, err := s.StatBlob(t.Context(), "b", shared); err != nil {
		t.Error(err)
	}
}

// A manifest in which a field has another type than the collector thinks keeps
// what it names; one that cannot be read at all ends the collection.
func TestCollectOddManifests(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	layer := blob(t, s, "a", "layer")
	d := manifest(t, s, "a", fmt.Sprintf(`{"blobs":"none","layers":[{"digest":%q}]}`, layer), "", "v1")
	time.Sleep(20 * time.Millisecond)
	if report, err := s.Collect(t.Context(), storage.CollectOptions{}); err != nil || report.Links+report.BlobsRemoved != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := s.StatBlob(t.Context(), "a", layer); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "repositories/a/_manifests", strings.ReplaceAll(d.String(), ":", "-"))
	if err := os.WriteFile(file, []byte("type\n{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), storage.CollectOptions{}); err == nil || !strings.Contains(err.Error(), d.String()) {
		t.Error(err)
	}
	if _, err := s.StatBlob(t.Context(), "a", layer); err != nil {
		t.Error(err)
	}
}

// TestDeleteBesidePush: on whichever registry a manifest is deleted, a tag that is
// moved away from it at the same time is not lost. And a push that still looks
// whether all is there keeps no other push waiting.
func TestDeleteBesidePush(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	old := manifest(t, s, "a", `{"n":1}`, "", "v1", "v2")
	body := `{"n":2}`
	m := storage.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(body), Body: []byte(body)}
	err := s.PutManifest(t.Context(), "a", m, []string{"v1"}, false, func() error {
		manifest(t, s, "a", `{"n":3}`, "", "v3")
		if err := other.DeleteManifest(t.Context(), "a", old); !errors.Is(err, storage.ErrBusy) {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Who has patience comes after the push; one that a registry was killed in holds
	// nobody up for ever, and is no reason to say that something was deleted.
	patient := storage.New(objects(t, dir), storage.Options{Patience: time.Second})
	dead := filepath.Join(dir, "repositories/a/_pending", strings.ReplaceAll(old.String(), ":", "-")+".X")
	if err := os.MkdirAll(filepath.Dir(dead), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dead, []byte("v2\n{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.DeleteManifest(t.Context(), "a", old); !errors.Is(err, storage.ErrBusy) {
		t.Error(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		long := time.Now().Add(-2 * time.Hour)
		os.Chtimes(dead, long, long)
	})
	if err := patient.DeleteManifest(t.Context(), "a", old); err != nil {
		t.Error(err)
	}
	for tag, there := range map[string]bool{"v1": true, "v2": false, "v3": true} {
		if _, err := s.Manifest(t.Context(), "a", tag); (err == nil) != there {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// A push that died before its repository had a manifest keeps nothing for ever.
func TestCollectAbandonedPush(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := blob(t, s, "a", "layer")
	body := fmt.Sprintf(`{"layers":[{"digest":%q}]}`, d)
	pending := filepath.Join(dir, "repositories/a/_pending", strings.ReplaceAll(digest.FromString(body).String(), ":", "-")+".1")
	if err := os.MkdirAll(filepath.Dir(pending), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pending, []byte("type\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	for removed, age := range []time.Duration{time.Minute, 2 * time.Hour} {
		if err := os.Chtimes(pending, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		if report, err := s.Collect(t.Context(), storage.CollectOptions{}); err != nil || report.BlobsRemoved != removed {
			t.Errorf("pending for %s: %+v, %v", age, report, err)
		}
	}
}

// TestRetention: what a rule does not keep goes, as the dry run has said, with
// what only that led to; what is pushed meanwhile stays.
func TestRetention(t *testing.T) {
	onEach(t, func(t *testing.T, open func() storage.Objects) {
		fixed := func(_, tag string) bool { return tag == "fixed" }
		s := storage.New(open(), storage.Options{Fixed: fixed})
		layer, shared := blob(t, s, "a", "layer"), blob(t, s, "a", "shared")
		manifest(t, s, "a", image(layer, shared), "", "old", "fixed-not")
		manifest(t, s, "a", `{"n":1}`, "", "fixed")
		kept := manifest(t, s, "a", image(shared), "", "v1")
		signature := manifest(t, s, "a", fmt.Sprintf(`{"subject":{"digest":%q}}`, kept), kept)
		other := manifest(t, s, "b", `{"n":2}`, "", "old")
		time.Sleep(1100 * time.Millisecond) // a bucket's clock has seconds
		manifest(t, s, "a", `{"n":3}`, "", "new")

		rule := func(repo string) *storage.Retention {
			if repo != "a" {
				return nil
			}
			return &storage.Retention{KeepNewest: 1, KeepTag: func(tag string) bool { return tag == "v1" }}
		}
		for _, dry := range []bool{true, false} {
			var removed []string
			o := storage.CollectOptions{DryRun: dry, Retention: rule, Removed: func(what storage.Removal) {
				removed = append(removed, what.Repository+":"+what.Tag)
			}}
			report, err := s.Collect(t.Context(), o)
			if err != nil || report.Tags != 2 || report.Manifests != 1 || report.BlobsRemoved != 1 {
				t.Errorf("dry run %v: %+v, %v", dry, report, err)
			}
			slices.Sort(removed)
			if got := strings.Join(removed, " "); got != "a: a:fixed-not a:old" {
				t.Errorf("dry run %v: %s", dry, got)
			}
		}
		if tags, _, err := s.Tags(t.Context(), "a", "", 10); err != nil || strings.Join(tags, " ") != "fixed new v1" {
			t.Error(tags, err)
		}
		for repo, d := range map[string]digest.Digest{"a": signature, "b": other} {
			if _, err := s.StatManifest(t.Context(), repo, d); err != nil {
				t.Error(repo, err)
			}
		}
		if _, err := s.StatBlob(t.Context(), "a", shared); err != nil {
			t.Error(err)
		}
	})
}

// Tags that are named after a manifest, as cosign's are, stay as long as that does.
func TestRetentionOfSignatures(t *testing.T) {
	s := open(t, t.TempDir())
	named := func(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }
	gone := manifest(t, s, "a", `{"n":1}`, "", "old")
	manifest(t, s, "a", `{"sig":1}`, "", named(gone)+".sig")
	kept := manifest(t, s, "a", `{"n":2}`, "", "v1")
	manifest(t, s, "a", `{"sig":2}`, "", named(kept)+".sig", named(kept))
	time.Sleep(20 * time.Millisecond)
	manifest(t, s, "a", `{"n":3}`, "", "new")
	o := storage.CollectOptions{Retention: func(string) *storage.Retention {
		return &storage.Retention{KeepNewest: 1, KeepTag: func(tag string) bool { return tag == "v1" }}
	}}
	for _, want := range []string{named(gone) + ".sig", ""} {
		if _, err := s.Collect(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		tags, _, err := s.Tags(t.Context(), "a", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		all := []string{"new", named(kept), named(kept) + ".sig", want, "v1"}
		slices.Sort(all)
		if got := strings.Join(tags, " "); got != strings.TrimSpace(strings.Join(all, " ")) {
			t.Error(got)
		}
	}
}

// A tag that is being pushed while the rule takes it away is there afterwards.
func TestRetentionBesidePush(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	manifest(t, s, "a", `{"n":1}`, "", "x", "y")
	time.Sleep(20 * time.Millisecond)
	m := storage.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(`{}`), Body: []byte(`{}`)}
	err := s.PutManifest(t.Context(), "a", m, []string{"x"}, false, func() error {
		all := func(string) *storage.Retention { return &storage.Retention{} }
		if report, err := other.Collect(t.Context(), storage.CollectOptions{Retention: all}); err != nil || report.Tags != 1 {
			t.Errorf("%+v, %v", report, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.Manifest(t.Context(), "a", "x"); err != nil || got.Digest != m.Digest {
		t.Error(got, err)
	}
}
