package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
)

// verbs make something of the image big, in a directory that prepareVerbs has
// prepared. What they make is an image of the store, or what is at a path.
var verbs = map[string]struct {
	image, path string
	removes     bool  // the image's name, instead of making it
	roomBytes   int64 // that is too little
	run         func(ctx context.Context, e *Engine, dir string) error
}{
	"save": {path: "out/saved.tar", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		return e.Save(ctx, []string{"big"}, dir+"/out/saved.tar", SaveOptions{})
	}},
	"save, zstd": {path: "out/saved.tar.zst", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		return e.Save(ctx, []string{"big"}, dir+"/out/saved.tar.zst", SaveOptions{Format: OCIArchive, Compression: image.Zstd})
	}},
	"export": {path: "out/exported.tar", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		c, err := e.OpenContents(ctx, "big", nil, nil)
		if err != nil {
			return err
		}
		return errors.Join(WriteFile(dir+"/out/exported.tar", func(w io.Writer) error { return c.Export(ctx, w) }), c.Close())
	}},
	"load": {image: "loaded", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		_, err := e.Load(ctx, dir+"/load.tar", transfer.Options{All: true, Sparse: true})
		return err
	}},
	"import": {image: "imported", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		f, err := os.Open(dir + "/rootfs.tar")
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = e.Import(ctx, f.Name(), f, "imported", ImportOptions{Created: editTime})
		return err
	}},
	"config": {image: "edited", run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.EditImage(ctx, "big", EditOptions{Tag: "edited"}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
			return mutate.Apply(ctx, d, &img.Descriptor, mutate.Change{Config: func(c *v1.Image) { c.Author = "me" }})
		})
		return err
	}},
	"mutate": {image: "flat", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, _ string) error {
		m := Mutation{Squash: true, SquashFrom: 1, Created: editTime, PackGiven: true, Pack: layer.PackOptions{Compression: layer.Zstd}}
		_, err := e.EditImage(ctx, "big", EditOptions{Tag: "flat"}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
			return d.Mutate(ctx, img, m)
		})
		return err
	}},
	"commit": {image: "committed", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.Commit(ctx, "kept", "committed", CommitOptions{})
		return err
	}},
	"repack": {image: "repacked", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		_, err := e.Repack(ctx, dir+"/bundle", "repacked", RepackOptions{})
		return err
	}},
	"new": {image: "new", run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.NewImage(ctx, "new", image.HostPlatform(), editTime, EditOptions{})
		return err
	}},
	"tag": {image: "tagged", run: func(ctx context.Context, e *Engine, _ string) error { return e.Tag(ctx, "big", "tagged") }},
	"rmi": {image: "doomed", removes: true, run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.Remove(ctx, "doomed")
		return err
	}},
	"index create": {image: "created", run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.EditIndex(ctx, "created", IndexChange{Create: true, Add: []string{"big"}, Annotations: map[string]string{"a": "b"}}, EditOptions{})
		return err
	}},
	"index add": {image: "added", run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.EditIndex(ctx, "multi", IndexChange{Add: []string{"other"}, Platform: &otherPlatform}, EditOptions{Tag: "added"})
		return err
	}},
	"index remove": {image: "removed", run: func(ctx context.Context, e *Engine, _ string) error {
		_, err := e.EditIndex(ctx, "both", IndexChange{Remove: []IndexEntry{{Platform: &otherPlatform}}}, EditOptions{Tag: "removed"})
		return err
	}},
	"copy to dir": {path: "out/dir", roomBytes: 1 << 20, run: func(ctx context.Context, e *Engine, dir string) error {
		_, err := e.Copy(ctx, "big", "dir:"+dir+"/out/dir", CopyOptions{})
		return err
	}},
}

var otherPlatform = v1.Platform{OS: "linux", Architecture: "s390x"}

// verbChild runs a verb in a process of its own.
func verbChild(dir, verb string, _ []string) (int, error) {
	e, err := Open(Options{Root: dir + "/root", RunRoot: dir + "/run"})
	if err != nil {
		return 0, err
	}
	return 0, errors.Join(verbs[verb].run(context.Background(), e, dir), e.Close())
}

// prepareVerbs makes what the verbs need.
func prepareVerbs(t testing.TB, dir string) *Engine {
	t.Helper()
	e := openEngine(t, dir)
	if err := os.Mkdir(dir+"/out", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"big", "loaded"} {
		putImage(t, e, bigImage(t)+":latest", name)
	}
	for tag, m := range map[string]Mutation{"big": {Recompress: true}, "other": {Config: func(c *v1.Image) { c.Platform = otherPlatform }}} {
		m.Created = editTime
		if _, err := e.EditImage(t.Context(), "big", EditOptions{Tag: tag}, func(ctx context.Context, d *Edit, img *image.Image) (v1.Descriptor, error) {
			return d.Mutate(ctx, img, m)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Save(t.Context(), []string{"loaded"}, dir+"/load.tar", SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := verbs["export"].run(t.Context(), e, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/out/exported.tar", dir+"/rootfs.tar"); err != nil {
		t.Fatal(err)
	}
	mustOutput(t, e, RunOptions{Image: "big", ID: "kept", Keep: true, Args: []string{"sh", "-c", "cat /big /big >/bigger"}})
	if err := e.Unpack(t.Context(), "big", dir+"/bundle", UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/bundle/rootfs/big", dir+"/bundle/rootfs/bigger"); err != nil {
		t.Fatal(err)
	}
	for name, images := range map[string][]string{"multi": {"big"}, "both": {"big", "other"}} {
		if _, err := e.EditIndex(t.Context(), name, IndexChange{Create: true, Add: images}, EditOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	forgetVerb(t, e, dir, "load")
	forgetVerb(t, e, dir, "rmi")
	return e
}

// verbDone says whether there is what a verb makes; then it has to be whole.
func verbDone(t testing.TB, e *Engine, dir, verb string) bool {
	t.Helper()
	v := verbs[verb]
	entries, err := os.ReadDir(dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(v.path) {
			t.Errorf("%s has left out/%s", verb, entry.Name())
		}
	}
	switch {
	case v.image != "":
		img, err := e.Resolve(t.Context(), v.image, nil)
		if err != nil && !errors.Is(err, ErrNoImage) {
			t.Errorf("%s: %v", verb, err)
		}
		return (err == nil && img.Image != nil) != v.removes
	case len(entries) == 0:
		return false
	case strings.HasPrefix(verb, "save"):
		c := contentsOf(t, e, "oci-archive:"+dir+"/"+v.path) // what save writes is always one
		if _, err := c.Tree(t.Context(), true); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	case strings.HasPrefix(verb, "copy"):
		return dirDone(t, dir+"/"+v.path)
	default:
		testenv.Run(t, "tar", "-tf", dir+"/"+v.path)
	}
	return true
}

// dirDone says whether there is a whole image in a directory; its manifest comes last.
func dirDone(t testing.TB, dir string) bool {
	t.Helper()
	if _, err := os.Stat(dir + "/manifest.json"); err != nil {
		return false
	}
	testenv.Run(t, "skopeo", "copy", "--quiet", "dir:"+dir, "oci:"+t.TempDir())
	return true
}

// forgetVerb takes away what a verb has made.
func forgetVerb(t testing.TB, e *Engine, dir, verb string) {
	t.Helper()
	v := verbs[verb]
	if v.path != "" {
		_ = os.RemoveAll(dir + "/" + v.path)
		return
	}
	if v.removes {
		if err := e.Tag(t.Context(), "big", v.image); err != nil {
			t.Error(err)
		}
	} else if _, err := e.Remove(t.Context(), v.image); err != nil && !errors.Is(err, ErrNoImage) {
		t.Error(err)
	}
	if _, err := e.GC(t.Context(), GCOptions{}); err != nil {
		t.Error(err)
	}
	if left := partials(t, e); len(left) > 0 {
		t.Errorf("%s: GC has left %v", verb, left)
	}
}

// TestVerbsKilled kills every verb at random moments: no name is there before
// what it stands for, nothing is left that GC does not remove, and the verb
// works the next time.
func TestVerbsKilled(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const kills = 4 // of each
	dir := t.TempDir()
	e := prepareVerbs(t, dir)
	start := func(verb string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", dir, verb)
		cmd.Env, cmd.Stderr = append(os.Environ(), childVar+"=verb"), os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	for verb := range verbs {
		begin := time.Now()
		if err := start(verb).Wait(); err != nil || !verbDone(t, e, dir, verb) {
			t.Fatalf("%s: %v, and nothing is made", verb, err)
		}
		lasts, done := time.Since(begin), 0
		for range kills {
			forgetVerb(t, e, dir, verb)
			cmd, after := start(verb), rand.N(lasts)
			time.Sleep(after)
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			if verbDone(t, e, dir, verb) {
				done++
			}
			checkSound(t, e)
		}
		t.Logf("%s: %d of %d came to their end in %v", verb, done, kills, lasts)
		forgetVerb(t, e, dir, verb)
		if err := verbs[verb].run(t.Context(), e, dir); err != nil || !verbDone(t, e, dir, verb) {
			t.Errorf("%s after kills: %v", verb, err)
		}
		forgetVerb(t, e, dir, verb)
	}
	if _, err := e.RemoveContainer(t.Context(), "kept", false); err != nil {
		t.Error(err)
	}
	checkClean(t, e)
}

// TestVerbsOnFullDisk: where there is no room for what a verb makes, there is
// nothing of it, and the room is given back.
func TestVerbsOnFullDisk(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 128<<20)
	e := prepareVerbs(t, dir)
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bfree) * st.Bsize
	}
	for verb, v := range verbs {
		filler, err := os.Create(dir + "/filler")
		if err == nil {
			err = unix.Fallocate(int(filler.Fd()), 0, 0, free()-v.roomBytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := free()
		if err := v.run(t.Context(), e, dir); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: error %v", verb, err)
		} else if text := fmt.Sprint(err); !strings.Contains(text, "no space left") {
			t.Errorf("%s: %s", verb, text)
		}
		if verbDone(t, e, dir, verb) {
			t.Errorf("%s: it is there", verb)
		}
		if v.path != "" { // a directory keeps the blobs that are whole, for the next time
			_ = os.RemoveAll(dir + "/" + v.path)
		}
		if after := free(); after < before-16<<10 {
			t.Errorf("%s: %d bytes are free, %d before", verb, after, before)
		}
		checkSound(t, e)
		filler.Close()
		if err := os.Remove(filler.Name()); err != nil {
			t.Fatal(err)
		}
		if err := v.run(t.Context(), e, dir); err != nil || !verbDone(t, e, dir, verb) {
			t.Errorf("%s with room: %v", verb, err)
		}
		forgetVerb(t, e, dir, verb)
	}
}

// TestVerbsWriteValidImages: what each verb writes, and pull, is valid to the Image Spec's JSON schemas and to crane.
func TestVerbsWriteValidImages(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir, addr, tool := t.TempDir(), testenv.Registry(t), testenv.GoTool(t, crane)
	e := prepareVerbs(t, dir)
	whole := 0
	for verb, v := range verbs {
		if v.removes {
			continue
		}
		if err := v.run(t.Context(), e, dir); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if v.image == "" {
			continue
		}
		to := addr + "/" + v.image + ":v1"
		if _, err := e.Copy(t.Context(), v.image, "docker://"+to, CopyOptions{Options: transfer.Options{All: true, Sparse: true}}); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		args := []string{"validate", "--insecure", "--remote", to}
		img, err := e.Resolve(t.Context(), v.image, nil)
		if err != nil {
			t.Fatal(err)
		}
		// crane takes all layers for gzip when it reads them.
		if slices.ContainsFunc(img.Manifest.Layers, func(l v1.Descriptor) bool { return l.MediaType != v1.MediaTypeImageLayerGzip }) {
			args = append(args, "--fast")
		} else {
			whole++
		}
		testenv.Run(t, tool, args...)
	}
	if whole < 8 {
		t.Errorf("crane has read the layers of only %d images", whole)
	}
	if _, err := e.Pull(t.Context(), addr+"/flat:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	// manifest.md says that layers should have an entry, the schema that it must.
	if _, err := e.Remove(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	validSchemas(t, e.ImagesDir())
	testenv.Run(t, tool, "validate", "--tarball", dir+"/out/saved.tar")
	for _, name := range []string{"saved.tar", "saved.tar.zst"} {
		layout := t.TempDir()
		testenv.Run(t, "tar", "-C", layout, "-xf", dir+"/out/"+name)
		validSchemas(t, layout)
	}
	if _, err := e.RemoveContainer(t.Context(), "kept", false); err != nil {
		t.Error(err)
	}
}
