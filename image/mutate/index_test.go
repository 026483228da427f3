package mutate_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
)

// nest puts an index of n entries for desc into another one, and so on.
func nest(t *testing.T, st memory, desc v1.Descriptor, depth, n int) v1.Descriptor {
	t.Helper()
	for range depth {
		x := mutate.NewIndex()
		x.Manifests = slices.Repeat([]v1.Descriptor{desc}, n)
		var err error
		if desc, err = mutate.PutIndex(context.Background(), st, x); err != nil {
			t.Fatal(err)
		}
	}
	return desc
}

// TestEachOfHostileIndexes: an index that leads to one image a thousand to the eighth times costs no more than eight documents, and
// one that is too deep is an error.
func TestEachOfHostileIndexes(t *testing.T) {
	st := memory{}
	base, _ := apply(t, st, nil, mutate.Change{})
	calls := 0
	change := func(img *image.Image) (v1.Descriptor, error) {
		calls++
		return mutate.Apply(context.Background(), st, &img.Descriptor, mutate.Change{Config: func(c *v1.Image) { c.Author = "me" }})
	}
	made, err := mutate.Each(context.Background(), st, nest(t, st, base, 8, 1000), change)
	if err != nil || calls != 1 {
		t.Fatalf("%d images changed: %v", calls, err)
	}
	for range 8 {
		x, err := mutate.LoadIndex(context.Background(), st, made)
		if err != nil || len(x.Manifests) != 1000 {
			t.Fatal(len(x.Manifests), err)
		}
		made = x.Manifests[999]
	}
	if img, err := image.Load(context.Background(), st, made); err != nil || img.Config.Author != "me" {
		t.Error(img, err)
	}
	if _, err := mutate.Each(context.Background(), st, nest(t, st, base, 9, 1), change); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Error(err)
	}
}

// TestSamePlatform: whether two platforms are one is asked without changing either.
func TestSamePlatform(t *testing.T) {
	a := v1.Platform{OS: "windows", Architecture: "amd64", OSFeatures: []string{"win32k", "erofs"}}
	b := v1.Platform{OS: "windows", Architecture: "amd64", OSFeatures: []string{"erofs", "win32k"}}
	if !mutate.SamePlatform(a, b) || a.OSFeatures[0] != "win32k" {
		t.Error(a, b)
	}
}
