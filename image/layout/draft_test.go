package layout_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/internal/testenv"
)

func draft(t *testing.T, p *layout.Session, data []byte) *layout.Draft {
	t.Helper()
	d, err := p.Draft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(data); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDraft(t *testing.T) {
	s := newStore(t)
	p := begin(t, s)
	data := []byte("a layer whose digest nobody knows yet")
	for range 2 { // the second finds the blob there
		d := draft(t, p, data)
		desc, err := d.Commit(t.Context(), v1.MediaTypeImageLayer)
		if err != nil || desc.Digest != describe("", data).Digest || desc.Size != int64(len(data)) || desc.MediaType != v1.MediaTypeImageLayer {
			t.Fatalf("%+v, %v", desc, err)
		}
		if has, err := s.Has(t.Context(), desc); !has || err != nil {
			t.Errorf("the blob is not there: %v", err)
		}
		_, err = d.Write(data)
		wantError(t, "write after commit", err, fs.ErrClosed)
		_, err = d.Commit(t.Context(), v1.MediaTypeImageLayer)
		wantError(t, "commit twice", err, fs.ErrClosed)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := draft(t, p, data).Close(); err != nil {
		t.Error(err)
	}
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDraftOfKilled: what a killed writer leaves, GC removes.
func TestDraftOfKilled(t *testing.T) {
	s := newStore(t)
	p := begin(t, s)
	draft(t, p, []byte("x"))
	p.Close()
	report, err := s.GC(t.Context(), layout.GCOptions{})
	if err != nil || report.Partials != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	checkClean(t, s)
}

func TestDraftOnFullDisk(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 1<<20)
	s := openStore(t, filepath.Join(dir, "store"), layout.Options{Create: true})
	p := begin(t, s)
	d, err := p.Draft(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Write(make([]byte, 2<<20))
	wantError(t, "write", err, syscall.ENOSPC)
	if _, err = d.Commit(t.Context(), "a/b"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("commit: %v", err)
	}
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("the full disk was not given back: %v", left)
	}
}
