package storage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

func objects(t *testing.T, dir string) storage.Objects {
	t.Helper()
	o, err := fs.New(dir, fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, dir string) *storage.Store {
	t.Helper()
	return storage.New(objects(t, dir), storage.Options{})
}

func start(t *testing.T, s *storage.Store, repo string) string {
	t.Helper()
	id, err := s.StartUpload(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func read(t *testing.T, s *storage.Store, repo string, d digest.Digest) []byte {
	t.Helper()
	r, size, err := s.Blob(t.Context(), repo, d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || int64(len(got)) != size {
		t.Fatal(len(got), size, err)
	}
	return got
}

// An upload goes on in a new Store on the same objects, as after a restart,
// and after a connection that broke; every algorithm ends right.
func TestUploadAcrossRestarts(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		dir := t.TempDir()
		content := make([]byte, 3<<20)
		rand.Read(content)
		d := algorithm.FromBytes(content)
		id := start(t, open(t, dir), "a/b")
		offset := int64(0)
		for range 3 {
			s := open(t, dir)
			rest := content[offset:]
			cut := io.MultiReader(bytes.NewReader(rest[:1<<19]), iotest.ErrReader(io.ErrUnexpectedEOF))
			var err error
			if offset, err = s.AppendUpload(t.Context(), "a/b", id, offset, cut); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			if at, err := s.UploadOffset(t.Context(), "a/b", id); at != offset || err != nil || at%(1<<19) != 0 {
				t.Fatal(at, offset, err)
			}
		}
		s := open(t, dir)
		if err := s.CommitUpload(t.Context(), "a/b", id, offset, bytes.NewReader(content[offset:]), d); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, s, "a/b", d), content) {
			t.Error("other content")
		}
		if _, err := s.UploadOffset(t.Context(), "a/b", id); !errors.Is(err, storage.ErrNotExist) {
			t.Error("session still there:", err)
		}
	}
}

func TestUploadRefusals(t *testing.T) {
	s := open(t, t.TempDir())
	id := start(t, s, "a")
	d := digest.FromString("hello")
	if _, err := s.AppendUpload(t.Context(), "b", id, 0, strings.NewReader("x")); !errors.Is(err, storage.ErrNotExist) {
		t.Error("used from another repository:", err)
	}
	if err := s.CancelUpload(t.Context(), "b", id); !errors.Is(err, storage.ErrNotExist) {
		t.Error("cancelled from another repository:", err)
	}
	if _, err := s.AppendUpload(t.Context(), "a", id, 3, strings.NewReader("x")); !errors.Is(err, storage.ErrOffset) {
		t.Error(err)
	}
	// A second request meanwhile.
	inside := readerFunc(func([]byte) (int, error) {
		if _, err := s.AppendUpload(t.Context(), "a", id, 0, strings.NewReader("x")); !errors.Is(err, storage.ErrBusy) {
			t.Error(err)
		}
		return 0, io.EOF
	})
	if _, err := s.AppendUpload(t.Context(), "a", id, 0, inside); err != nil {
		t.Error(err)
	}
	if err := s.CommitUpload(t.Context(), "a", id, 9, strings.NewReader("hello"), d); !errors.Is(err, storage.ErrOffset) {
		t.Error(err)
	}
	if err := s.CommitUpload(t.Context(), "a", id, 0, strings.NewReader("hellO"), d); !errors.Is(err, storage.ErrDigest) {
		t.Error(err)
	}
	if _, err := s.StatBlob(t.Context(), "a", d); !errors.Is(err, storage.ErrNotExist) {
		t.Error("there is a blob:", err)
	}
	if _, err := s.UploadOffset(t.Context(), "a", id); !errors.Is(err, storage.ErrNotExist) {
		t.Error("session still there:", err)
	}
}

// An upload whose bytes are gone is one that the client has to begin anew, not
// one that it is sent back to again and again.
func TestLostUpload(t *testing.T) {
	for change, damage := range map[string]func(objects storage.Objects, id string) error{
		"stream gone": func(o storage.Objects, id string) error { return o.DiscardStream(t.Context(), id) },
		"stream cut": func(o storage.Objects, id string) error {
			_, err := o.AppendStream(t.Context(), id, storage.Mark{}, strings.NewReader("x"))
			return err
		},
	} {
		objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		s := storage.New(objects, storage.Options{})
		id := start(t, s, "a")
		if _, err := s.AppendUpload(t.Context(), "a", id, 0, strings.NewReader("hello")); err != nil {
			t.Fatal(err)
		}
		if err := damage(objects, id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendUpload(t.Context(), "a", id, 5, strings.NewReader("x")); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: %v", change, err)
		}
		if _, err := s.UploadOffset(t.Context(), "a", id); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: session still there: %v", change, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func push(t *testing.T, s *storage.Store, repo, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	if err := s.CommitUpload(t.Context(), repo, start(t, s, repo), -1, strings.NewReader(content), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Blobs are stored once, and each repository only has its own.
func TestBlobsOfRepositories(t *testing.T) {
	s := open(t, t.TempDir())
	d := push(t, s, "a/b", "content")
	for _, repo := range []string{"a", "a/b/c", "a-b", "b"} {
		if _, _, err := s.Blob(t.Context(), repo, d); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s has it: %v", repo, err)
		}
	}
	if err := s.MountBlob(t.Context(), "x", "b", d, anybody); !errors.Is(err, storage.ErrNotExist) {
		t.Error("mounted from a repository without it:", err)
	}
	if err := s.MountBlob(t.Context(), "x", "a/b", d, anybody); err != nil {
		t.Error(err)
	}
	if err := s.DeleteBlob(t.Context(), "a/b", d); err != nil {
		t.Error(err)
	}
	if err := s.DeleteBlob(t.Context(), "a/b", d); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	if string(read(t, s, "x", d)) != "content" {
		t.Error("other content")
	}
	if err := s.MountBlob(t.Context(), "y", "a/b", d, anybody); !errors.Is(err, storage.ErrNotExist) {
		t.Error("mounted what was deleted:", err)
	}
	if err := s.MountBlob(t.Context(), "y", "", d, anybody); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.DeleteBlob(t.Context(), "x", d), s.DeleteBlob(t.Context(), "y", d)); err != nil {
		t.Error(err)
	}
	if err := s.MountBlob(t.Context(), "z", "", d, anybody); !errors.Is(err, storage.ErrNotExist) {
		t.Error("mounted what nobody has:", err)
	}
}

func TestExpireUploads(t *testing.T) {
	s := open(t, t.TempDir())
	var ids []string
	for range 1500 { // more than a page
		ids = append(ids, start(t, s, "a"))
	}
	if _, err := s.AppendUpload(t.Context(), "a", ids[7], 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.ExpireUploads(t.Context(), time.Now().Add(-time.Minute)); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.ExpireUploads(t.Context(), time.Now().Add(time.Minute)); n != len(ids) || err != nil {
		t.Error(n, err)
	}
	if _, err := s.UploadOffset(t.Context(), "a", ids[7]); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
}

// A client's request never meets the lock of one who looks for old uploads.
func TestExpireUploadsKeepsOff(t *testing.T) {
	s := open(t, t.TempDir())
	id := start(t, s, "a")
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for ctx.Err() == nil {
				if n, err := s.ExpireUploads(t.Context(), time.Now().Add(-time.Minute)); n != 0 || err != nil {
					t.Error(n, err)
				}
			}
		})
	}
	for range 500 {
		if _, err := s.AppendUpload(t.Context(), "a", id, -1, strings.NewReader("x")); err != nil {
			t.Error(err)
		}
	}
	cancel()
	looking.Wait()
}

func putManifest(t *testing.T, s *storage.Store, repo, body string, subject digest.Digest, artifactType string, tags ...string) digest.Digest {
	t.Helper()
	m := storage.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(body), Body: []byte(body), Subject: subject}
	m.Referrer = ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(body)), ArtifactType: artifactType}
	if err := s.PutManifest(t.Context(), repo, m, tags, false, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

func TestManifestsAndTags(t *testing.T) {
	s := open(t, t.TempDir())
	if _, _, err := s.Tags(t.Context(), "a", "", 10); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	one := putManifest(t, s, "a", "{\"one\":\n1}", "", "", "x", "y", "Z")
	two := putManifest(t, s, "a", "{}", "", "", "y")
	for target, want := range map[string]digest.Digest{"x": one, "y": two, "Z": one, one.String(): one, two.String(): two} {
		m, err := s.Manifest(t.Context(), "a", target)
		if err != nil || m.Digest != want || digest.FromBytes(m.Body) != want || m.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("%s: %+v, %v", target, m, err)
		}
	}
	if tags, more, err := s.Tags(t.Context(), "a", "", 2); !slices.Equal(tags, []string{"Z", "x"}) || !more || err != nil {
		t.Error(tags, more, err)
	}
	if tags, more, err := s.Tags(t.Context(), "a", "x", 2); !slices.Equal(tags, []string{"y"}) || more || err != nil {
		t.Error(tags, more, err)
	}
	if err := s.DeleteManifest(t.Context(), "a", one); err != nil {
		t.Error(err)
	}
	if tags, _, err := s.Tags(t.Context(), "a", "", 10); !slices.Equal(tags, []string{"y"}) || err != nil {
		t.Error(tags, err)
	}
	if err := s.DeleteTag(t.Context(), "a", "y"); err != nil {
		t.Error(err)
	}
	if tags, _, err := s.Tags(t.Context(), "a", "", 10); len(tags) != 0 || err != nil {
		t.Error("a repository without tags is one:", tags, err)
	}
	if err := s.DeleteManifest(t.Context(), "a", two); err != nil {
		t.Error(err)
	}
	if _, err := s.Manifest(t.Context(), "a", two.String()); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
}

func TestReferrers(t *testing.T) {
	s := open(t, t.TempDir())
	subject := digest.FromString("subject")
	var all []digest.Digest
	for i := range 250 {
		body := fmt.Sprintf(`{"subject":{"digest":%q},"n":%d}`, subject, i)
		all = append(all, putManifest(t, s, "a", body, subject, []string{"sbom", "sig"}[i%2]))
	}
	slices.Sort(all)
	sig := "sig"
	for _, c := range []struct {
		filter   *string
		maxBytes int
		want     int
	}{{nil, 1 << 20, 250}, {nil, 1000, 250}, {nil, 0, 250}, {&sig, 1000, 125}} {
		var got []digest.Digest
		last := digest.Digest("")
		for pages := 0; ; pages++ {
			list, more, err := s.Referrers(t.Context(), "a", subject, last, c.filter, c.maxBytes)
			if err != nil || pages > 250 {
				t.Fatal(pages, err)
			}
			for _, desc := range list {
				got = append(got, desc.Digest)
			}
			if !more {
				break
			}
			last = got[len(got)-1]
		}
		if len(got) != c.want || !slices.IsSorted(got) || c.want == 250 && !slices.Equal(got, all) {
			t.Errorf("%+v: %d referrers", c, len(got))
		}
	}
	if err := s.DeleteManifest(context.Background(), "a", all[3]); err != nil {
		t.Fatal(err)
	}
	if list, _, err := s.Referrers(t.Context(), "a", subject, "", nil, 1<<20); len(list) != 249 || err != nil {
		t.Error(len(list), err)
	}
}

func anybody(string) bool { return true }

// An upload that is larger than a limit that came later is refused.
func TestLimitThatCameLater(t *testing.T) {
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	id := start(t, storage.New(objects, storage.Options{}), "a")
	s := storage.New(objects, storage.Options{})
	if _, err := s.AppendUpload(t.Context(), "a", id, 0, strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	s = storage.New(objects, storage.Options{MaxBlobBytes: 4})
	if n, err := s.AppendUpload(t.Context(), "a", id, 10, strings.NewReader("x")); n != 10 || !errors.Is(err, distribution.ErrTooLarge) {
		t.Error(n, err)
	}
}
