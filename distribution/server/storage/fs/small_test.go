package fs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// remember reads a file that was written long enough ago, so that it is kept.
func remember(t *testing.T, o *Objects, key string, want []byte) {
	t.Helper()
	path, err := o.path(key)
	if err != nil {
		t.Fatal(err)
	}
	data, file, err := readFile(path, 1<<20)
	if err != nil || !bytes.Equal(data, want) {
		t.Fatalf("%q, %v", data, err)
	}
	o.small.put(path, file, data, time.Now().Add(2*settled))
	if got, ok := o.small.get(path, file); !ok || !bytes.Equal(got, want) {
		t.Fatalf("not kept: %q", got)
	}
}

// What somebody else changes in the directory is seen at once, also where it was
// read before: another content of the same size, none, and one in its place again.
func TestSmallSeesWhatOthersDo(t *testing.T) {
	dir := t.TempDir()
	o, err := New(dir, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(dir, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	get := func(want string) {
		t.Helper()
		if got, err := o.Get(t.Context(), "a/tag", 100); err != nil || string(got) != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	for i := range 300 {
		text := fmt.Sprintf("%04d", i)
		if err := other.Put(t.Context(), "a/tag", []byte(text)); err != nil {
			t.Fatal(err)
		}
		get(text)
		if i%3 == 0 {
			remember(t, o, "a/tag", []byte(text))
			get(text)
		}
		if i%5 == 0 {
			if err := other.Delete(t.Context(), "a/tag"); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Get(t.Context(), "a/tag", 100); !errors.Is(err, storage.ErrNotExist) {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // remember has not waited: the next may be the same inode, in the same tick
		}
	}
	if err := other.Put(t.Context(), "a/tag", []byte("long enough")); err != nil {
		t.Fatal(err)
	}
	remember(t, o, "a/tag", []byte("long enough"))
	if _, err := o.Get(t.Context(), "a/tag", 5); err == nil {
		t.Error("the limit does not hold for what is remembered")
	}
}

// A file that has just been changed is not remembered: a second change might have
// the same time.
func TestSmallWaits(t *testing.T) {
	o, err := New(t.TempDir(), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Put(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Get(t.Context(), "a/b", 10); err != nil {
		t.Error(err)
	}
	if _, ok := o.small.Get(o.root + "/a/b"); ok {
		t.Error("remembered")
	}
}

// What is large is not remembered.
func TestSmallIsSmall(t *testing.T) {
	var s small
	s.MaxBytes = maxGenerationBytes
	later := time.Now().Add(time.Hour)
	for size, kept := range map[int]bool{maxSmallBytes: true, maxSmallBytes + 1: false} {
		s.put(fmt.Sprint(size), identity{}, make([]byte, size), later)
		if _, ok := s.Get(fmt.Sprint(size)); ok != kept {
			t.Errorf("%d bytes: %v", size, ok)
		}
	}
}
