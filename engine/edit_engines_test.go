package engine

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestEditForPodman: podman reads an image whose configuration was changed, and
// sees in one that was squashed the files of the original; it also runs here.
func TestEditForPodman(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	dir, err := os.MkdirTemp("", "tare-layout-") // podman makes an image's name of the path, in lower case
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e, from := newEngine(t), "oci:"+dir+":v1"
	makeImage(t, dir, "v1", testLayout(t, "small")+":latest", nil,
		// Every layer has its directories: podman makes up what is missing.
		[]file{{name: "app/", mode: 0o755}, {name: "app/a", content: "1"}, {name: "app/b", content: "2", uid: 7}},
		[]file{{name: "app/", mode: 0o755}, {name: "app/.wh.a"}, {name: "app/b", content: "two", mode: 0o4755},
			{name: "usr/", mode: 0o755}, {name: "usr/.wh..wh..opq"}, {name: "usr/new", content: "n"}})
	if _, err := e.EditImage(t.Context(), from, EditOptions{Tag: "config"}, editConfig(t)); err != nil {
		t.Fatal(err)
	}
	m := Mutation{Squash: true, SquashFrom: 1, Created: editTime, PackGiven: true, Pack: layer.PackOptions{Compression: layer.Zstd}}
	_, err = e.EditImage(t.Context(), from, EditOptions{Tag: "flat"}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
		return d.Mutate(ctx, img, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	testenv.Tmpfs(t, work, 256<<20)
	podman := func(args ...string) string {
		args = slices.Concat([]string{"--root", work + "/root", "--runroot", work + "/run", "--storage-driver", "overlay"}, args)
		return strings.TrimSpace(testenv.Run(t, "podman", args...))
	}
	trees := map[string]map[string]string{}
	for _, tag := range []string{"v1", "config", "flat"} {
		id := podman("pull", "-q", "oci:"+dir+":"+tag)
		if tag == "config" {
			got := podman("image", "inspect", "--format", "{{.User}} {{.Config.Cmd}} {{.Config.WorkingDir}} {{.Author}}", id)
			if got != "7:8 [a b c] /srv me" {
				t.Errorf("podman sees %q", got)
			}
		}
		trees[tag] = testenv.Tree(t, podman("image", "mount", id))
		delete(trees[tag], ".") // which is of podman's own making
	}
	defer podman("image", "umount", "-a")
	testenv.SameTree(t, trees["config"], trees["v1"], "config", "v1")
	testenv.SameTree(t, trees["flat"], trees["v1"], "flat", "v1")
	if out := mustOutput(t, e, RunOptions{Image: "oci:" + dir + ":flat", Args: []string{"echo", "hello"}}); out != "hello\n" {
		t.Errorf("output %q", out)
	}
}
