package layout_test

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layout"
)

func newStore(t *testing.T) *layout.Store {
	t.Helper()
	return openStore(t, t.TempDir(), layout.Options{Create: true, NoSync: true})
}

func openStore(t *testing.T, dir string, opts layout.Options) *layout.Store {
	t.Helper()
	s, err := layout.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t *testing.T, s *layout.Store) *layout.Session {
	t.Helper()
	p, err := s.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func describe(mediaType string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// checkClean fails the test when a full check finds anything.
func checkClean(t *testing.T, s *layout.Store) layout.FsckReport {
	t.Helper()
	report, err := s.Fsck(context.Background(), layout.FsckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Errorf("fsck: %s", p)
	}
	return report
}

func TestPutTagResolve(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	p := begin(t, s)
	data := []byte("hello")
	desc, err := p.Put(ctx, "text/plain", data)
	if err != nil {
		t.Fatal(err)
	}
	const name = "127.0.0.1:5000/medium:latest"
	if err := p.Tag(ctx, name, desc); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(ctx, name)
	if err != nil || got.Digest != desc.Digest || got.Annotations != nil {
		t.Fatalf("Resolve = %+v, %v", got, err)
	}
	if data, err := s.Fetch(ctx, got); err != nil || string(data) != "hello" {
		t.Fatalf("Fetch = %q, %v", data, err)
	}
	checkClean(t, s)
}
