package layout_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

// ingest writes data to an Ingest, from where it stands.
func ingest(ctx context.Context, p *layout.Session, desc v1.Descriptor, data []byte) error {
	in, err := p.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Write(data[in.Offset():]); err != nil {
		return err
	}
	return in.Commit()
}

func TestIngestResumes(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	data := []byte("0123456789")
	for _, desc := range []v1.Descriptor{describe("a/b", data), {MediaType: "a/b", Digest: digest.SHA512.FromBytes(data), Size: 10}} {
		in, err := p.Ingest(ctx, desc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(data[:4]); err != nil {
			t.Fatal(err)
		}
		wantError(t, "commit too early", in.Commit(), image.ErrMismatch, "4 bytes", string(desc.Digest))
		if has, err := s.Has(ctx, desc); has || err != nil {
			t.Errorf("a partial blob is there: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "commit after close", in.Commit(), fs.ErrClosed)
		_, err = in.Write(data[4:])
		wantError(t, "write after close", err, fs.ErrClosed)

		if in, err = p.Ingest(ctx, desc); err != nil || in.Offset() != 4 {
			t.Fatalf("resumed at %d, %v", in.Offset(), err)
		}
		_, err = in.Write(append(data[4:], 'x'))
		wantError(t, "too much", err, image.ErrMismatch, "more than the 10 bytes", string(desc.Digest))
		if _, err := in.Write(data[4:]); err != nil {
			t.Fatal(err)
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(in.Commit(), in.Close(), in.Discard()); err != nil {
			t.Errorf("after a commit: %v", err)
		}
		if in, err = p.Ingest(ctx, desc); err != nil || in.Offset() != 10 || in.Restart() != nil || in.Commit() != nil {
			t.Errorf("ingest of what is there: at %d, %v", in.Offset(), err)
		}
	}
	if report := checkClean(t, s); report.Blobs != 2 {
		t.Errorf("%d blobs", report.Blobs)
	}
}

func TestIngestThrowsAwayWhatIsWrong(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	good := []byte("the right content")
	desc := describe("a/b", good)
	flipped := slices.Clone(good)
	flipped[3] ^= 1
	err := ingest(ctx, p, desc, flipped)
	wantError(t, "flipped byte", err, image.ErrMismatch, string(desc.Digest))
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("kept for resuming: %v", left)
	}
	// Poison that was left by a write that never came to its Commit.
	in, err := p.Ingest(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(flipped[:8]); err != nil {
		t.Fatal(err)
	}
	in.Close()
	wantError(t, "resumed on poison", ingest(ctx, p, desc, good), image.ErrMismatch)
	if err := ingest(ctx, p, desc, good); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
	// A partial file larger than the blob starts anew.
	other := describe("a/b", []byte("x"))
	partial := filepath.Join(s.Dir(), ".tare/partial", "sha256-"+other.Digest.Encoded())
	if err := os.WriteFile(partial, make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ingest(ctx, p, other, []byte("x")); err != nil {
		t.Error(err)
	}
	for _, bad := range []v1.Descriptor{{}, {MediaType: "a/b", Digest: "sha256:../../x", Size: 1}, {MediaType: "a/b", Digest: desc.Digest, Size: -1}} {
		_, err := p.Ingest(ctx, bad)
		wantError(t, "bad descriptor", err, nil, "ingest blob")
	}
	checkClean(t, s)
}

func TestIngestReplacesDamage(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	data := []byte("what a power failure truncates")
	desc := describe("a/b", data)
	if err := ingest(ctx, p, desc, data); err != nil {
		t.Fatal(err)
	}
	lying := desc
	lying.Size--
	wantError(t, "wrong size in the descriptor", ingest(ctx, p, lying, data), image.ErrMismatch, "descriptor says 29")
	if err := os.Truncate(blobFile(s, desc.Digest), 5); err != nil {
		t.Fatal(err)
	}
	if err := ingest(ctx, p, desc, data); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s)
}

func TestIngestOfOneBlobByMany(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	data := make([]byte, 1<<20)
	desc := describe("a/b", data)
	var writers sync.WaitGroup
	for range 16 {
		p := begin(t, s)
		writers.Go(func() {
			if err := ingest(ctx, p, desc, data); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	p := begin(t, s)
	held, err := p.Ingest(ctx, describe("a/b", []byte("held")))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = p.Ingest(short, describe("a/b", []byte("held")))
	wantError(t, "waiting", err, context.DeadlineExceeded, string(describe("", []byte("held")).Digest))
	// When the first gives up, the second gets its chance.
	second := make(chan error)
	go func() { second <- ingest(ctx, p, describe("a/b", []byte("held")), []byte("held")) }()
	time.Sleep(5 * time.Millisecond)
	if err := held.Discard(); err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if report := checkClean(t, s); report.Blobs != 2 {
		t.Errorf("%d blobs, want 2", report.Blobs)
	}
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
