package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/testenv"
)

// newEngine opens an engine on new directories.
func newEngine(t testing.TB) *Engine {
	t.Helper()
	return openEngine(t, t.TempDir())
}

func openEngine(t testing.TB, dir string) *Engine {
	t.Helper()
	e, err := Open(Options{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"),
		Warn: func(m string) { t.Logf("warning: %s", m) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// checkClean fails the test if the engine's directories hold something half
// done, or if the store is damaged. Beginnings of blobs are allowed.
func checkClean(t testing.TB, e *Engine) {
	t.Helper()
	for _, dir := range []string{e.containersDir(), e.newSnapshots(), e.options.runtime().Root, e.options.bundle("")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, entry := range entries {
			t.Errorf("left behind: %s", filepath.Join(dir, entry.Name()))
		}
	}
	checkSound(t, e)
}

// checkSound fails the test if the store is damaged.
func checkSound(t testing.TB, e *Engine) {
	t.Helper()
	report, err := e.images.Fsck(context.Background(), layout.FsckOptions{})
	if err != nil {
		t.Error(err)
	}
	for _, p := range report.Problems {
		t.Errorf("store: %s", p)
	}
}

// partials are the beginnings of blobs in the store.
func partials(t testing.TB, e *Engine) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(e.ImagesDir(), ".tare/partial/*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// output runs a container and returns what it writes to stdout and stderr.
func output(t testing.TB, e *Engine, o RunOptions) (out string, status int, err error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		read <- string(data)
	}()
	o.Stdio[1], o.Stdio[2] = w, w
	status, err = e.Run(t.Context(), o)
	w.Close()
	return <-read, status, err
}

// mustOutput is output of a container that has to end well.
func mustOutput(t testing.TB, e *Engine, o RunOptions) string {
	t.Helper()
	out, status, err := output(t, e, o)
	if err != nil || status != 0 {
		t.Fatalf("run %s %q: status %d, %v\n%s", o.Image, o.Args, status, err, out)
	}
	return out
}

// testLayout is a layout of the test images.
func testLayout(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(testenv.Images(t), name)
}

// A file of a made layer.
type file struct {
	name, content, link string
	mode                int64
	uid                 int
}

// makeImage adds an image to the layout in dir: base (a tag of another layout,
// or nothing), with a layer for each list of files, and config.
func makeImage(t testing.TB, dir, tag, base string, config func(*v1.Image), layers ...[]file) v1.Descriptor {
	t.Helper()
	ctx := t.Context()
	store, err := layout.Open(dir, layout.Options{Create: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	session, err := store.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	change := mutate.Change{Config: config}
	for _, files := range layers {
		data := tarOf(t, files)
		desc, err := session.Put(ctx, v1.MediaTypeImageLayer, data)
		if err != nil {
			t.Fatal(err)
		}
		change.Layers = append(change.Layers, mutate.Layer{Desc: desc, DiffID: desc.Digest})
	}
	var from *v1.Descriptor
	if base != "" {
		desc := copyImage(t, session, base)
		from = &desc
	}
	desc, err := mutate.Apply(ctx, session, from, change)
	if err == nil {
		err = session.Tag(ctx, tag, desc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// copyImage copies an image, DIR:TAG, to another layout.
func copyImage(t testing.TB, to *layout.Session, base string) v1.Descriptor {
	t.Helper()
	ctx := t.Context()
	dir, tag := layout.SplitName(base)
	from, err := layout.Open(dir, layout.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	desc, err := from.Resolve(ctx, tag)
	var img *image.Image
	if err == nil {
		img, err = image.Load(ctx, from, desc)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append([]v1.Descriptor{desc, img.Manifest.Config}, img.Manifest.Layers...) {
		blob, err := from.Open(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(blob)
		if err == nil {
			_, err = to.Put(ctx, d.MediaType, data)
		}
		if err != nil {
			t.Fatal(err)
		}
		blob.Close()
	}
	return desc
}

func tarOf(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.content)), Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A badRegistry serves one image layout, as "ADDR/image:latest", and does wrong
// what it is told to.
type badRegistry struct {
	*httptest.Server
	dir string

	mu       sync.Mutex
	answer   map[digest.Digest]http.HandlerFunc // in place of the blob or manifest
	manifest []byte                             // in place of the manifest that the tag names
	requests []string
}

func serve(t testing.TB, dir string) *badRegistry {
	t.Helper()
	b := &badRegistry{dir: dir, answer: map[digest.Digest]http.HandlerFunc{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

// name is that of the image in the registry.
func (b *badRegistry) name() string { return strings.TrimPrefix(b.URL, "http://") + "/image:latest" }

func (b *badRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.requests = append(b.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
	b.mu.Unlock()
	end, err := distribution.ParsePath(r.URL.Path)
	if err != nil || end.Route != distribution.RouteManifest && end.Route != distribution.RouteBlob {
		http.NotFound(w, r)
		return
	}
	d := digest.Digest(end.Argument)
	if end.Argument == "latest" {
		if b.manifest != nil {
			w.Header().Set("Content-Type", "application/json") // it says itself what it is
			_, _ = w.Write(b.manifest)
			return
		}
		desc := b.target()
		d = desc.Digest
		w.Header().Set("Content-Type", desc.MediaType)
	}
	if h := b.answer[d]; h != nil {
		h(w, r)
		return
	}
	f, err := os.Open(b.blob(d))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	if end.Route == distribution.RouteManifest && w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
	}
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (b *badRegistry) blob(d digest.Digest) string {
	return filepath.Join(b.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// target is the descriptor of the layout's only image.
func (b *badRegistry) target() v1.Descriptor {
	var x v1.Index
	data, err := os.ReadFile(filepath.Join(b.dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(data, &x)
	}
	if err != nil || len(x.Manifests) == 0 {
		return v1.Descriptor{}
	}
	return x.Manifests[len(x.Manifests)-1]
}

// layer is the descriptor of the image's i-th layer.
func (b *badRegistry) layer(t testing.TB, i int) v1.Descriptor {
	t.Helper()
	return b.manifestOf(t).Layers[i]
}

func (b *badRegistry) manifestOf(t testing.TB) (m v1.Manifest) {
	t.Helper()
	data, err := os.ReadFile(b.blob(b.target().Digest))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// asked returns the requests so far that have the text in them.
func (b *badRegistry) asked(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.requests), func(r string) bool { return !strings.Contains(r, text) })
}

// cut answers with the first n bytes of a blob and then breaks the connection.
func (b *badRegistry) cut(desc v1.Descriptor, n int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(b.blob(desc.Digest))
		if err != nil || r.Header.Get("Range") != "" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:n])
		panic(http.ErrAbortHandler)
	}
}

// bytes answers with data, as if it were all.
func answerBytes(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(data) }
}

// noRegistry fails the test when it is asked.
type noRegistry struct{ t testing.TB }

func (n noRegistry) Resolve(context.Context, distribution.Reference) (v1.Descriptor, []byte, error) {
	n.t.Error("the network was asked")
	return v1.Descriptor{}, nil, errors.New("no network")
}

func (n noRegistry) Manifest(context.Context, distribution.Repository, v1.Descriptor) ([]byte, error) {
	n.t.Error("the network was asked")
	return nil, errors.New("no network")
}

func (n noRegistry) Blob(context.Context, distribution.Repository, v1.Descriptor, int64) (io.ReadCloser, error) {
	n.t.Error("the network was asked")
	return nil, errors.New("no network")
}

// withoutHybridCgroups unmounts cgroup v2 where it is mounted beside v1, for
// crun, which then refuses to run. The test must be in PrivateMounts.
func withoutHybridCgroups(t testing.TB) {
	t.Helper()
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified); err == nil {
		testenv.Run(t, "umount", unified)
	}
}
