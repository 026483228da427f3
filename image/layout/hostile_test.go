package layout_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layout"
)

// TestHostileDirectory: what lies in a layout from elsewhere under the names that
// we use does not make us wait, and nothing outside is written to.
func TestHostileDirectory(t *testing.T) {
	blob := []byte("blob")
	desc := describe(v1.MediaTypeImageLayer, blob)
	fifo := func(_, path string) error { return syscall.Mkfifo(path, 0o644) }
	hardLink := os.Link
	symlink := os.Symlink
	for _, name := range []string{"blobs", "blobs/sha256", ".tare/lease.lock", ".tare/index.lock", ".tare/new", ".tare/partial", ".tare/partial/sha256-" + desc.Digest.Encoded()} {
		for what, put := range map[string]func(victim, path string) error{"fifo": fifo, "hard link": hardLink, "symlink": symlink} {
			victim := filepath.Join(t.TempDir(), "victim")
			if err := os.WriteFile(victim, []byte("as it was"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := newStore(t).Dir()
			path := filepath.Join(dir, name)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := put(victim, path); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				useStore(t, dir, blob)
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s at %s: still waiting", what, name)
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != "as it was" {
				t.Errorf("%s at %s: the file outside now has %q, %v", what, name, got, err)
			}
		}
	}
}

// useStore does what writes to a store and walks through it; all of it may fail.
func useStore(t *testing.T, dir string, blob []byte) {
	ctx := t.Context()
	s, err := layout.Open(dir, layout.Options{NoSync: true})
	if err != nil {
		return
	}
	defer s.Close()
	if p, err := s.Begin(ctx); err == nil {
		if desc, err := p.Put(ctx, v1.MediaTypeImageLayer, blob); err == nil {
			p.Tag(ctx, "name", desc)
		}
		p.Close()
	}
	s.Fsck(ctx, layout.FsckOptions{})
	s.GC(ctx, layout.GCOptions{})
}
