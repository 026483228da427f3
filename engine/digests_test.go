package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// TestOtherDigests: blobs that are named by SHA-512, and an artifact, come through each form as they are.
func TestOtherDigests(t *testing.T) {
	dir := t.TempDir()
	write := func(mediaType string, data []byte) v1.Descriptor {
		d := digest.SHA512.FromBytes(data)
		path := filepath.Join(dir, "blobs", "sha512", d.Encoded())
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	document := func(mediaType string, v any) v1.Descriptor {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return write(mediaType, data)
	}
	files := tarOf(t, []file{{name: "f", content: "x", mode: 0o644}})
	config := v1.Image{Platform: image.HostPlatform(), RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.SHA512.FromBytes(files)}}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	ofImage, ofArtifact := manifest, manifest
	ofImage.Config = document(v1.MediaTypeImageConfig, config)
	ofImage.Layers = []v1.Descriptor{write(v1.MediaTypeImageLayer, files)}
	ofArtifact.ArtifactType, ofArtifact.Config = "application/x-test", write(v1.MediaTypeEmptyJSON, []byte("{}"))
	ofArtifact.Layers = []v1.Descriptor{write("text/plain", []byte("a file of the artifact"))}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for name, m := range map[string]v1.Manifest{"image": ofImage, "artifact": ofArtifact} {
		desc := document(v1.MediaTypeImageManifest, m)
		desc.Annotations = map[string]string{v1.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, desc)
	}
	data, err := json.Marshal(index)
	if err = errors.Join(err, os.WriteFile(dir+"/index.json", data, 0o644), os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	want := contentsBelow(t, dir+"/blobs")
	for _, c := range []struct{ name, by string }{
		{"archive", "oci-archive:" + t.TempDir() + "/a.tar:%s:v1"},
		{"layout", "oci:" + t.TempDir() + "/layout:%s"},
		{"store", "%s:v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, back := newEngine(t), filepath.Join(t.TempDir(), "back")
			for _, name := range []string{"image", "artifact"} {
				by := fmt.Sprintf(c.by, name)
				if _, err := e.Copy(t.Context(), "oci:"+dir+":"+name, by, CopyOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := e.Copy(t.Context(), by, "oci:"+back+":"+name, CopyOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if got := contentsBelow(t, back+"/blobs"); !maps.Equal(got, want) {
				t.Errorf("the blobs are\n%q\nwant\n%q", got, want)
			}
			checkClean(t, e)
		})
	}
}

// contentsBelow are the files of a directory, by their names.
func contentsBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
