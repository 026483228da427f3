package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/internal/testenv"
)

// impatient is a pull that does not try again for long.
func impatient(t testing.TB) PullOptions {
	c := remote.New(remote.Options{RetryWait: time.Millisecond, MaxAttempts: 2})
	t.Cleanup(c.Close)
	return PullOptions{Registry: c}
}

// bigImage is a layout with an image of two layers, the upper one of 8 MiB that
// do not compress.
func bigImage(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	var noise bytes.Buffer
	for i := range 8 << 20 / 32 {
		sum := digest.FromString(fmt.Sprint(i))
		fmt.Fprintf(&noise, "%.32s", sum.Encoded())
	}
	makeImage(t, dir, "latest", testLayout(t, "small")+":latest", nil, []file{{name: "big", content: noise.String(), mode: 0o644}})
	return dir
}

// TestPullOfBadContent: each has to be refused with an error that names the
// thing, and to leave nothing behind.
func TestPullOfBadContent(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := bigImage(t)
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *badRegistry)
		is    error
		want  string // LAYER stands for the digest of the upper layer
	}{
		{"flipped byte", func(t *testing.T, b *badRegistry) {
			data := readBlob(t, b, b.layer(t, 1))
			data[len(data)/2] ^= 1
			b.answer[b.layer(t, 1).Digest] = answerBytes(data)
		}, image.ErrMismatch, "LAYER"},
		{"flipped byte in the header", func(t *testing.T, b *badRegistry) {
			data := readBlob(t, b, b.layer(t, 1))
			data[3] ^= 1
			b.answer[b.layer(t, 1).Digest] = answerBytes(data)
		}, image.ErrMismatch, "LAYER"},
		{"truncated", func(t *testing.T, b *badRegistry) {
			data := readBlob(t, b, b.layer(t, 1))
			b.answer[b.layer(t, 1).Digest] = answerBytes(data[:len(data)-1000])
		}, io.ErrUnexpectedEOF, "LAYER"},
		{"too long", func(t *testing.T, b *badRegistry) {
			data := readBlob(t, b, b.layer(t, 1))
			b.answer[b.layer(t, 1).Digest] = answerBytes(append(data, 0))
		}, distribution.ErrSizeMismatch, "LAYER"},
		{"endless", func(t *testing.T, b *badRegistry) {
			b.answer[b.layer(t, 1).Digest] = func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					_, _ = w.Write(make([]byte, 1<<20))
				}
			}
		}, distribution.ErrSizeMismatch, "LAYER"},
		{"missing", func(t *testing.T, b *badRegistry) {
			b.answer[b.layer(t, 1).Digest] = http.NotFound
		}, distribution.ErrNotFound, "LAYER"},
		{"wrong size in the descriptor", func(t *testing.T, b *badRegistry) {
			m := b.manifestOf(t)
			m.Layers[1].Size++
			b.manifest = mustJSON(t, m)
		}, distribution.ErrSizeMismatch, "LAYER"},
		{"diffID of another layer", func(t *testing.T, b *badRegistry) {
			m := b.manifestOf(t)
			m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0]
			b.manifest = mustJSON(t, m)
		}, nil, "diffID"},
		{"manifest that is no JSON", func(t *testing.T, b *badRegistry) { b.manifest = []byte("<html>hello</html>") }, nil, "/image:latest"},
		{"manifest without config", func(t *testing.T, b *badRegistry) {
			b.manifest = []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
		}, nil, "config"},
		{"manifest of 100 MiB", func(t *testing.T, b *badRegistry) {
			b.manifest = append([]byte(`{"x":"`), bytes.Repeat([]byte("x"), 100<<20)...)
		}, distribution.ErrTooLarge, "/image:latest"},
		{"endless config", func(t *testing.T, b *badRegistry) {
			m := b.manifestOf(t)
			m.Config.Size = 1 << 40
			b.manifest = mustJSON(t, m)
		}, nil, "config"},
		{"config that is another", func(t *testing.T, b *badRegistry) {
			m := b.manifestOf(t)
			b.answer[m.Config.Digest] = answerBytes(bytes.Repeat([]byte(" "), int(m.Config.Size)))
		}, distribution.ErrDigestMismatch, "blob"},
		{"another platform only", func(t *testing.T, b *badRegistry) {
			x := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{b.target()}}
			x.SchemaVersion = 2
			x.Manifests[0].Platform = &v1.Platform{OS: "linux", Architecture: "riscv64"}
			b.manifest = mustJSON(t, x)
		}, nil, "it is for linux/riscv64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := serve(t, dir)
			c.spoil(t, b)
			e := newEngine(t)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			want := strings.ReplaceAll(c.want, "LAYER", string(b.layer(t, 1).Digest))
			_, err := e.Pull(ctx, b.name(), impatient(t))
			if err == nil || !strings.Contains(err.Error(), want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q (%v)", err, want, c.is)
			}
			if images, err := e.Images(ctx); err != nil || len(images) > 0 {
				t.Errorf("images after a failed pull: %v, %v", images, err)
			}
			checkClean(t, e)
			if _, err := e.GC(ctx, GCOptions{}); err != nil {
				t.Error(err)
			}
			checkEmpty(t, e)
		})
	}
}

// checkEmpty fails the test unless nothing is stored.
func checkEmpty(t testing.TB, e *Engine) {
	t.Helper()
	for _, pattern := range []string{"images/blobs/*/*", "images/.tare/partial/*", "snapshots/*/*", "containers/*"} {
		found, err := filepath.Glob(filepath.Join(e.options.Root, pattern))
		if err != nil || len(found) > 0 {
			t.Errorf("left: %v, %v", found, err)
		}
	}
}

func readBlob(t testing.TB, b *badRegistry, desc v1.Descriptor) []byte {
	t.Helper()
	data, err := os.ReadFile(b.blob(desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPullGoesOn: after a registry has died in mid-blob, the next pull asks for
// the rest.
func TestPullGoesOn(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := serve(t, bigImage(t))
	desc := b.layer(t, 1)
	const cutAt = 3 << 20
	b.answer[desc.Digest] = b.cut(desc, cutAt)
	e := newEngine(t)
	if _, err := e.Pull(t.Context(), b.name(), impatient(t)); err == nil || !strings.Contains(err.Error(), string(desc.Digest)) {
		t.Fatalf("pull from a registry that dies: %v", err)
	}
	checkClean(t, e)
	if len(partials(t, e)) != 1 {
		t.Fatalf("beginnings of blobs: %v, want one", partials(t, e))
	}
	delete(b.answer, desc.Digest)
	asked := len(b.asked("GET"))
	var p counting
	o := impatient(t)
	o.Progress = &p
	if _, err := e.Pull(t.Context(), b.name(), o); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	for _, r := range b.asked("GET")[asked:] {
		if _, r, ok := strings.Cut(r, "bytes="); ok {
			ranges = append(ranges, r)
		}
	}
	if fmt.Sprint(ranges) != fmt.Sprintf("[%d-]", cutAt) {
		t.Errorf("asked for %v, want all from byte %d", ranges, cutAt)
	}
	if p.have+p.come != desc.Size+b.layer(t, 0).Size || p.done != 2 {
		t.Errorf("progress of %d bytes had and %d come, %d layers done; want %d and 2", p.have, p.come, p.done, desc.Size+b.layer(t, 0).Size)
	}
	if out := mustOutput(t, e, RunOptions{Image: b.name(), Args: []string{"sh", "-c", "wc -c </big"}}); out != "8388608\n" {
		t.Errorf("got %q", out)
	}
	// What is here is not asked for again, under whatever name.
	asked = len(b.asked("/blobs/"))
	if _, err := e.Pull(t.Context(), b.name(), impatient(t)); err != nil || len(b.asked("/blobs/")) != asked {
		t.Errorf("pulled again: %v, asked for %q", err, b.asked("/blobs/")[asked:])
	}
	checkClean(t, e)
}

// counting adds up progress.
type counting struct {
	mu         sync.Mutex
	have, come int64
	done       int
}

func (c *counting) Start(_ v1.Descriptor, have int64) { c.mu.Lock(); c.have += have; c.mu.Unlock() }
func (c *counting) Advance(_ digest.Digest, n int64)  { c.mu.Lock(); c.come += n; c.mu.Unlock() }
func (c *counting) Done(digest.Digest)                { c.mu.Lock(); c.done++; c.mu.Unlock() }

// TestPullCancelled ends a pull in the middle of a layer that is unpacked on
// the way.
func TestPullCancelled(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := serve(t, bigImage(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	desc := b.layer(t, 1)
	b.answer[desc.Digest] = func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(readBlob(t, b, desc)[:4<<20])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}
	e := newEngine(t)
	if _, err := e.Pull(ctx, b.name(), PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled pull: %v", err)
	}
	checkClean(t, e)
}

// TestFullDisk pulls, unpacks and runs where there is no room.
func TestFullDisk(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := serve(t, bigImage(t))
	for _, c := range []struct {
		name      string
		sizeBytes int64
		try       func(e *Engine, dir string) error
	}{
		{"no room for the blob", 4 << 20, func(e *Engine, _ string) error {
			_, err := e.Pull(t.Context(), b.name(), impatient(t))
			return err
		}},
		{"no room for the files", 14 << 20, func(e *Engine, _ string) error {
			_, err := e.Pull(t.Context(), b.name(), impatient(t))
			return err
		}},
		{"no room for the bundle", 14 << 20, func(e *Engine, dir string) error {
			return e.Unpack(t.Context(), b.name(), filepath.Join(dir, "bundle"), UnpackOptions{Pull: impatient(t)})
		}},
		{"no room to run", 14 << 20, func(e *Engine, _ string) error {
			_, err := e.Run(t.Context(), RunOptions{Image: b.name(), Pull: impatient(t), Args: []string{"true"}})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			testenv.Tmpfs(t, dir, c.sizeBytes)
			e := openEngine(t, dir)
			if err := c.try(e, dir); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("got %v, want no space", err)
			}
			checkClean(t, e)
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if name := entry.Name(); name != "root" && name != "run" {
					t.Errorf("left behind: %s", name)
				}
			}
			images, err := e.Images(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, img := range images { // pulled, and then there was no room to unpack it
				if _, err := e.Remove(t.Context(), img.Name); err != nil {
					t.Error(err)
				}
			}
			if _, err := e.GC(t.Context(), GCOptions{}); err != nil {
				t.Error(err)
			}
			checkEmpty(t, e)
		})
	}
}

// TestUnpack makes bundles and runs them by Debian's runc.
func TestUnpack(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	b := serve(t, testLayout(t, "small"))
	runc := testenv.Tool(t, "runc")
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := e.Unpack(t.Context(), b.name(), dir, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"/bin/sh"`), []byte(`"/bin/sh", "-c", "echo here; exit 5"`), 1)
	if err := os.WriteFile(config, data, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := runCommand(runc, "--root", filepath.Join(t.TempDir(), "runc"), "run", "--bundle", dir, testenv.Name(t))
	if out != "here\n" || err == nil || err.Error() != "exit status 5" {
		t.Errorf("bundle under runc: %q, %v", out, err)
	}

	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil { // an empty one is fine
		t.Fatal(err)
	}
	var warned []string
	e.options.Warn = func(m string) { warned = append(warned, m) }
	if err := e.Unpack(t.Context(), small(t), tree, UnpackOptions{RootfsOnly: true}); err != nil {
		t.Fatal(err)
	}
	if len(warned) > 0 {
		t.Errorf("in a directory of ours alone: warned of %q", warned)
	}
	open, err := os.MkdirTemp("/tmp", "tare-open-") // not t.TempDir, which is nobody else's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(open)
	if err := errors.Join(os.Chmod(open, 0o755), e.Unpack(t.Context(), small(t), open+"/tree", UnpackOptions{RootfsOnly: true})); err != nil {
		t.Fatal(err)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], open+"/tree is open to all users") {
		t.Errorf("in a directory of everybody's: warned of %q", warned)
	}
	if _, err := os.Stat(filepath.Join(tree, "bin/busybox")); err != nil {
		t.Error(err)
	}
	if err := e.Unpack(t.Context(), small(t), tree, UnpackOptions{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("unpack to a directory that is not empty: %v", err)
	}

	// What a killed one has left goes with the next, what a living one has stays.
	parent := t.TempDir()
	for _, name := range []string{".x.tare-dead", ".x.tare-alive"} {
		if err := os.MkdirAll(filepath.Join(parent, name, "rootfs/deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	alive, err := takeOwned(filepath.Join(parent, ".x.tare-alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Unpack(ctx, small(t), filepath.Join(parent, "x"), UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled unpack: %v", err)
	}
	if err := e.Unpack(t.Context(), small(t), filepath.Join(parent, "x"), UnpackOptions{}); err != nil {
		t.Error(err)
	}
	found, err := filepath.Glob(filepath.Join(parent, ".*"))
	if err != nil || len(found) != 1 || found[0] != alive.path {
		t.Errorf("beside the bundle: %v, %v", found, err)
	}
	checkClean(t, e)
}

// TestDamagedBlobs: what the disk has damaged is found, whatever is done with it,
// and the next pull brings it again.
func TestDamagedBlobs(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := serve(t, bigImage(t))
	flip := func(e *Engine, d digest.Digest) {
		path := filepath.Join(e.ImagesDir(), "blobs", string(d.Algorithm()), d.Encoded())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pull := func(e *Engine, o PullOptions) {
		t.Helper()
		if _, err := e.Pull(t.Context(), b.name(), o); err != nil {
			t.Error(err)
		}
		checkClean(t, e) // which reads all blobs
	}
	packed := impatient(t)
	packed.BlobsOnly = true
	for name, d := range map[string]digest.Digest{
		"manifest": b.target().Digest, "config": b.manifestOf(t).Config.Digest, "layer": b.layer(t, 1).Digest,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			pull(e, packed)
			flip(e, d)
			pull(e, impatient(t))
			if out := mustOutput(t, e, RunOptions{Image: b.name(), Args: []string{"sh", "-c", "wc -c </big"}}); out != "8388608\n" {
				t.Errorf("run: %q", out)
			}
		})
	}
	e := newEngine(t)
	pull(e, impatient(t)) // unpacked, too: another pull does not read it
	flip(e, b.layer(t, 1).Digest)
	dir := filepath.Join(t.TempDir(), "bundle")
	err := e.Unpack(t.Context(), b.name(), dir, UnpackOptions{})
	if !errors.Is(err, image.ErrMismatch) || !strings.Contains(err.Error(), b.layer(t, 1).Digest.String()) {
		t.Errorf("unpack of a damaged layer: %v", err)
	}
	pull(e, impatient(t))
	if err := e.Unpack(t.Context(), b.name(), dir, UnpackOptions{}); err != nil {
		t.Error(err)
	}
}

// TestUnpackBadImages: nothing may be left of what can't be unpacked.
func TestUnpackBadImages(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	layoutDir := filepath.Join(t.TempDir(), "layout")
	makeImage(t, layoutDir, "user", testLayout(t, "small")+":latest", func(c *v1.Image) { c.Config.User = "who" })
	makeImage(t, layoutDir, "escape", testLayout(t, "small")+":latest", nil, []file{{name: "../escaped", content: "x", mode: 0o644}})
	makeImage(t, layoutDir, "volume", testLayout(t, "small")+":latest", func(c *v1.Image) {
		c.Config.Volumes = map[string]struct{}{"/link/../../../outside": {}}
	}, []file{{name: "link", link: "/../../.."}})
	outside := t.TempDir()
	for tag, want := range map[string]string{"user": `"who"`, "escape": "escaped", "volume": ""} {
		dir := filepath.Join(outside, tag)
		err := e.Unpack(t.Context(), "oci:"+layoutDir+":"+tag, dir, UnpackOptions{})
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %s", tag, err, want)
		}
		if err == nil {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("%s: left behind %v, %v", tag, entries, err)
		}
	}
}

func runCommand(name string, args ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := os.StartProcess(name, append([]string{name}, args...), &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	return string(out), err
}

// A byte that was flipped on the way once costs a second fetch of that layer,
// also where it is unpacked as it comes.
func TestDamagedOnTheWay(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := bigImage(t)
	for name, get := range map[string]func(e *Engine, name string) error{
		"pull": func(e *Engine, name string) error {
			_, err := e.Pull(t.Context(), name, impatient(t))
			return err
		},
		"unpack": func(e *Engine, name string) error {
			return e.Unpack(t.Context(), name, filepath.Join(t.TempDir(), "bundle"), UnpackOptions{Pull: impatient(t)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, dir)
			layer := b.layer(t, 1)
			good := readBlob(t, b, layer)
			bad := bytes.Clone(good)
			bad[len(bad)/2] ^= 1
			asked := 0
			b.answer[layer.Digest] = func(w http.ResponseWriter, r *http.Request) {
				if asked++; asked == 1 {
					answerBytes(bad)(w, r)
					return
				}
				answerBytes(good)(w, r)
			}
			e := newEngine(t)
			if err := get(e, b.name()); err != nil {
				t.Fatal(err)
			}
			if asked != 2 {
				t.Errorf("the layer was fetched %d times", asked)
			}
			if report, err := e.images.Fsck(t.Context(), layout.FsckOptions{}); err != nil || len(report.Problems) > 0 {
				t.Error(report.Problems, err)
			}
		})
	}
}
