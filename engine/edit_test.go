package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/testenv"
)

// crane reads and changes images on registries.
const crane = "github.com/google/go-containerregistry/cmd/crane@v0.22.1"

var editTime = time.Date(2025, 7, 1, 2, 3, 4, 0, time.UTC)

// editConfig sets some of every shape of field.
func editConfig(t testing.TB) func(context.Context, *Edit, *image.Image) (v1.Descriptor, error) {
	t.Helper()
	var edits []mutate.Edit
	for _, e := range [][]string{{"user", "7:8"}, {"env", "A=1", "PATH=/bin"}, {"port", "53/udp"}, {"cmd", "a b", "c"}, {"label", "x=y"},
		{"stop-signal", "SIGINT"}, {"workdir", "/srv"}, {"volume", "/v"}, {"author", "me"}, {"entrypoint", "/e"}} {
		f, err := mutate.FindField(e[0])
		if err != nil {
			t.Fatal(err)
		}
		edit, err := f.Put(e[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, edit)
	}
	return func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
		return mutate.Apply(ctx, d, &img.Descriptor, mutate.Change{
			Created: &editTime, History: []v1.History{{CreatedBy: "test"}}, Annotations: map[string]string{"org.example.a": "b"},
			Config: func(c *v1.Image) {
				for _, e := range edits {
					e(c)
				}
			},
		})
	}
}

// editRegistry is a registry that counts the blobs that are read from it, and can
// refuse manifests.
type editRegistry struct {
	PushRegistry
	reads  atomic.Int32
	layers atomic.Int32
	refuse error
}

func (c *editRegistry) Blob(ctx context.Context, repo distribution.Repository, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	c.reads.Add(1)
	if image.KindOf(desc) == image.KindLayer {
		c.layers.Add(1)
	}
	return c.PushRegistry.Blob(ctx, repo, desc, offset)
}

func (c *editRegistry) PushManifest(ctx context.Context, ref distribution.Reference, mediaType string, body []byte) (v1.Descriptor, error) {
	if c.refuse != nil {
		return v1.Descriptor{}, c.refuse
	}
	return c.PushRegistry.PushManifest(ctx, ref, mediaType, body)
}

// TestEditConfigEverywhere makes the same change in a layout, in the store and
// on a registry, where no layer is moved, and has others read it.
func TestEditConfigEverywhere(t *testing.T) {
	e, addr, dir := newEngine(t), testenv.Registry(t), t.TempDir()
	client := remote.New(remote.Options{})
	defer client.Close()
	r := &editRegistry{PushRegistry: client}
	small := "oci:" + testLayout(t, "small") + ":latest"
	places := []string{"oci:" + dir + ":small", "small", "docker://" + addr + "/small:v1"}
	var digests []digest.Digest
	for _, place := range places {
		if _, err := e.Copy(t.Context(), small, place, CopyOptions{To: r}); err != nil {
			t.Fatal(err)
		}
		result, err := e.EditImage(t.Context(), place, EditOptions{Registry: r}, editConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, result.Root.Digest)
		if result.Blobs != 1 {
			t.Errorf("%s: %d blobs were moved, want the configuration", place, result.Blobs)
		}
	}
	if digests[1] != digests[0] || digests[2] != digests[0] {
		t.Errorf("digests differ: %v", digests)
	}
	// Another repository of the registry gets the layers without their passing through here.
	result, err := e.EditImage(t.Context(), places[2], EditOptions{Registry: r, Tag: addr + "/other/repo:v2"}, editConfig(t))
	if err != nil || result.Blobs != 1 {
		t.Errorf("to another repository: %d blobs were moved, %v", result.Blobs, err)
	}
	if n := r.layers.Load(); n != 0 {
		t.Errorf("%d layers were read from the registry", n)
	}
	checkOthersRead(t, places[0], "docker://"+addr+"/other/repo:v2")
	validSchemas(t, dir)
}

// checkOthersRead has skopeo, umoci, podman and crane read a changed image.
func checkOthersRead(t *testing.T, inLayout, onRegistry string) {
	t.Helper()
	const want = `{"User":"7:8","ExposedPorts":{"53/udp":{},"8080/tcp":{}},"Env":["PATH=/bin","A=1"],"Entrypoint":["/e"],"Cmd":["a b","c"],` +
		`"Volumes":{"/data":{},"/v":{}},"WorkingDir":"/srv","Labels":{"org.example.recipe":"make-images.sh","x":"y"},"StopSignal":"SIGINT"}`
	bare := strings.TrimPrefix(onRegistry, "docker://")
	tool := testenv.GoTool(t, crane)
	for by, text := range map[string]string{
		"skopeo, layout":   testenv.Run(t, "skopeo", "inspect", "--config", inLayout),
		"skopeo, registry": testenv.Run(t, "skopeo", "inspect", "--config", "--tls-verify=false", onRegistry),
		"crane":            testenv.Run(t, tool, "config", "--insecure", bare),
	} {
		var c v1.Image
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatalf("%s: %v", by, err)
		}
		got, _ := json.Marshal(c.Config)
		if string(got) != want || c.Author != "me" || c.Created == nil || !c.Created.Equal(editTime) {
			t.Errorf("%s: %s by %s at %v, want %s", by, got, c.Author, c.Created, want)
		}
	}
	testenv.Run(t, tool, "validate", "--insecure", "--remote", bare)
	stat := testenv.Run(t, "umoci", "stat", "--image", strings.TrimPrefix(inLayout, "oci:"))
	if !strings.Contains(stat, "test") {
		t.Errorf("umoci stat shows no new history:\n%s", stat)
	}
}

// validSchemas holds all documents of a layout to the Image Spec's JSON schemas.
func validSchemas(t testing.TB, dir string) {
	t.Helper()
	store, err := layout.Open(dir, layout.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	files := []string{filepath.Join(dir, "index.json")}
	names, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	todo := []v1.Descriptor{}
	for _, n := range names {
		todo = append(todo, n.Desc)
	}
	for ; len(todo) > 0; todo = todo[1:] {
		desc := todo[0]
		switch image.KindOf(desc) {
		case image.KindIndex, image.KindManifest:
		case image.KindConfig:
			files = append(files, filepath.Join(dir, "blobs/sha256", desc.Digest.Encoded()))
			continue
		default:
			continue
		}
		files = append(files, filepath.Join(dir, "blobs/sha256", desc.Digest.Encoded()))
		data, err := store.Fetch(t.Context(), desc)
		if err != nil {
			t.Fatal(err)
		}
		refs, err := image.References(desc, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range refs {
			todo = append(todo, r.Desc)
		}
	}
	testenv.Run(t, schemaTool(t), files...)
}

// schemaTool builds test/schema.
func schemaTool(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "schema")
	cmd := testenv.GoBuild(t, "test/schema", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, text)
	}
	return out
}

// contentsOf opens an image to look into.
func contentsOf(t testing.TB, e *Engine, name string) *Contents {
	t.Helper()
	c, err := e.OpenContents(t.Context(), name, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestMutateKeepsFiles: squashed, flattened, recompressed, an image has the same
// files; made again, it is the same to the byte.
func TestMutateKeepsFiles(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	makeImage(t, dir, "app", "", nil,
		[]file{{name: "etc/"}, {name: "etc/a", content: "1"}, {name: "etc/b", content: "2"}, {name: "gone/x", content: "3"}, {name: "was/f", content: "f"}},
		[]file{{name: "etc/a", content: "one"}, {name: "etc/.wh.b"}, {name: ".wh.gone"}, {name: "new", content: "n"}},
		[]file{{name: "was/.wh..wh..opq"}, {name: "was/g", content: "g"}, {name: "new", content: "n", uid: 5}})
	app := "oci:" + dir + ":app"
	for _, m := range []struct {
		name   string
		layers int
		Mutation
	}{
		{"flat", 1, Mutation{Squash: true, SquashFrom: 1}},
		{"squashed", 2, Mutation{Squash: true, SquashFrom: 2}},
		{"zstd", 3, Mutation{Recompress: true, PackGiven: true, Pack: layer.PackOptions{Compression: layer.Zstd}}},
		{"none", 3, Mutation{Recompress: true, PackGiven: true, Pack: layer.PackOptions{Compression: layer.Uncompressed}}},
	} {
		m.Created = editTime
		var digests []digest.Digest
		for range 2 {
			r, err := e.EditImage(t.Context(), app, EditOptions{Tag: m.name}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
				return d.Mutate(ctx, img, m.Mutation)
			})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, r.Root.Digest)
		}
		if digests[0] != digests[1] {
			t.Errorf("%s: the same change made %s and %s", m.name, digests[0], digests[1])
		}
		before, after := contentsOf(t, e, app), contentsOf(t, e, "oci:"+dir+":"+m.name)
		if n := len(after.Image.Manifest.Layers); n != m.layers {
			t.Errorf("%s: %d layers, want %d", m.name, n, m.layers)
		}
		changes, err := CompareImages(t.Context(), before, after)
		if err != nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", m.name, changes, err)
		}
		if m.layers == 3 && !slices.Equal(before.Image.Config.RootFS.DiffIDs, after.Image.Config.RootFS.DiffIDs) {
			t.Errorf("%s: DiffIDs are others", m.name)
		}
		bundle := filepath.Join(t.TempDir(), "bundle")
		if m.name != "zstd" { // which Debian's umoci cannot read
			testenv.Run(t, "umoci", "unpack", "--image", dir+":"+m.name, bundle)
			if data, err := os.ReadFile(filepath.Join(bundle, "rootfs/etc/a")); string(data) != "one" {
				t.Errorf("%s: etc/a is %q, %v", m.name, data, err)
			}
			for _, gone := range []string{"etc/b", "gone", "was/f"} {
				if _, err := os.Lstat(filepath.Join(bundle, "rootfs", gone)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %s is there: %v", m.name, gone, err)
				}
			}
		}
	}
	validSchemas(t, dir)
}
