package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/transfer/transfertest"
	"github.com/tare-oci/tare/internal/testenv"
)

// forms are all that images are kept in, by how a new place is called.
func forms(t *testing.T, e *Engine) map[string]func(t *testing.T) string {
	t.Helper()
	registry := testenv.Registry(t)
	var n atomic.Int32
	return map[string]func(t *testing.T) string{
		"store":  func(*testing.T) string { return fmt.Sprint("sample:", n.Add(1)) },
		"layout": func(t *testing.T) string { return "oci:" + filepath.Join(testenv.MemoryDir(t), "layout") + ":v1" },
		"oci-archive": func(t *testing.T) string {
			return "oci-archive:" + filepath.Join(testenv.MemoryDir(t), "a.tar") + ":v1"
		},
		"docker-archive": func(t *testing.T) string {
			return "docker-archive:" + filepath.Join(testenv.MemoryDir(t), "a.tar") + ":localhost/a:v1"
		},
		"dir":      func(t *testing.T) string { return "dir:" + filepath.Join(testenv.MemoryDir(t), "dir") },
		"registry": func(*testing.T) string { return fmt.Sprintf("docker://%s/sample%d:v1", registry, n.Add(1)) },
	}
}

// TestForms: each form that images are kept in keeps the contract of sources and destinations, and a copy from each to each other
// has the same layers.
func TestForms(t *testing.T) {
	e := openEngine(t, testenv.MemoryDir(t))
	all := forms(t, e)
	client := remote.New(remote.Options{RetryWait: time.Millisecond, MaxAttempts: 2})
	t.Cleanup(client.Close)
	for name, place := range all {
		t.Run(name, func(t *testing.T) {
			transfertest.Run(t, transfertest.Form{
				Source: func(ctx context.Context, place string) (transfer.Source, error) {
					return e.OpenSource(ctx, place, client)
				},
				Destination: func(ctx context.Context, place string) (transfer.Destination, error) {
					return e.OpenDestination(ctx, place, client)
				},
				Place:  place,
				Images: name == "docker-archive",
				Once:   name == "docker-archive",
				Anew:   name == "oci-archive",
			})
		})
	}
	sample := transfertest.NewSample("one", "two")
	want, err := e.Copy(t.Context(), samplePlace(t, e, sample), "want", CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for from, placeFrom := range all {
		at := placeFrom(t)
		if _, err := e.Copy(t.Context(), "want", at, CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		for to, placeTo := range all {
			t.Run(from+" to "+to, func(t *testing.T) {
				place := placeTo(t)
				if _, err := e.Copy(t.Context(), at, place, CopyOptions{}); err != nil {
					t.Fatal(err)
				}
				got := contentsOf(t, e, place)
				keeps := from != "docker-archive" && to != "docker-archive"
				if keeps && got.Image.Descriptor.Digest != want.Root.Digest {
					t.Errorf("it is %s, not %s", got.Image.Descriptor.Digest, want.Root.Digest)
				}
				changes, err := CompareImages(t.Context(), contentsOf(t, e, "want"), got)
				if err != nil || len(changes) > 0 {
					t.Errorf("%v, %v", changes, err)
				}
			})
		}
	}
}

// samplePlace puts a sample into a layout.
func samplePlace(t *testing.T, e *Engine, s *transfertest.Sample) string {
	t.Helper()
	place := "oci:" + filepath.Join(testenv.MemoryDir(t), "sample") + ":v1"
	dst, err := e.OpenDestination(t.Context(), place, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err = transfer.Copy(t.Context(), dst, s, transfer.Options{}); err == nil {
		err = dst.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return place
}
