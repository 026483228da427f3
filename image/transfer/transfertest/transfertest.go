// Package transfertest is the contract of transfer.Source and transfer.Destination as tests: what a form that images (Image
// Spec 1.1.1) are kept in must do for copies to and from it to be right.
package transfertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

// Form is a form to be tested. What the methods are called with is a place of the test's own, each with one name.
type Form struct {
	// Source opens what is at a place. Destination prepares to put something there.
	Source      func(ctx context.Context, place string) (transfer.Source, error)
	Destination func(ctx context.Context, place string) (transfer.Destination, error)
	// Place makes a new place.
	Place func(t *testing.T) string
	// Images says that the form keeps images, and nothing of manifests and blobs: its Destination is an ImageWriter. Once says that
	// nothing can be put where something is.
	Images, Once bool
	// Anew says that all is written anew, also what is at the place.
	Anew bool
}

// Run tests a form.
func Run(t *testing.T, f Form) {
	for name, test := range map[string]func(*testing.T, Form){
		"source": testSource, "images": testImage, "wrong blobs": testWrongBlobs, "unfinished": testUnfinished, "replaced": testReplaced,
		"many at once": testConcurrent, "cancelled": testCancelled,
	} {
		t.Run(name, func(t *testing.T) {
			if f.Images && (name == "wrong blobs" || name == "many at once") || f.Once && name == "replaced" {
				return // which speak of what the form has not
			}
			test(t, f)
		})
	}
}

// Sample is an image in memory, a transfer.Source.
type Sample struct {
	blobs  map[digest.Digest][]byte
	root   v1.Descriptor
	layers []v1.Descriptor
}

// NewSample makes an image of layers with these contents, which are archives of nothing: a text of a few blocks of zeros behind
// it. It is for this machine.
func NewSample(texts ...string) *Sample {
	s := &Sample{blobs: map[digest.Digest][]byte{}}
	config := v1.Image{Platform: image.HostPlatform(), RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Annotations: map[string]string{}}
	for _, text := range texts {
		desc := s.put(v1.MediaTypeImageLayer, layer(text))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, desc.Digest)
		manifest.Layers = append(manifest.Layers, desc)
	}
	s.layers = manifest.Layers
	manifest.Config = s.putJSON(v1.MediaTypeImageConfig, config)
	s.root = s.putJSON(v1.MediaTypeImageManifest, manifest)
	return s
}

// layer is an archive of one empty file of that name.
func layer(name string) []byte {
	b := make([]byte, 3*512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        0")
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func (s *Sample) put(mediaType string, data []byte) v1.Descriptor {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s.blobs[desc.Digest] = data
	return desc
}

func (s *Sample) putJSON(mediaType string, v any) v1.Descriptor {
	data, _ := json.Marshal(v) // which cannot fail for what the specification has
	return s.put(mediaType, data)
}

// Root implements transfer.Source.
func (s *Sample) Root() v1.Descriptor { return s.root }

// Fetch implements transfer.Source.
func (s *Sample) Fetch(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	data, ok := s.blobs[desc.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// Blob implements transfer.Source.
func (s *Sample) Blob(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	data, err := s.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// Close implements transfer.Source.
func (s *Sample) Close() error { return nil }

// copyTo brings a sample to a place.
func copyTo(t *testing.T, f Form, place string, s *Sample) transfer.Result {
	t.Helper()
	dst, err := f.Destination(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	r, err := transfer.Copy(t.Context(), dst, s, transfer.Options{})
	if err == nil {
		err = dst.Commit(t.Context())
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t *testing.T, f Form, place string) transfer.Source {
	t.Helper()
	src, err := f.Source(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

// checkSame compares what is at a place with a sample: the very documents, or in a form of images, what is in them.
func checkSame(t *testing.T, f Form, place string, s *Sample) {
	t.Helper()
	src := open(t, f, place)
	if !f.Images && src.Root().Digest != s.root.Digest {
		t.Errorf("root is %s, want %s", src.Root().Digest, s.root.Digest)
	}
	img, err := image.Select(t.Context(), src, src.Root(), image.HostPlatform())
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Manifest.Layers) != len(s.layers) {
		t.Fatalf("%d layers, want %d", len(img.Manifest.Layers), len(s.layers))
	}
	for i, l := range img.Manifest.Layers {
		if data := readBlob(t, src, l, 0); !bytes.Equal(data, s.blobs[s.layers[i].Digest]) {
			t.Errorf("layer %d has other %d bytes", i, len(data))
		}
	}
}

func readBlob(t *testing.T, src transfer.Source, desc v1.Descriptor, offset int64) []byte {
	t.Helper()
	r, err := src.Blob(t.Context(), desc, offset)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// testSource: what was copied to a place is there, from any offset on, and nothing else is.
func testSource(t *testing.T, f Form) {
	sample, place := NewSample("one", "two"), f.Place(t)
	copyTo(t, f, place, sample)
	src := open(t, f, place)
	if data, err := src.Fetch(t.Context(), src.Root()); err != nil || digest.FromBytes(data) != src.Root().Digest || int64(len(data)) != src.Root().Size {
		t.Errorf("root: %d bytes, %v", len(data), err)
	}
	img, err := image.Load(t.Context(), src, src.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, desc := range img.Manifest.Layers {
		whole := readBlob(t, src, desc, 0)
		if digest.FromBytes(whole) != desc.Digest || int64(len(whole)) != desc.Size {
			t.Errorf("blob %s is another", desc.Digest)
		}
		for _, offset := range []int64{1, desc.Size / 2, desc.Size - 1} {
			if rest := readBlob(t, src, desc, offset); !bytes.Equal(rest, whole[offset:]) {
				t.Errorf("blob %s from %d on: %d bytes, want %d", desc.Digest, offset, len(rest), desc.Size-offset)
			}
		}
	}
	missing := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("nothing"), Size: 7}
	if r, err := src.Blob(t.Context(), missing, 0); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			r.Close()
		}
		t.Errorf("a blob that is not there: %v", err)
	}
	for _, mediaType := range []string{v1.MediaTypeImageManifest, v1.MediaTypeImageConfig} {
		missing.MediaType = mediaType
		if _, err := src.Fetch(t.Context(), missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a %s that is not there: %v", mediaType, err)
		}
	}
	for _, bad := range []digest.Digest{"", "sha256:../../../../etc/passwd", "sha256:" + digest.Digest(strings.Repeat("A", 64)), "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		missing.Digest = bad
		if r, err := src.Blob(t.Context(), missing, 0); err == nil {
			r.Close()
			t.Errorf("there is a blob %q", bad)
		}
	}
}

// testImage: what was copied is the same, also a second time, when no blob is read.
func testImage(t *testing.T, f Form) {
	sample, place := NewSample("one", "two", "one"), f.Place(t)
	copyTo(t, f, place, sample)
	checkSame(t, f, place, sample)
	if f.Once {
		return
	}
	if r := copyTo(t, f, place, sample); r.Blobs > 0 && !f.Anew {
		t.Errorf("the second time %d blobs were copied", r.Blobs)
	}
	checkSame(t, f, place, sample)
}

// testWrongBlobs: what is not as its descriptor says is refused, and is not there.
func testWrongBlobs(t *testing.T, f Form) {
	sample, place := NewSample("nowhere else"), f.Place(t)
	dst, err := f.Destination(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	desc := sample.layers[0]
	content := func(data []byte, err error) func(int64) (io.ReadCloser, error) {
		return func(offset int64) (io.ReadCloser, error) {
			if err != nil {
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(data[min(offset, int64(len(data))):])), nil
		}
	}
	good := sample.blobs[desc.Digest]
	other := bytes.Repeat([]byte("x"), len(good))
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		open func(int64) (io.ReadCloser, error)
		is   error
	}{
		"others": {content(other, nil), image.ErrMismatch}, "too few": {content(good[:len(good)-1], nil), nil}, "none": {content(nil, nil), nil}, "no source": {content(nil, broken), broken},
	} {
		if err := dst.PutBlob(t.Context(), desc, c.open); err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", what, err)
		}
		if has, err := dst.HasBlob(t.Context(), desc); has || err != nil {
			t.Errorf("%s: it is there, %v", what, err)
		}
	}
	// Who reads no more than there should be does not see that there is more.
	if err := dst.PutBlob(t.Context(), desc, content(append(bytes.Clone(good), 0), nil)); err != nil && !errors.Is(err, image.ErrMismatch) {
		t.Errorf("too many: %v", err)
	}
	for range 2 { // once more is no error
		if err := dst.PutBlob(t.Context(), desc, content(good, nil)); err != nil {
			t.Error(err)
		}
		if has, err := dst.HasBlob(t.Context(), desc); !has || err != nil {
			t.Errorf("it is not there, %v", err)
		}
	}
	bad := desc
	bad.Digest = "sha256:../../x"
	if err := dst.PutBlob(t.Context(), bad, content(good, nil)); err == nil {
		t.Error("a blob of a digest that is none was put")
	}
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
}

// testUnfinished: what was not committed has no name, and leaves what had it.
func testUnfinished(t *testing.T, f Form) {
	first, second, place := NewSample("first"), NewSample("second"), f.Place(t)
	for _, before := range []*Sample{nil, first} {
		if before != nil && f.Once {
			return
		}
		if before != nil {
			copyTo(t, f, place, before)
		}
		dst, err := f.Destination(t.Context(), place)
		if err != nil {
			t.Fatal(err)
		}
		if !f.Images {
			err = dst.PutBlob(t.Context(), second.layers[0], func(offset int64) (io.ReadCloser, error) {
				return second.Blob(t.Context(), second.layers[0], offset)
			})
		}
		if err := errors.Join(err, dst.Close()); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			checkSame(t, f, place, before)
		} else if src, err := f.Source(t.Context(), place); err == nil {
			src.Close()
			t.Error("there is something that nobody has committed")
		}
	}
}

// testReplaced: another image takes the place of the one that was there.
func testReplaced(t *testing.T, f Form) {
	place := f.Place(t)
	for _, sample := range []*Sample{NewSample("a", "b"), NewSample("b", "c"), NewSample("c")} {
		copyTo(t, f, place, sample)
		checkSame(t, f, place, sample)
	}
}

// testConcurrent: blobs come at once, some of them twice.
func testConcurrent(t *testing.T, f Form) {
	var texts []string
	for i := range 20 {
		texts = append(texts, fmt.Sprint("layer", i))
	}
	sample, place := NewSample(texts...), f.Place(t)
	dst, err := f.Destination(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var failed atomic.Int32
	for _, desc := range append(sample.layers, sample.layers...) {
		all.Go(func() {
			err := dst.PutBlob(t.Context(), desc, func(offset int64) (io.ReadCloser, error) { return sample.Blob(t.Context(), desc, offset) })
			if err != nil {
				failed.Add(1)
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := dst.Close(); err != nil || failed.Load() > 0 {
		t.Fatal(err)
	}
	copyTo(t, f, place, sample)
	checkSame(t, f, place, sample)
}

// testCancelled: a copy that was given up is an error, and there is no image.
func testCancelled(t *testing.T, f Form) {
	sample, place := NewSample("one"), f.Place(t)
	dst, err := f.Destination(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := transfer.Copy(ctx, dst, sample, transfer.Options{}); err == nil {
		t.Error("it was copied all the same")
	}
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
	if src, err := f.Source(t.Context(), place); err == nil {
		src.Close()
		t.Error("there is an image")
	}
}
