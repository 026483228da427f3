package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
)

// others copy an image that we have written from one place to another, where we read it again. Podman, Buildah and umoci take it apart
// on the way and pack it anew; the others keep all of it that the forms have room for.
var others = map[string]func(t *testing.T, x interop, from, to string){
	"skopeo": func(t *testing.T, _ interop, from, to string) {
		testenv.Run(t, "skopeo", "copy", "--quiet", from, to)
	},
	"podman": func(t *testing.T, x interop, from, to string) {
		podman := func(args ...string) string { return x.containers(t, "podman", args...) }
		podman("push", "--quiet", podman("pull", "--quiet", from), to)
	},
	"buildah": func(t *testing.T, x interop, from, to string) {
		buildah := func(args ...string) string { return x.containers(t, "buildah", args...) }
		if id := buildah("pull", "--quiet", from); to != "" {
			buildah("push", "--quiet", id, to)
		}
	},
	"crane": func(t *testing.T, x interop, from, to string) { // which knows layouts of one image, and archives of docker's
		kind, path := cutPlace(from)
		_, written := cutPlace(to)
		form := "--format=oci"
		if kind == "docker-archive" {
			form = "--format=tarball"
		}
		name := x.registry + "/" + filepath.Base(x.dir) + ":v1"
		testenv.Run(t, x.crane, "push", "--insecure", path, name)
		testenv.Run(t, x.crane, "pull", "--insecure", form, name, written)
	},
	"umoci": func(t *testing.T, x interop, from, to string) { // which changes layouts in place
		_, path := cutPlace(from)
		_, written := cutPlace(to)
		bundle := filepath.Join(x.dir, "bundle")
		testenv.Run(t, "umoci", "unpack", "--image", path+":v1", bundle)
		testenv.Run(t, "umoci", "repack", "--image", path+":v1", bundle)
		testenv.Run(t, "umoci", "config", "--image", path+":v1", "--author", "umoci")
		if err := os.Rename(path, written); err != nil {
			t.Fatal(err)
		}
	},
}

// cutPlace takes a place apart into its form and its path.
func cutPlace(place string) (form, path string) {
	form, rest, _ := strings.Cut(place, ":")
	path, _, _ = strings.Cut(rest, ":")
	return form, path
}

// interop is what the tools work with.
type interop struct {
	dir             string // of one exchange
	storage         string // of Podman and Buildah
	crane, registry string
}

func (x interop) containers(t *testing.T, tool string, args ...string) string {
	t.Helper()
	all := slices.Concat([]string{"--root", x.storage + "/root", "--runroot", x.storage + "/run", "--storage-driver", "overlay"}, args)
	return strings.TrimSpace(testenv.Run(t, tool, all...))
}

// TestOthersBothWays: every tool reads every test image as we write it, and we read what it writes of it: with each form that both
// know, for the small images; the large ones take one form each. What umoci makes of those is image/layer's to compare.
func TestOthersBothWays(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	x := interop{storage: testenv.MemoryDir(t), crane: testenv.GoTool(t, crane), registry: testenv.Registry(t)}
	e := openEngine(t, testenv.MemoryDir(t))
	const layouts, archives, docker, dirs = "oci", "oci-archive", "docker-archive", "dir"
	for _, c := range []struct {
		tool, image string
		ours, their []string // forms
	}{
		{"skopeo", "small", []string{layouts, archives, docker, dirs}, []string{layouts, archives, docker, dirs}},
		{"podman", "small", []string{layouts, archives, docker, dirs}, []string{layouts, archives, docker, dirs}},
		{"buildah", "small", []string{layouts, archives, docker, dirs}, []string{docker, layouts, dirs, archives}},
		{"crane", "small", []string{layouts, docker}, []string{layouts, docker}},
		{"umoci", "small", []string{layouts}, []string{layouts}},
		{"skopeo", "multiarch", []string{layouts, docker}, []string{archives, dirs}},
		{"podman", "multiarch", []string{dirs}, []string{docker}},
		{"buildah", "multiarch", []string{archives}, []string{layouts}},
		{"crane", "multiarch", []string{layouts}, []string{layouts}},
		{"umoci", "multiarch", []string{layouts}, []string{layouts}},
		{"skopeo", "manyfiles", []string{archives}, []string{dirs}},
		{"podman", "manyfiles", []string{archives}, []string{docker}},
		{"buildah", "manyfiles", []string{dirs}, []string{docker}},
		{"crane", "manyfiles", []string{layouts}, []string{layouts}},
		{"skopeo", "medium", []string{layouts}, []string{layouts}},
		{"podman", "medium", []string{layouts}, []string{docker}},
		{"buildah", "medium", []string{archives}, []string{docker}},
		{"crane", "medium", []string{layouts}, []string{layouts}},
		{"skopeo", "zstd", []string{dirs}, []string{archives}},
		{"podman", "zstd", []string{dirs}, []string{dirs}},
		{"buildah", "zstd", []string{archives}, []string{""}}, // it would write what Podman writes, by the same library
		{"crane", "zstd", []string{layouts}, []string{layouts}},
	} {
		for i, form := range c.ours {
			t.Run(c.tool+" "+c.image+" "+form+" "+c.their[i], func(t *testing.T) {
				x := x
				x.dir = filepath.Join(testenv.MemoryDir(t), "exchange")
				if err := os.Mkdir(x.dir, 0o755); err != nil {
					t.Fatal(err)
				}
				exchange(t, e, x, c.tool, filepath.Join(testenv.Images(t), c.image), form, c.their[i])
			})
		}
	}
}

// place is where an image goes, in a form.
func (x interop) place(name, form string) string {
	switch form {
	case "docker-archive":
		return form + ":" + x.dir + "/" + name + ".tar:localhost/" + name + ":v1"
	case "oci-archive":
		return form + ":" + x.dir + "/" + name + ".tar:v1"
	case "oci":
		return form + ":" + x.dir + "/" + name + ":v1"
	case "":
		return ""
	}
	return form + ":" + x.dir + "/" + name
}

func exchange(t *testing.T, e *Engine, x interop, tool, original, ourForm, theirForm string) {
	ctx := t.Context()
	want := contentsOf(t, e, "oci:"+original+":latest").Image
	from, to := x.place("ours", ourForm), x.place("theirs", theirForm)
	if _, err := e.Copy(ctx, "oci:"+original+":latest", from, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	others[tool](t, x, from, to)
	if to == "" {
		return
	}
	if tool == "crane" { // which gives images in layouts no names, and others than we ask for in archives
		_, path := cutPlace(to)
		to = theirForm + ":" + path
	}
	if _, err := e.Copy(ctx, to, "back", CopyOptions{Options: transfer.Options{}}); err != nil { // every blob is verified
		t.Fatal(err)
	}
	got, err := e.Resolve(ctx, "back", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Config.RootFS.DiffIDs, want.Config.RootFS.DiffIDs) {
		t.Errorf("layers %v, want %v", got.Config.RootFS.DiffIDs, want.Config.RootFS.DiffIDs)
	}
	if got.Manifest.Config.Digest != want.Manifest.Config.Digest && tool != "umoci" {
		t.Errorf("config %s, want %s", got.Manifest.Config.Digest, want.Manifest.Config.Digest)
	}
	keeps := ourForm != "docker-archive" && theirForm != "docker-archive" && (tool == "skopeo" || tool == "crane")
	if keeps && got.Descriptor.Digest != want.Descriptor.Digest {
		t.Errorf("manifest %s, want %s", got.Descriptor.Digest, want.Descriptor.Digest)
	}
	checkLayers(ctx, t, e, got.Image, want)
	if _, err := e.Remove(ctx, "back"); err != nil {
		t.Fatal(err)
	}
}

// checkLayers reads the layers whose blobs are others.
func checkLayers(ctx context.Context, t *testing.T, e *Engine, got, want *image.Image) {
	t.Helper()
	known := map[digest.Digest]bool{}
	for _, l := range want.Manifest.Layers {
		known[l.Digest] = true
	}
	for i, l := range got.Manifest.Layers {
		if known[l.Digest] {
			continue
		}
		if err := scanLayer(ctx, e, l, got.Config.RootFS.DiffIDs[i]); err != nil {
			t.Error(err)
		}
	}
}

func scanLayer(ctx context.Context, e *Engine, desc v1.Descriptor, diffID digest.Digest) error {
	blob, err := e.images.Open(ctx, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = layer.Scan(ctx, blob, layer.Options{Name: string(desc.Digest), MediaType: desc.MediaType, DiffID: diffID}, checkEntry)
	return err
}
