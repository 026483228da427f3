package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// foreignIndex has what we don't know, or don't write ourselves: other fields,
// other media types, entries without a name and one that can't be used.
const foreignIndex = `{
  "schemaVersion": 2, "x-top": {"keep": [1, 2.50]},
  "manifests": [
    {"mediaType":"application/xml","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"x-entry":"keep"},
    {"mediaType":"text/plain","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"org.opencontainers.image.ref.name":"old"}},
    {"mediaType":"text/plain","digest":"blake3:00","size":0,"annotations":{"org.opencontainers.image.ref.name":"odd"}},
    {"mediaType":"text/plain","digest":7}
  ],
  "annotations": {"com.example.index.revision": "r124356"}
}`

func TestChangeKeepsWhatItDoesNotKnow(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for name, text := range map[string]string{headerFile: `{"imageLayoutVersion":"1.0.0","x":1}`, indexFile: foreignIndex} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	desc, err := p.Put(ctx, "text/plain", []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "new"} {
		if err := p.Tag(ctx, name, desc); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Untag(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	var before, after map[string]any
	got, _ := os.ReadFile(filepath.Join(dir, indexFile))
	if json.Unmarshal([]byte(foreignIndex), &before) != nil || json.Unmarshal(got, &after) != nil {
		t.Fatalf("%s", got)
	}
	tagged := after["manifests"].([]any)[1].(map[string]any)
	if tagged["digest"] != string(desc.Digest) {
		t.Errorf("the new entry is not in the place of the old one:\n%s", got)
	}
	before["manifests"].([]any)[1] = tagged
	if !reflect.DeepEqual(before, after) {
		t.Errorf("changed more than the entry:\n%s", got)
	}
	if _, err := s.Resolve(ctx, "odd"); err == nil || !strings.Contains(err.Error(), "manifests[2].digest") {
		t.Errorf("resolve of an entry that can't be used: %v", err)
	}
	p.Close()
	if _, err := s.GC(ctx, GCOptions{}); err == nil {
		t.Error("GC went on though it can't know what an entry leads to")
	}
}

func FuzzIndexFile(f *testing.F) {
	f.Add([]byte(foreignIndex))
	f.Add([]byte(`{"manifests":null}`))
	d := digest.FromString("x")
	set := entry{
		raw:  json.RawMessage(`{"mediaType":"a/b","digest":"` + string(d) + `","size":1,"annotations":{"org.opencontainers.image.ref.name":"n"}}`),
		desc: v1.Descriptor{MediaType: "a/b", Digest: d, Size: 1, Annotations: map[string]string{v1.AnnotationRefName: "n"}},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			return
		}
		if err := x.keepRaw(); err != nil {
			t.Fatal(err)
		}
		x.set("n", set)
		written, err := x.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseIndex(written)
		if err != nil {
			t.Fatalf("%s\nwritten as\n%s: %v", data, written, err)
		}
		if err := again.keepRaw(); err != nil {
			t.Fatal(err)
		}
		if again.set("n", set) {
			t.Fatal("setting a name twice changed something")
		}
		if twice, _ := again.marshal(); !bytes.Equal(written, twice) {
			t.Fatalf("not stable:\n%s\n%s", written, twice)
		}
		var named int
		for i := range again.entries {
			if again.entries[i].name() == "n" && again.entries[i].err == nil {
				named++
			}
		}
		if named != 1 {
			t.Fatalf("%d entries of one name: %s", named, written)
		}
	})
}
