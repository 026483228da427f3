package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// perTeam gives each first element of a name 100 bytes, but "free".
func perTeam(repo string) (storage.Quota, bool) {
	team, _, _ := strings.Cut(repo, "/")
	return storage.Quota{Namespace: team, LimitBytes: 100}, team != "free"
}

func used(t *testing.T, s *storage.Store) string {
	t.Helper()
	all, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, u := range all {
		text = append(text, fmt.Sprint(u.Namespace, ":", u.UsedBytes))
	}
	return strings.Join(text, " ")
}

func upload(t *testing.T, s *storage.Store, repo, content string) error {
	t.Helper()
	id, err := s.StartUpload(t.Context(), repo)
	if err != nil {
		return err
	}
	return s.CommitUpload(t.Context(), repo, id, -1, strings.NewReader(content), digest.FromString(content))
}

// TestQuota: a namespace never gets more than its quota, by whichever registry
// and in whichever way; each blob counts once, and what goes counts no more.
func TestQuota(t *testing.T) {
	onEach(t, func(t *testing.T, open func() storage.Objects) {
		o := storage.Options{Quota: perTeam, QuotaRules: "1"}
		s, other := storage.New(open(), o), storage.New(open(), o)
		step := func(what, want string, err error, refused bool) {
			t.Helper()
			full, isFull := errors.AsType[*storage.QuotaError](err)
			if isFull != refused || err != nil && !isFull || isFull && full.Namespace != "a" {
				t.Fatalf("%s: %v", what, err)
			}
			if got := used(t, other); got != want {
				t.Fatalf("%s: %s are used, not %s", what, got, want)
			}
		}
		forty, thirty := strings.Repeat("x", 40), strings.Repeat("y", 30)
		d := digest.FromString(forty)
		step("upload", "a:40", upload(t, s, "a/one", forty), false)
		step("the same to another repository", "a:40", upload(t, other, "a/two", forty), false)
		step("mount", "a:40", s.MountBlob(t.Context(), "a/b/three", "a/one", d, anybody), false)
		step("to another namespace", "a:40 b:40", other.MountBlob(t.Context(), "b", "a/one", d, anybody), false)
		step("without a quota", "a:40 b:40", upload(t, s, "free/x", strings.Repeat("z", 1000)), false)
		step("too much", "a:40 b:40", upload(t, other, "a/one", strings.Repeat("z", 61)), true)
		step("mount of too much", "a:40 b:40", s.MountBlob(t.Context(), "a/one", "free/x", digest.FromString(strings.Repeat("z", 1000)), anybody), true)

		id := start(t, s, "a/four")
		offset, err := s.AppendUpload(t.Context(), "a/four", id, 0, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(thirty))))
		if offset != 1 || !errors.Is(err, iotest.ErrTimeout) {
			t.Fatal(offset, err)
		}
		step("upload under way", "a:41 b:40", nil, false)
		_, err = other.AppendUpload(t.Context(), "a/four", id, 1, strings.NewReader(thirty[1:]))
		step("goes on", "a:70 b:40", err, false)
		step("cancelled", "a:40 b:40", s.CancelUpload(t.Context(), "a/four", id), false)
		id = start(t, s, "a/four")
		_, err = s.AppendUpload(t.Context(), "a/four", id, 0, strings.NewReader(strings.Repeat("z", 61)))
		step("too much in pieces", "a:40 b:40", err, true)
		if _, err := s.UploadOffset(t.Context(), "a/four", id); !errors.Is(err, storage.ErrNotExist) {
			t.Error("an upload without room is still there:", err)
		}

		body := `{"n":1}`
		m := storage.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(body), Body: []byte(body)}
		size := 40 + len(m.MediaType) + 1 + len(body)
		for range 2 {
			err := s.PutManifest(t.Context(), "a/one", m, []string{"v1"}, false, func() error { return nil })
			step("manifest", fmt.Sprintf("a:%d b:40", size), err, false)
		}
		if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
			t.Fatal(err)
		}
		step("counted anew", fmt.Sprintf("a:%d b:40", size), nil, false)
		step("manifest deleted", "a:40 b:40", other.DeleteManifest(t.Context(), "a/one", m.Digest), false)
		for i, repo := range []string{"a/one", "a/two", "a/b/three"} {
			err := s.DeleteBlob(t.Context(), repo, d)
			step("blob deleted", []string{"a:40 b:40", "a:40 b:40", "a:0 b:40"}[i], err, false)
		}
	})
}

// A namespace that is full refuses uploads before their first byte.
func TestFullNamespace(t *testing.T) {
	s := storage.New(objects(t, t.TempDir()), storage.Options{Quota: perTeam})
	if err := upload(t, s, "a", strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartUpload(t.Context(), "a/b"); err == nil || !strings.Contains(err.Error(), "the quota of a is exceeded: 100 of 100 bytes are in use") {
		t.Error(err)
	}
	if _, err := s.StartUpload(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}

// What was there before the rules is counted once, on one registry; and a count
// beside pushes is never too low.
func TestCountUsage(t *testing.T) {
	dir := t.TempDir()
	plain := storage.New(objects(t, dir), storage.Options{})
	if err := upload(t, plain, "a/x", "12345"); err != nil {
		t.Fatal(err)
	}
	if err := plain.MountBlob(t.Context(), "a/y", "a/x", digest.FromString("12345"), anybody); err != nil {
		t.Fatal(err)
	}
	id := start(t, plain, "a/z")
	if _, err := plain.AppendUpload(t.Context(), "a/z", id, 0, strings.NewReader("123")); err != nil {
		t.Fatal(err)
	}
	o := storage.Options{Quota: func(repo string) (storage.Quota, bool) {
		return storage.Quota{Namespace: strings.Split(repo, "/")[0], LimitBytes: 1 << 20}, true
	}, QuotaRules: "first"}
	s := storage.New(objects(t, dir), o)
	for _, want := range []bool{true, false} {
		if done, err := s.CountUsage(t.Context()); done != want || err != nil {
			t.Error(done, err)
		}
	}
	if got := used(t, s); got != "a:8" {
		t.Error(got)
	}
	var pushers sync.WaitGroup
	for w := range 4 {
		pushers.Go(func() {
			for i := range 20 {
				if err := upload(t, s, "a/x", fmt.Sprintf("%d %2d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
			t.Error(err)
		}
	}
	pushers.Wait()
	all, err := s.Usage(t.Context())
	if err != nil || len(all) != 1 || all[0].UsedBytes < 8+4*20*4 {
		t.Error(all, err)
	}
	if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
		t.Error(err)
	}
	if got := used(t, s); got != "a:328" {
		t.Error(got)
	}
	o.QuotaRules = "second"
	if done, err := storage.New(objects(t, dir), o).CountUsage(t.Context()); !done || err != nil {
		t.Error(done, err)
	}
}

// An upload that was under way when a count began, and was not found by it, counts
// when it is there.
func TestUploadAcrossCounts(t *testing.T) {
	objects := objects(t, t.TempDir())
	s := storage.New(objects, storage.Options{Quota: func(string) (storage.Quota, bool) {
		return storage.Quota{Namespace: "a", LimitBytes: 100 << 20}, true
	}})
	if err := upload(t, s, "a", "12345"); err != nil {
		t.Fatal(err)
	}
	const large = 20 << 20
	content := strings.Repeat("x", large)
	rest, counted := strings.NewReader(content), false
	counting := readerFunc(func(p []byte) (int, error) {
		if rest.Len() < 2<<20 && !counted { // most is reserved by now
			counted = true
			if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
				t.Error(err)
			}
			if got := used(t, s); got != "a:5" {
				t.Error(got)
			}
		}
		return rest.Read(p)
	})
	id := start(t, s, "a")
	if err := s.CommitUpload(t.Context(), "a", id, -1, counting, digest.FromString(content)); err != nil {
		t.Fatal(err)
	}
	all, err := s.Usage(t.Context())
	if err != nil || all[0].UsedBytes < 5+large {
		t.Error(all, err)
	}
	if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if got := used(t, s); got != fmt.Sprint("a:", 5+large) {
		t.Error(got)
	}
}

// A counter that a power cut has spoilt keeps nobody from pushing, and the next
// collection puts it right.
func TestSpoiltCounter(t *testing.T) {
	objects := objects(t, t.TempDir())
	s := storage.New(objects, storage.Options{Quota: perTeam})
	if err := upload(t, s, "a", "12345"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"usage/a", "scrub"} {
		if err := objects.Put(t.Context(), key, []byte("\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
	}
	if err := upload(t, s, "a", "123"); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(t.Context(), storage.CollectOptions{Grace: time.Hour}); err != nil {
		t.Error(err)
	}
	if got := used(t, s); got != "a:8" {
		t.Error(got)
	}
	if report, err := s.Scrub(t.Context(), storage.ScrubOptions{}); err != nil || report.Blobs != 2 {
		t.Error(report, err)
	}
}
