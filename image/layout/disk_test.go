package layout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/internal/testenv"
)

// fill writes a file until the disk is full, but for what leave asks for.
func fill(t *testing.T, path string, leaveBytes int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	for page := make([]byte, 4096); err == nil; {
		var n int
		n, err = f.Write(page)
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, size-leaveBytes)); err != nil {
		t.Fatal(err)
	}
}

func TestFullDisk(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	ctx := context.Background()
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 4<<20)
	s := openStore(t, filepath.Join(dir, "store"), layout.Options{Create: true})
	p := begin(t, s)
	small, err := putImage(ctx, p, []byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tag(ctx, "small", small); err != nil {
		t.Fatal(err)
	}

	large := make([]byte, 8<<20)
	err = ingestSlowly(ctx, p, large)
	wantError(t, "large blob", err, syscall.ENOSPC, "write blob "+string(describe("", large).Digest))
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("the full disk was not given back: %v", left)
	}
	if err := ingestSlowly(ctx, p, large[:2<<20]); err != nil {
		t.Errorf("what has room: %v", err)
	}
	// What came beside a blob that had no room has to make some; what was cut off stays.
	for why, kept := range map[error]int{syscall.ENOSPC: 0, context.Canceled: 1} {
		group, end := context.WithCancelCause(ctx)
		in, err := p.Ingest(group, describe("a/b", large[:1<<20]))
		if err != nil {
			t.Fatal(err)
		}
		_, err = in.Write(large[:4096])
		end(fmt.Errorf("write: %w", why))
		if err := errors.Join(err, in.Close()); err != nil {
			t.Fatal(err)
		}
		left := files(t, s, ".tare/partial")
		if len(left) != kept {
			t.Errorf("ended by %v: %v", why, left)
		}
		for _, name := range left {
			if err := os.Remove(filepath.Join(s.Dir(), ".tare/partial", filepath.Base(name))); err != nil {
				t.Fatal(err)
			}
		}
	}

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast, 0)
	wantError(t, "name", p.Tag(ctx, "other", small), syscall.ENOSPC, `tag "other"`)
	_, err = p.Put(ctx, "a/b", []byte("one more"))
	wantError(t, "small blob", err, syscall.ENOSPC, string(describe("", []byte("one more")).Digest))
	_, err = layout.Open(filepath.Join(dir, "new"), layout.Options{Create: true})
	wantError(t, "new store", err, syscall.ENOSPC, "new")
	checkClean(t, s)
	if names, err := s.List(ctx); err != nil || len(names) != 1 {
		t.Errorf("names %v, %v", names, err)
	}
	// GC needs no room, and makes some.
	p.Close()
	if report, err := s.GC(ctx, layout.GCOptions{}); err != nil || len(report.Removed) != 1 {
		t.Errorf("gc on a full disk: %+v, %v", report, err)
	}
	p = begin(t, s)
	if err := p.Tag(ctx, "other", small); err != nil {
		t.Errorf("after gc: %v", err)
	}
	if s2, err := layout.Open(filepath.Join(dir, "new"), layout.Options{Create: true}); err != nil {
		t.Errorf("what was begun on the full disk: %v", err)
	} else {
		checkClean(t, s2)
		s2.Close()
	}
	checkClean(t, s)
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Lstat(filepath.Join(s.Dir(), ".tare/new")); err == nil {
		t.Error("left behind: the new index.json")
	}
}
