package engine

import (
	"strings"
	"testing"
)

func TestSyncList(t *testing.T) {
	items, err := ReadSyncList(strings.NewReader("# what we need\ndebian:12*\n\n  docker://h.example:5000/a/b  # all tags\nh.example:5000/a/b:v[0-9]?\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range items {
		got = append(got, i.String())
		if again, err := ParseSyncItem(i.String()); err != nil || again != i {
			t.Errorf("%s: %v, %v", i, again, err)
		}
	}
	if s := strings.Join(got, " "); s != "docker.io/library/debian:12* h.example:5000/a/b h.example:5000/a/b:v[0-9]?" {
		t.Error(s)
	}
	for text, want := range map[string]string{
		"a\nUPPER": "line 2", "a:": "line 1", "a:[": "line 1", "a@sha256:" + strings.Repeat("a", 64): "line 1", "oci:x/y:z": "line 1",
	} {
		if _, err := ReadSyncList(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseSyncItem(f *testing.F) {
	f.Add("debian:12*")
	f.Add("docker://h:5000/a/b:[a-z]")
	f.Fuzz(func(t *testing.T, s string) {
		item, err := ParseSyncItem(s)
		if err != nil {
			return
		}
		if again, err := ParseSyncItem(item.String()); err != nil || again != item {
			t.Errorf("%q: %v, then %v, %v", s, item, again, err)
		}
	})
}
