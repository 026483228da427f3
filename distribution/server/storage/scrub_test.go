package storage_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// blobKey is where the bytes of a blob are, as the package's comment says.
func blobKey(d digest.Digest) string {
	return "blobs/" + string(d.Algorithm()) + "/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"
}

// TestRot: a rotten blob is found, by the scrubber or by who reads it, is never
// given out whole, neither in one piece nor in several, and is there again when
// somebody has pushed it.
func TestRot(t *testing.T) {
	onEach(t, func(t *testing.T, open func() storage.Objects) {
		objects := open()
		var rotten []storage.Rot
		s := storage.New(objects, storage.Options{VerifyOnRead: true, Rotten: func(r storage.Rot) { rotten = append(rotten, r) }})
		content := strings.Repeat("0123456789", 20_000)
		bad := strings.Replace(content, "5", "6", 1)
		good := push(t, s, "a", "good")
		for i, find := range []func(d digest.Digest){
			func(digest.Digest) {
				report, err := s.Scrub(t.Context(), storage.ScrubOptions{})
				if err != nil || report.Blobs != 1 || report.Bytes != 4 || report.Rotten != 1 || report.Finished.IsZero() {
					t.Errorf("%+v, %v", report, err)
				}
			},
			func(d digest.Digest) {
				r, size, err := s.Blob(t.Context(), "a", d)
				if err != nil || size != int64(len(bad)) {
					t.Fatal(size, err)
				}
				defer r.Close()
				if got, err := io.ReadAll(iotest.OneByteReader(r)); !errors.Is(err, storage.ErrDigest) || len(got) >= len(bad) {
					t.Errorf("%d of %d bytes, %v", len(got), size, err)
				}
			},
			func(d digest.Digest) {
				r, _, err := s.Blob(t.Context(), "a", d)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				r.Seek(-3, io.SeekEnd)
				if got, err := io.ReadAll(r); !errors.Is(err, storage.ErrDigest) || len(got) > 0 {
					t.Errorf("%q, %v", got, err)
				}
			},
		} {
			d := push(t, s, "a", content)
			if got := read(t, s, "a", d); string(got) != content {
				t.Error("other content")
			}
			time.Sleep(1100 * time.Millisecond * time.Duration(i%2)) // what was verified is remembered by its time
			if err := objects.Put(t.Context(), blobKey(d), []byte(bad[:len(bad)-i])); err != nil {
				t.Fatal(err)
			}
			bad = bad[:len(bad)-i]
			find(d)
			if _, err := s.StatBlob(t.Context(), "a", d); !errors.Is(err, storage.ErrNotExist) {
				t.Errorf("%d: still there: %v", i, err)
			}
			if len(rotten) != i+1 || rotten[i].Digest != d || rotten[i].Found != digest.FromString(bad) {
				t.Fatalf("%d: %+v", i, rotten)
			}
			if kept, err := objects.Get(t.Context(), rotten[i].Key, 1<<20); string(kept) != bad {
				t.Errorf("%d: %d bytes in quarantine, %v", i, len(kept), err)
			}
		}
		d := push(t, s, "b", content)
		for _, at := range []int64{0, 7} {
			r, _, err := s.Blob(t.Context(), "a", d) // the other repository has it again, too
			if err != nil {
				t.Fatal(err)
			}
			r.Seek(at, io.SeekStart)
			if got, err := io.ReadAll(r); string(got) != content[at:] {
				t.Errorf("from %d: %d bytes, %v", at, len(got), err)
			}
			r.Close()
		}
		if string(read(t, s, "a", good)) != "good" {
			t.Error("other content")
		}
	})
}

// TestScrubGoesOn: a walk that is interrupted goes on where it was, on another
// registry, reads no faster than it may, and the next begins in time.
func TestScrubGoesOn(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	var all []digest.Digest
	for i := range 40 {
		all = append(all, push(t, s, "a", strings.Repeat("x", 1000+i)))
	}
	slices.Sort(all)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	start := time.Now()
	report, err := s.Scrub(ctx, storage.ScrubOptions{BytesPerSecond: 200_000, Read: func(int64) {
		if n++; n == 15 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Blobs != 15 || report.After != all[14] || !report.Finished.IsZero() {
		t.Fatalf("%+v, %v", report, err)
	}
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("15 KB at 200 KB/s in %s", took)
	}
	week := storage.ScrubOptions{Interval: 7 * 24 * time.Hour}
	for range 2 {
		if report, err = other.Scrub(t.Context(), week); err != nil || report.Blobs != len(all) || report.Finished.IsZero() {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	again, err := s.Scrub(t.Context(), storage.ScrubOptions{})
	if err != nil || again.Blobs != len(all) || again.Started.Equal(report.Started) {
		t.Errorf("%+v, %v", again, err)
	}
}

// A blob that is pushed again while it is found rotten is not taken away.
func TestHealedMeanwhile(t *testing.T) {
	objects := objects(t, t.TempDir())
	s := storage.New(objects, storage.Options{VerifyOnRead: true})
	d := push(t, s, "a", "0123456789")
	if err := objects.Put(t.Context(), blobKey(d), []byte("012345678x")); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Blob(t.Context(), "a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	time.Sleep(20 * time.Millisecond)
	push(t, s, "a", "0123456789")
	if _, err := io.ReadAll(r); !errors.Is(err, storage.ErrDigest) {
		t.Error(err)
	}
	if got := string(read(t, s, "a", d)); got != "0123456789" {
		t.Error(got)
	}
}

// unreadable objects cannot be read again where they are quarantined.
type unreadable struct{ storage.Objects }

func (u unreadable) Open(ctx context.Context, key string) (io.ReadSeekCloser, int64, error) {
	if strings.HasPrefix(key, "quarantine/") {
		return nil, 0, io.ErrUnexpectedEOF
	}
	return u.Objects.Open(ctx, key)
}

// A blob that is taken away is told of, whatever happens then.
func TestRotIsTold(t *testing.T) {
	objects := unreadable{objects(t, t.TempDir())}
	told := 0
	s := storage.New(objects, storage.Options{Rotten: func(storage.Rot) { told++ }})
	d := push(t, s, "a", "0123456789")
	if err := objects.Put(t.Context(), blobKey(d), []byte("012345678x")); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Scrub(t.Context(), storage.ScrubOptions{}); err != nil || report.Rotten != 1 || told != 1 {
		t.Error(report, told, err)
	}
}
