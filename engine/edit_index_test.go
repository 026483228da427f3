package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestRebaseAsCrane rebases an image, and has crane do the same.
func TestRebaseAsCrane(t *testing.T) {
	e, addr, dir := newEngine(t), testenv.Registry(t), t.TempDir()
	client := remote.New(remote.Options{})
	defer client.Close()
	env := func(v string) func(*v1.Image) { return func(c *v1.Image) { c.Config.Env = []string{v} } }
	makeImage(t, dir, "old", "", env("BASE=old"), []file{{name: "base", content: "old"}})
	makeImage(t, dir, "new", "", env("BASE=new"), []file{{name: "base", content: "new"}}, []file{{name: "base2", content: "new"}})
	makeImage(t, dir, "app", dir+":old", env("APP=1"), []file{{name: "app", content: "1"}}, []file{{name: "app", content: "2"}})
	for _, tag := range []string{"old", "new", "app"} {
		if _, err := e.Copy(t.Context(), "oci:"+dir+":"+tag, "docker://"+addr+"/app:"+tag, CopyOptions{To: client}); err != nil {
			t.Fatal(err)
		}
	}
	m := Mutation{Rebase: true, OldBase: "docker://" + addr + "/app:old", NewBase: "docker://" + addr + "/app:new", Created: editTime}
	rebase := func(tag string, m Mutation) error {
		_, err := e.EditImage(t.Context(), "docker://"+addr+"/app:app", EditOptions{Tag: tag, Registry: client},
			func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
				return d.Mutate(ctx, img, m)
			})
		return err
	}
	if err := rebase("ours", m); err != nil {
		t.Fatal(err)
	}
	name := addr + "/app:"
	testenv.Run(t, testenv.GoTool(t, crane), "rebase", "--insecure", "--old_base", name+"old", "--new_base", name+"new", "-t", name+"cranes", name+"app")
	ours, theirs := contentsOf(t, e, "docker://"+name+"ours").Image, contentsOf(t, e, "docker://"+name+"cranes").Image
	if !slices.Equal(ours.Config.RootFS.DiffIDs, theirs.Config.RootFS.DiffIDs) || len(ours.Config.RootFS.DiffIDs) != 4 {
		t.Errorf("layers %v, crane's %v", ours.Config.RootFS.DiffIDs, theirs.Config.RootFS.DiffIDs)
	}
	a, _ := json.Marshal(ours.Config.Config)
	b, _ := json.Marshal(theirs.Config.Config)
	if string(a) != string(b) || len(ours.Config.History) != len(theirs.Config.History) {
		t.Errorf("config %s with %d entries in the history, crane's %s with %d", a, len(ours.Config.History), b, len(theirs.Config.History))
	}
	for _, key := range []string{v1.AnnotationBaseImageDigest, v1.AnnotationBaseImageName} {
		if ours.Manifest.Annotations[key] != theirs.Manifest.Annotations[key] {
			t.Errorf("%s is %q, crane's %q", key, ours.Manifest.Annotations[key], theirs.Manifest.Annotations[key])
		}
	}
	m.OldBase, m.NewBase = m.NewBase, m.OldBase
	if err := rebase("wrong", m); err == nil || !strings.Contains(err.Error(), "is not the base of image") {
		t.Errorf("rebase from what is not the base: %v", err)
	}
}

// TestIndexes makes indexes on a registry and in a layout.
func TestIndexes(t *testing.T) {
	e, addr, dir := newEngine(t), testenv.Registry(t), t.TempDir()
	client := remote.New(remote.Options{})
	defer client.Close()
	o := EditOptions{Registry: client}
	platform := func(arch string) func(*v1.Image) {
		return func(c *v1.Image) { c.Platform = v1.Platform{OS: "linux", Architecture: arch} }
	}
	makeImage(t, dir, "amd64", "", platform("amd64"), []file{{name: "a", content: "a"}})
	makeImage(t, dir, "arm64", "", platform("arm64"), []file{{name: "a", content: "b"}})
	places := []string{"docker://" + addr + "/i:v1", "oci:" + dir + ":v1"}
	for _, place := range places {
		create := IndexChange{Create: true, Add: []string{"oci:" + dir + ":amd64"}, Annotations: map[string]string{"a": "b"}}
		if _, err := e.EditIndex(t.Context(), place, create, o); err != nil {
			t.Fatal(err)
		}
		add := IndexChange{Add: []string{"oci:" + dir + ":arm64"}}
		r, err := e.EditIndex(t.Context(), place, add, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.EditIndex(t.Context(), place, add, o); !errors.Is(err, mutate.ErrThere) {
			t.Errorf("%s: adding the same again: %v", place, err)
		}
		raw := testenv.Run(t, "skopeo", "inspect", "--raw", "--tls-verify=false", place)
		x, err := e.InspectIndex(t.Context(), place, client)
		if err != nil || string(x.Raw) != raw || x.Descriptor.Digest != r.Root.Digest {
			t.Errorf("%s: %s, skopeo reads %s, %v", place, x.Raw, raw, err)
		}
		want := `"platform":{"architecture":"amd64","os":"linux"}`
		if !strings.Contains(raw, want) || len(x.Index.Manifests) != 2 {
			t.Errorf("%s: %s has no %s", place, raw, want)
		}
		arm := &v1.Platform{OS: "linux", Architecture: "arm64"}
		remove := IndexChange{Remove: []IndexEntry{{Platform: arm}}}
		if _, err := e.EditIndex(t.Context(), place, remove, o); err != nil {
			t.Error(err)
		}
		if _, err := e.EditIndex(t.Context(), place, remove, o); !errors.Is(err, mutate.ErrNotThere) {
			t.Errorf("%s: removing it again: %v", place, err)
		}
	}
	validSchemas(t, dir)
}

// TestEditFailsInTheMiddle: whatever fails, the name stands for what it did.
func TestEditFailsInTheMiddle(t *testing.T) {
	e, addr, dir := newEngine(t), testenv.Registry(t), t.TempDir()
	client := remote.New(remote.Options{})
	defer client.Close()
	r := &editRegistry{PushRegistry: client}
	was := makeImage(t, dir, "app", "", nil, []file{{name: "a", content: "a"}}, []file{{name: "b", content: "b"}})
	place := "docker://" + addr + "/app:v1"
	if _, err := e.Copy(t.Context(), "oci:"+dir+":app", place, CopyOptions{To: r}); err != nil {
		t.Fatal(err)
	}
	r.refuse = errors.New("no manifests today")
	if _, err := e.EditImage(t.Context(), place, EditOptions{Registry: r}, editConfig(t)); !errors.Is(err, r.refuse) {
		t.Errorf("error %v", err)
	}
	ref, err := distribution.ParseReference(addr + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if desc, _, err := client.Resolve(t.Context(), ref); err != nil || desc.Digest != was.Digest {
		t.Errorf("the tag is %s, %v, and was %s", desc.Digest, err, was.Digest)
	}

	// A layer that is damaged is found, and nothing is written.
	img := contentsOf(t, e, "oci:"+dir+":app").Image
	blob := filepath.Join(dir, "blobs/sha256", img.Manifest.Layers[1].Digest.Encoded())
	data, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	data[600] ^= 1 // of the content
	if err := os.Chmod(blob, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob, data, 0o644); err != nil {
		t.Fatal(err)
	}
	index, _ := os.ReadFile(filepath.Join(dir, "index.json"))
	blobs, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	_, err = e.EditImage(t.Context(), "oci:"+dir+":app", EditOptions{}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
		return d.Mutate(ctx, img, Mutation{Squash: true, SquashFrom: 1, Created: editTime})
	})
	if err == nil || !strings.Contains(err.Error(), "layer 2") || !strings.Contains(err.Error(), "diffID") {
		t.Errorf("a damaged layer: %v", err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, "index.json"))
	left, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if string(after) != string(index) || len(left) != len(blobs) {
		t.Errorf("%d blobs, there were %d; the index is\n%s, it was\n%s", len(left), len(blobs), after, index)
	}
}
