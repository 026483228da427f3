package remote_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/internal/testenv"
)

func parse(t testing.TB, s string) distribution.Reference {
	t.Helper()
	ref, err := distribution.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// ourRegistry is tare's own registry on a port of 127.0.0.1.
func ourRegistry(t testing.TB) string {
	t.Helper()
	objects, err := fs.New(t.TempDir(), fs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(ctx, listener, server.New(storage.New(objects, storage.Options{}), server.Options{}), server.ServeOptions{})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return listener.Addr().String()
}

// tree is what a manifest consists of, all the way down.
type tree struct {
	manifests map[digest.Digest][]byte
	types     map[digest.Digest]string
	blobs     map[digest.Digest]ocispec.Descriptor
	order     []digest.Digest // of manifests, children first
}

func (tr *tree) walk(t *testing.T, desc ocispec.Descriptor, fetch func(ocispec.Descriptor) []byte) {
	t.Helper()
	body := fetch(desc)
	var doc struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	for _, child := range doc.Manifests {
		tr.walk(t, child, fetch)
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, layer := range doc.Layers {
		tr.blobs[layer.Digest] = layer
	}
	tr.manifests[desc.Digest], tr.types[desc.Digest] = body, desc.MediaType
	tr.order = append(tr.order, desc.Digest)
}

func newTree() *tree {
	return &tree{map[digest.Digest][]byte{}, map[digest.Digest]string{}, map[digest.Digest]ocispec.Descriptor{}, nil}
}

// pullAll resolves ref and reads all that hangs on it, verified.
func pullAll(t *testing.T, c *remote.Client, ref distribution.Reference) (ocispec.Descriptor, *tree) {
	t.Helper()
	root, _, err := c.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if stat, err := c.Stat(t.Context(), ref); err != nil || stat.Digest != root.Digest || stat.Size != root.Size || stat.MediaType != root.MediaType {
		t.Errorf("Stat: %+v, %v; Resolve: %+v", stat, err, root)
	}
	tr := newTree()
	tr.walk(t, root, func(desc ocispec.Descriptor) []byte {
		body, err := c.Manifest(t.Context(), ref.Repository, desc)
		if err != nil {
			t.Fatal(err)
		}
		return body
	})
	for _, desc := range tr.blobs {
		r, err := c.Blob(t.Context(), ref.Repository, desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, distribution.Verify(r, desc)); err != nil {
			t.Error(err)
		}
		r.Close()
		checkRange(t, c, ref.Repository, desc)
	}
	return root, tr
}

// checkRange reads the end of a blob by its offset.
func checkRange(t *testing.T, c *remote.Client, repo distribution.Repository, desc ocispec.Descriptor) {
	t.Helper()
	offset := desc.Size - min(desc.Size, 1000)
	r, err := c.Blob(t.Context(), repo, desc, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if tail, err := io.ReadAll(r); err != nil || int64(len(tail)) != desc.Size-offset {
		t.Errorf("%d bytes from %d, %v", len(tail), offset, err)
	}
}

// pushLayout pushes one tag of an image layout with our client.
func pushLayout(t *testing.T, c *remote.Client, layout string, ref distribution.Reference) {
	t.Helper()
	file := func(d digest.Digest) string {
		return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
	}
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	var index ocispec.Index
	if err != nil || json.Unmarshal(data, &index) != nil {
		t.Fatal(err)
	}
	root := index.Manifests[0] // "latest" comes first
	tr := newTree()
	tr.walk(t, root, func(desc ocispec.Descriptor) []byte {
		body, err := os.ReadFile(file(desc.Digest))
		if err != nil {
			t.Fatal(err)
		}
		return body
	})
	for d, desc := range tr.blobs {
		for range 2 { // the second finds it there
			if err := c.PushBlob(t.Context(), ref.Repository, desc, func() (io.ReadCloser, error) { return os.Open(file(d)) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range tr.order {
		at := distribution.Reference{Repository: ref.Repository, Digest: d}
		if d == root.Digest {
			at.Tag = ref.Tag
		}
		if _, err := c.PushManifest(t.Context(), at, tr.types[d], tr.manifests[d]); err != nil {
			t.Fatal(err)
		}
	}
}

// allRegistries are those of others and ours, by their names.
func allRegistries(t testing.TB) map[string]string {
	t.Helper()
	addrs := map[string]string{"tare": ourRegistry(t)}
	for _, kind := range testenv.Distributions(t) {
		addrs[kind.Name] = testenv.StartRegistry(t, testenv.RegistryOptions{Command: kind.Command})
	}
	return addrs
}

// TestRegistries goes both ways with CNCF distribution and with ours: what skopeo
// pushed we pull, what we pushed skopeo pulls.
func TestRegistries(t *testing.T) {
	images := testenv.Images(t)
	for kind, addr := range allRegistries(t) {
		c := remote.New(remote.Options{})
		defer c.Close()
		for image, layout := range map[string]string{
			"small": filepath.Join(images, "small"), "multiarch": filepath.Join(images, "multiarch"), "large": largeLayout(t),
		} {
			t.Run(kind+"/"+image, func(t *testing.T) {
				testenv.PushLayout(t, addr, layout, "latest", "skopeo/"+image+":v1")
				root, theirs := pullAll(t, c, parse(t, addr+"/skopeo/"+image+":v1"))
				byDigest := parse(t, addr+"/skopeo/"+image+"@"+root.Digest.String())
				if again, _, err := c.Resolve(t.Context(), byDigest); err != nil || again.Digest != root.Digest || again.MediaType != root.MediaType || again.Size != root.Size {
					t.Error(again, err)
				}

				pushLayout(t, c, layout, parse(t, addr+"/tare/"+image+":v2"))
				back := filepath.Join(t.TempDir(), "layout")
				testenv.Run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
					"docker://"+addr+"/tare/"+image+":v2", "oci:"+back+":v2")
				for d := range theirs.blobs {
					if _, err := os.Stat(filepath.Join(back, "blobs/sha256", d.Encoded())); err != nil {
						t.Error(err)
					}
				}
			})
		}
		t.Run(kind+"/rest", func(t *testing.T) { testRest(t, c, addr) })
	}
}

// largeLayout is an image layout with a layer that is uploaded as a stream, and one
// that is compressed by zstd.
func largeLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path string, content []byte) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(mediaType string, content []byte) ocispec.Descriptor {
		d := digest.FromBytes(content)
		write("blobs/sha256/"+d.Encoded(), content)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
	}
	encode := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	layer := make([]byte, 12<<20)
	rand.Read(layer)
	manifest := blob(ocispec.MediaTypeImageManifest, encode(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)),
		Layers: []ocispec.Descriptor{blob(ocispec.MediaTypeImageLayerGzip, layer), blob(ocispec.MediaTypeImageLayerZstd, layer[:3000])},
	}))
	manifest.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	write("index.json", encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{manifest}}))
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

// testRest is mounting, tags and what is not there.
func testRest(t *testing.T, c *remote.Client, addr string) {
	to := parse(t, addr+"/mounted/here")
	root, tr := pullAll(t, c, parse(t, addr+"/tare/small:v2"))
	for d, desc := range tr.blobs {
		if ok, err := c.HasBlob(t.Context(), to.Repository, desc); ok || err != nil {
			t.Error(ok, err)
		}
		if ok, err := c.Mount(t.Context(), to.Repository, "tare/small", d); !ok || err != nil {
			t.Error(ok, err)
		}
		if ok, err := c.HasBlob(t.Context(), to.Repository, desc); !ok || err != nil {
			t.Error(ok, err)
		}
	}
	if ok, err := c.Mount(t.Context(), to.Repository, "tare/small", digest.FromString("nothing")); ok || err != nil {
		t.Error(ok, err)
	}
	var want []string
	for i := range 20 {
		to.Tag = fmt.Sprintf("t%04d", i)
		want = append(want, to.Tag)
		if _, err := c.PushManifest(t.Context(), to, root.MediaType, tr.manifests[root.Digest]); err != nil {
			t.Fatal(err)
		}
	}
	// The spec asks for an order that docker-registry 2.8 does not keep.
	got, err := c.Tags(t.Context(), to.Repository)
	if slices.Sort(got); err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%d tags, %v", len(got), err)
	}
	if _, err := c.Tags(t.Context(), parse(t, addr+"/no/such").Repository); !errors.Is(err, distribution.ErrNotFound) {
		t.Error(err)
	}
	if _, _, err := c.Resolve(t.Context(), parse(t, addr+"/tare/small:none")); !errors.Is(err, distribution.ErrNotFound) || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN") {
		t.Error(err)
	}
	_, err = c.Blob(t.Context(), to.Repository, ocispec.Descriptor{Digest: digest.FromString("nothing"), Size: 7}, 0)
	if !errors.Is(err, distribution.ErrNotFound) {
		t.Error(err)
	}
	bad := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("other")), nil }
	if err := c.PushBlob(t.Context(), to.Repository, ocispec.Descriptor{Digest: digest.FromString("nothing"), Size: 5}, bad); !errors.Is(err, distribution.ErrDigestMismatch) {
		t.Error(err)
	}
}

// TestBasicAuthentication is docker-registry with a password file, and the
// password as docker login writes it down.
func TestBasicAuthentication(t *testing.T) {
	addr := testenv.RegistryAuth(t, "me", "pass:word")
	layout := filepath.Join(testenv.Images(t), "small")
	testenv.PushLayout(t, addr, layout, "latest", "a/small:v1", "--dest-creds=me:pass:word")
	file := filepath.Join(t.TempDir(), "auth.json")
	testenv.Run(t, "skopeo", "login", "--tls-verify=false", "--authfile="+file, "--username=me", "--password=pass:word", addr)
	ref := parse(t, addr+"/a/small:v1")

	c := remote.New(remote.Options{Credentials: auth.Files{Paths: []string{file}}})
	defer c.Close()
	pullAll(t, c, ref)
	pushLayout(t, c, layout, parse(t, addr+"/b/small:v2"))

	for _, source := range []auth.Source{nil, auth.Static{Host: addr, Value: auth.Credential{Username: "me", Password: "WRONG"}}} {
		c := remote.New(remote.Options{Credentials: source})
		_, _, err := c.Resolve(t.Context(), ref)
		if !errors.Is(err, distribution.ErrUnauthorized) || strings.Contains(err.Error(), "WRONG") {
			t.Error(err)
		}
		c.Close()
	}
}

// TestTLS is docker-registry with a certificate of our own making.
func TestTLS(t *testing.T) {
	certificates := testenv.MakeCertificates(t)
	addr := testenv.StartRegistry(t, testenv.RegistryOptions{TLS: certificates})
	layout := filepath.Join(testenv.Images(t), "small")
	pool, err := remote.LoadCAs(certificates.CA)
	if err != nil {
		t.Fatal(err)
	}
	c := remote.New(remote.Options{RootCAs: pool})
	defer c.Close()
	ref := parse(t, addr+"/a/small:v1")
	pushLayout(t, c, layout, ref)
	pullAll(t, c, ref)

	// Without the authority: refused, and no plain HTTP instead.
	stranger := remote.New(remote.Options{})
	defer stranger.Close()
	var unknown x509.UnknownAuthorityError
	if _, _, err := stranger.Resolve(t.Context(), ref); !errors.As(err, &unknown) {
		t.Error(err)
	}
	if _, err := remote.LoadCAs(certificates.Key); err == nil {
		t.Error("took a key for a certificate")
	}
}

// anybody is a credential for every registry: user and password.
type anybody [2]string

// Credential implements auth.Source.
func (a anybody) Credential(context.Context, distribution.Repository) (auth.Credential, error) {
	return auth.Credential{Username: a[0], Password: a[1]}, nil
}
