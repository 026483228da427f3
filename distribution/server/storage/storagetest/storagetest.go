// Package storagetest is the contract of storage.Objects as tests: what a
// driver must do for a registry of the OCI Distribution Spec to stand on it.
package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// MaxElementBytes is how long an element of a key may be.
const MaxElementBytes = 255

// Service is what the service that a driver is tested with falls short of; the
// zero value is a perfect one.
type Service struct {
	ElementBytes int // of an element of a key, if less than MaxElementBytes
	// EmptiesDirectories: it keeps objects in directories, and does not see one
	// for a moment that is put into a directory which is just being emptied.
	EmptiesDirectories bool
}

// Run tests a driver. open gives an empty one; it is called for each test.
func Run(t *testing.T, service Service, open func(t *testing.T) storage.Objects) {
	service.ElementBytes = cmp.Or(service.ElementBytes, MaxElementBytes)
	for name, test := range map[string]func(*suite){
		"Objects":       (*suite).testObjects,
		"Missing":       (*suite).testMissing,
		"List":          (*suite).testList,
		"PutReplaces":   (*suite).testPutReplaces,
		"Stream":        (*suite).testStream,
		"StreamRewind":  (*suite).testStreamRewind,
		"StreamFailing": (*suite).testStreamFailing,
		"StreamCommit":  (*suite).testStreamCommit,
		"PutAndDelete":  (*suite).testPutAndDelete,
		"PutAll":        (*suite).testPutAll,
		"Move":          (*suite).testMove,
		"Update":        (*suite).testUpdate,
		"Lock":          (*suite).testLock,
		"Tidy":          (*suite).testTidy,
		"BadKeys":       (*suite).testBadKeys,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{t, t.Context(), open(t), service}) })
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	storage.Objects
	service Service
}

func (s *suite) put(key, value string) {
	s.Helper()
	if err := s.Put(s.ctx, key, []byte(value)); err != nil {
		s.Fatal(err)
	}
}

// read reads an object in each of the ways there are.
func (s *suite) read(key string) string {
	s.Helper()
	got, err := s.Get(s.ctx, key, 1<<30)
	if err != nil {
		s.Fatal(err)
	}
	r, size, err := s.Open(s.ctx, key)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	streamed, err := io.ReadAll(r)
	stat, statErr := s.Stat(s.ctx, key)
	if err != nil || statErr != nil || !bytes.Equal(got, streamed) || size != int64(len(got)) || stat.SizeBytes != size || time.Since(stat.Modified).Abs() > time.Hour {
		s.Fatalf("%s: Get %d bytes, Open %d of %d, Stat %+v: %v, %v", key, len(got), len(streamed), size, stat, err, statErr)
	}
	return string(got)
}

func (s *suite) want(got, want string) {
	s.Helper()
	if got != want {
		s.Fatalf("got %q, want %q", clip(got), clip(want))
	}
}

func (s *suite) wantErr(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got error %v, want %v", err, want)
	}
}

func clip(x string) string {
	if len(x) > 40 {
		return fmt.Sprintf("%s… (%d bytes)", x[:40], len(x))
	}
	return x
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

func (s *suite) testObjects() {
	if err := s.Check(s.ctx); err != nil {
		s.Fatal(err)
	}
	for _, value := range []string{"", "x", random(3 << 20)} {
		for _, key := range []string{"a", "b/c", "b/d/e/f", "b/c,d_-.", strings.Repeat("n", s.service.ElementBytes) + "/" + strings.Repeat("m", s.service.ElementBytes)} {
			s.put(key, value)
			s.want(s.read(key), value)
		}
	}
	s.put("limit", "12345")
	if _, err := s.Get(s.ctx, "limit", 5); err != nil {
		s.Fatal(err)
	}
	_, err := s.Get(s.ctx, "limit", 4)
	s.wantErr(err, distribution.ErrTooLarge)

	r, _, err := s.Open(s.ctx, "limit")
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	r.Seek(3, io.SeekStart)
	rest, _ := io.ReadAll(r)
	s.want(string(rest), "45")

	if err := s.Delete(s.ctx, "b/c"); err != nil {
		s.Fatal(err)
	}
	_, err = s.Get(s.ctx, "b/c", 10)
	s.wantErr(err, storage.ErrNotExist)
	s.read("b/d/e/f")
}

func (s *suite) testMissing() {
	s.put("dir/object", "x")
	for _, key := range []string{"no", "no/where", "dir", "dir/object/below", "dir/" + strings.Repeat("n", 300)} {
		_, err := s.Get(s.ctx, key, 10)
		s.wantErr(err, storage.ErrNotExist)
		_, _, err = s.Open(s.ctx, key)
		s.wantErr(err, storage.ErrNotExist)
		_, err = s.Stat(s.ctx, key)
		s.wantErr(err, storage.ErrNotExist)
		s.wantErr(s.Delete(s.ctx, key), storage.ErrNotExist)
	}
	_, err := s.AppendStream(s.ctx, "none", storage.Mark{Offset: 5}, strings.NewReader("x"))
	s.wantErr(err, storage.ErrNotExist)
	s.wantErr(s.CommitStream(s.ctx, "none", storage.Mark{}, "x"), storage.ErrNotExist)
	if err := s.DiscardStream(s.ctx, "none"); err != nil {
		s.Fatal(err)
	}
	s.read("dir/object")
}

func (s *suite) testList() {
	names := []string{"-", "0", "A", "Z", "_", "a", "a.b", "aa", "z"}
	for i := range names {
		s.put("d/"+names[len(names)-1-i], "")
	}
	s.put("d/dir/below", "")
	s.put("dd/other", "")
	names = append(names, "dir")
	slices.Sort(names)
	for after := range len(names) + 1 {
		for n := range len(names) + 2 {
			from := ""
			if after > 0 {
				from = names[after-1]
			}
			got, err := s.List(s.ctx, "d", from, n)
			want := names[after:min(after+n, len(names))]
			if err != nil || !slices.Equal(got, want) {
				s.Fatalf("List(d, %q, %d) = %q, %v; want %q", from, n, got, err, want)
			}
		}
	}
	if got, err := s.List(s.ctx, "d", "ab", 1); err != nil || !slices.Equal(got, []string{"dir"}) {
		s.Fatal(got, err)
	}
	for _, dir := range []string{"none", "d/none", "d/a"} {
		if got, err := s.List(s.ctx, dir, "", 10); err != nil || len(got) > 0 {
			s.Fatal(dir, got, err)
		}
	}
	if err := s.Delete(s.ctx, "d/dir/below"); err != nil {
		s.Fatal(err)
	}
	if got, err := s.List(s.ctx, "d", "a.b", 2); err != nil || !slices.Equal(got, []string{"aa", "z"}) {
		s.Fatalf("after Delete: %q, %v", got, err)
	}
}

// A reader sees one version whole, however often the object is replaced.
func (s *suite) testPutReplaces() {
	version := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 100_000+i%26) }
	s.put("key", version(0))
	var writers sync.WaitGroup
	done := make(chan struct{})
	for w := range 2 {
		writers.Go(func() {
			for i := range 50 {
				if err := s.Put(s.ctx, "key", []byte(version(w*7+i))); err != nil {
					s.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(done) }()
	defer writers.Wait()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		r, size, err := s.Open(s.ctx, "key")
		if err != nil {
			s.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || int64(len(got)) != size || string(got) != version(len(got)-100_000) {
			s.Fatalf("%d of %d bytes, %v: not one version", len(got), size, err)
		}
	}
}

func (s *suite) append(id string, from storage.Mark, data string) storage.Mark {
	s.Helper()
	to, err := s.AppendStream(s.ctx, id, from, strings.NewReader(data))
	if err != nil || to.Offset != from.Offset+int64(len(data)) {
		s.Fatalf("AppendStream of %d bytes from %v to %v, %v", len(data), from, to, err)
	}
	return to
}

func (s *suite) commit(id string, at storage.Mark, key string) {
	s.Helper()
	if err := s.CommitStream(s.ctx, id, at, key); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) testStream() {
	parts := []string{random(1), random(5 << 20), "", random(100), random(7 << 20)}
	var all string
	var at storage.Mark
	for _, part := range parts {
		at = s.append("id", at, part)
		all += part
	}
	other := s.append("other", storage.Mark{}, "not this")
	if _, err := s.Stat(s.ctx, "blob/data"); err == nil {
		s.Fatal("there before its commit")
	}
	s.commit("id", at, "blob/data")
	s.want(s.read("blob/data"), all)
	s.wantErr(s.CommitStream(s.ctx, "id", storage.Mark{}, "again"), storage.ErrNotExist)
	_, err := s.AppendStream(s.ctx, "id", storage.Mark{Offset: 1}, strings.NewReader("x"))
	s.wantErr(err, storage.ErrNotExist)

	s.commit("empty", s.append("empty", storage.Mark{}, ""), "blob/empty")
	s.want(s.read("blob/empty"), "")

	if err := s.DiscardStream(s.ctx, "other"); err != nil {
		s.Fatal(err)
	}
	s.wantErr(s.CommitStream(s.ctx, "other", other, "x"), storage.ErrNotExist)
}

func (s *suite) testStreamRewind() {
	four := s.append("id", storage.Mark{}, "0123")
	s.append("id", four, "456789")
	seven := s.append("id", four, "abc") // as if the answer before had been lost
	s.commit("id", seven, "a")
	s.want(s.read("a"), "0123abc")

	s.append("id", storage.Mark{}, "first")
	three := s.append("id", storage.Mark{}, "sec")
	s.append("id", three, "ond")
	s.commit("id", three, "b") // no more than asked for
	s.want(s.read("b"), "sec")

	beyond := s.append("id", s.append("id", storage.Mark{}, "0123"), "4")
	four = s.append("id", storage.Mark{}, "0123")
	_, err := s.AppendStream(s.ctx, "id", beyond, strings.NewReader("x"))
	s.wantErr(err, storage.ErrOffset)
	s.wantErr(s.CommitStream(s.ctx, "id", beyond, "c"), storage.ErrOffset)
	s.commit("id", four, "c")
	s.want(s.read("c"), "0123")
}

// What a broken connection brought is kept.
func (s *suite) testStreamFailing() {
	broken := errors.New("broken")
	first := random(1 << 20)
	at, err := s.AppendStream(s.ctx, "id", storage.Mark{}, io.MultiReader(strings.NewReader(first), iotest.ErrReader(broken)))
	s.wantErr(err, broken)
	if at.Offset != int64(len(first)) {
		s.Fatalf("%d of %d bytes kept", at.Offset, len(first))
	}
	s.commit("id", s.append("id", at, "rest"), "a")
	s.want(s.read("a"), first+"rest")
}

func (s *suite) testStreamCommit() {
	one := s.append("one", storage.Mark{}, "same")
	two := s.append("two", storage.Mark{}, "same")
	s.commit("one", one, "deep/in/there")
	r, _, err := s.Open(s.ctx, "deep/in/there")
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	s.commit("two", two, "deep/in/there")
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "same" {
		s.Fatal(string(got), err)
	}
	s.want(s.read("deep/in/there"), "same")
}

func (s *suite) testMove() {
	large := random(6 << 20)
	for _, value := range []string{"x", large} {
		s.put("dir/from", value)
		s.put("to/there", "old")
		if err := s.Move(s.ctx, "dir/from", "to/there"); err != nil {
			s.Fatal(err)
		}
		s.want(s.read("to/there"), value)
		_, err := s.Stat(s.ctx, "dir/from")
		s.wantErr(err, storage.ErrNotExist)
	}
	s.wantErr(s.Move(s.ctx, "dir/from", "to/there"), storage.ErrNotExist)
	s.want(s.read("to/there"), large)
}

// A directory that one request empties is where another puts something.
func (s *suite) testPutAndDelete() {
	want := 4
	if s.service.EmptiesDirectories {
		s.put("deep/dir/stays", "x")
		want++
	}
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			key := fmt.Sprintf("deep/dir/key%d", w)
			for range 50 {
				if err := s.Put(s.ctx, key, []byte("x")); err != nil {
					s.Error(err)
					return
				}
				if err := s.Delete(s.ctx, key); err != nil {
					s.Error(err)
					return
				}
			}
			if err := s.Put(s.ctx, key, []byte("x")); err != nil {
				s.Error(err)
			}
		})
	}
	group.Wait()
	if got, err := s.List(s.ctx, "deep/dir", "", 10); err != nil || len(got) != want {
		s.Fatal(got, err)
	}
}

func (s *suite) testBadKeys() {
	for _, key := range []string{"", ".", "..", "../x", "a/../b", "/a", "a//b", "a/"} {
		if err := s.Put(s.ctx, key, []byte("x")); err == nil {
			s.Errorf("Put took the key %q", key)
		}
		if _, err := s.Get(s.ctx, key, 10); err == nil {
			s.Errorf("Get took the key %q", key)
		}
		if _, err := s.AppendStream(s.ctx, key, storage.Mark{}, strings.NewReader("x")); err == nil {
			s.Errorf("AppendStream took the id %q", key)
		}
	}
}

func (s *suite) testPutAll() {
	s.put("b", "old")
	if err := s.PutAll(s.ctx, []storage.Object{{Key: "a/x", Data: []byte("1")}, {Key: "b", Data: []byte("2")}, {Key: "a/y", Data: nil}}); err != nil {
		s.Fatal(err)
	}
	for key, want := range map[string]string{"a/x": "1", "b": "2", "a/y": ""} {
		s.want(s.read(key), want)
	}
	if err := s.PutAll(s.ctx, nil); err != nil {
		s.Fatal(err)
	}
	if err := s.PutScratch(s.ctx, "a/x", []byte("3")); err != nil {
		s.Fatal(err)
	}
	s.want(s.read("a/x"), "3")
	s.wantErr(s.PutNew(s.ctx, "a/x", []byte("4")), storage.ErrExist)
	s.want(s.read("a/x"), "3")
	var made atomic.Int32
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			switch err := s.PutNew(s.ctx, "new/one", []byte(fmt.Sprint(w))); {
			case err == nil:
				made.Add(1)
			case !errors.Is(err, storage.ErrExist):
				s.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		s.Errorf("%d made the same", made.Load())
	}
}

// Tidy takes no object, and no stream that somebody may go on with.
func (s *suite) testTidy() {
	s.put("dir/object", "content")
	at := s.append("id", storage.Mark{}, "stream")
	if err := s.Tidy(s.ctx, time.Now().Add(-time.Hour)); err != nil {
		s.Fatal(err)
	}
	s.commit("id", at, "dir/stream")
	if err := s.Tidy(s.ctx, time.Now().Add(time.Hour)); err != nil {
		s.Fatal(err)
	}
	if s.read("dir/object") != "content" || s.read("dir/stream") != "stream" {
		s.Error("an object has changed")
	}
}
