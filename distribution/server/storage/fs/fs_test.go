package fs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/storagetest"
	"github.com/tare-oci/tare/internal/testenv"
)

func open(t *testing.T, dir string) *Objects {
	t.Helper()
	o, err := New(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestContract(t *testing.T) {
	storagetest.Run(t, storagetest.Service{}, func(t *testing.T) storage.Objects { return open(t, t.TempDir()) })
}

// A failed Put leaves the old object, and no temporary file.
func TestNothingLeftBehind(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir)
	if err := o.Put(t.Context(), "a", []byte("object")); err != nil {
		t.Fatal(err)
	}
	if err := o.Put(t.Context(), "a/b", []byte("cannot be below an object")); err == nil {
		t.Error("Put below an object")
	}
	left, err := os.ReadDir(filepath.Join(dir, newDir))
	if err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// TestFull fills a small file system: the error says so, the space of the
// failed request is given back, and service goes on.
func TestFull(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 4<<20)
	o := open(t, dir)
	free := func() uint64 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree
	}
	if n, err := o.AppendStream(t.Context(), "id", storage.Mark{}, strings.NewReader("start")); n.Offset != 5 || err != nil {
		t.Fatal(n, err)
	}
	before := free()
	endless := io.LimitReader(zeros{}, 64<<20)
	if n, err := o.AppendStream(t.Context(), "id", storage.Mark{Offset: 5}, endless); n.Offset != 5 || !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("kept until %v, %v", n, err)
	}
	if after := free(); after != before {
		t.Errorf("%d blocks free, %d before", after, before)
	}
	if err := o.Put(t.Context(), "big", make([]byte, 8<<20)); !errors.Is(err, storage.ErrNoSpace) {
		t.Error(err)
	}
	if after := free(); after != before {
		t.Errorf("%d blocks free, %d before", after, before)
	}
	if err := o.CommitStream(t.Context(), "id", storage.Mark{Offset: 5}, "blob"); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What a killed process has left goes when it is old.
func TestTidy(t *testing.T) {
	dir := t.TempDir()
	o, err := New(dir, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for name, age := range map[string]time.Time{"new/old": old, "streams/old": old, "new/young": time.Now(), "streams/young": time.Now(), "locks/old": old} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, age, age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Tidy(t.Context(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(dir + "/*/*")
	if want := []string{dir + "/locks/old", dir + "/new/young", dir + "/streams/young"}; err != nil || !slices.Equal(left, want) {
		t.Error(left, err)
	}
}
