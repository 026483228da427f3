package remote_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/internal/testenv"
)

// pushArtifact pushes a manifest with an empty config, of the given type and
// with the given subject.
func pushArtifact(t *testing.T, c *remote.Client, repo distribution.Repository, artifactType string, subject *ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	empty := ocispec.DescriptorEmptyJSON
	if err := c.PushBlob(t.Context(), repo, empty, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("{}")), nil }); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: empty, Layers: []ocispec.Descriptor{empty}, Subject: subject, Annotations: map[string]string{"of": artifactType},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref := distribution.Reference{Repository: repo, Digest: digest.FromBytes(body)}
	desc, err := c.PushManifest(t.Context(), ref, ocispec.MediaTypeImageManifest, body)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// TestReferrers is a registry that lists referrers, and one that does not,
// where clients keep the list.
func TestReferrers(t *testing.T) {
	for kind, addr := range allRegistries(t) {
		t.Run(kind, func(t *testing.T) {
			c := remote.New(remote.Options{})
			defer c.Close()
			repo := parse(t, addr+"/team/app").Repository
			subject := pushArtifact(t, c, repo, "x/subject", nil)
			if list, err := c.Referrers(t.Context(), repo, subject.Digest, ""); err != nil || len(list) > 0 {
				t.Errorf("%v, %v", list, err)
			}
			sbom := pushArtifact(t, c, repo, "x/sbom", &subject)
			signature := pushArtifact(t, c, repo, "x/signature", &subject)
			pushArtifact(t, c, repo, "x/sbom", &subject) // the same again
			list, err := c.Referrers(t.Context(), repo, subject.Digest, "")
			if err != nil || len(list) != 2 {
				t.Fatalf("%v, %v", list, err)
			}
			for _, want := range []struct {
				desc         ocispec.Descriptor
				artifactType string
			}{{sbom, "x/sbom"}, {signature, "x/signature"}} {
				got, err := c.Referrers(t.Context(), repo, subject.Digest, want.artifactType)
				if err != nil || len(got) != 1 || got[0].Digest != want.desc.Digest || got[0].ArtifactType != want.artifactType || got[0].Annotations["of"] != want.artifactType {
					t.Errorf("%s: %v, %v", want.artifactType, got, err)
				}
			}
			tags, err := c.Tags(t.Context(), repo)
			if has := slices.Contains(tags, "sha256-"+subject.Digest.Encoded()); has != (kind != "tare") {
				t.Errorf("tags %v, %v", tags, err)
			}
		})
	}
}

// TestDeleteReferrer: who deletes a referrer takes it from the list that clients
// keep, and what else is under that tag stays as it is.
func TestDeleteReferrer(t *testing.T) {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: ourRegistry(t)})
	proxy.ModifyResponse = func(resp *http.Response) error { resp.Header.Del("Oci-Subject"); return nil }
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer old.Close()
	c := remote.New(remote.Options{})
	defer c.Close()
	repo := parse(t, old.Listener.Addr().String()+"/team/app").Repository
	subject := pushArtifact(t, c, repo, "x/subject", nil)
	sbom, signature := pushArtifact(t, c, repo, "x/sbom", &subject), pushArtifact(t, c, repo, "x/signature", &subject)
	if err := c.Delete(t.Context(), distribution.Reference{Repository: repo, Digest: sbom.Digest}); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Referrers(t.Context(), repo, subject.Digest, ""); err != nil || len(list) != 1 || list[0].Digest != signature.Digest {
		t.Errorf("%v, %v", list, err)
	}
	tag := distribution.Reference{Repository: repo, Tag: "sha256-" + subject.Digest.Encoded()}
	body, err := c.Manifest(t.Context(), repo, subject)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PushManifest(t.Context(), tag, subject.MediaType, body); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), distribution.Reference{Repository: repo, Digest: signature.Digest}); err != nil {
		t.Error(err)
	}
	if list, err := c.Referrers(t.Context(), repo, subject.Digest, ""); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if desc, err := c.Stat(t.Context(), tag); err != nil || desc.Digest != subject.Digest {
		t.Error(desc, err)
	}
}

func TestDelete(t *testing.T) {
	addr := ourRegistry(t)
	c := remote.New(remote.Options{})
	defer c.Close()
	ref := parse(t, addr+"/team/app:v1")
	desc := pushArtifact(t, c, ref.Repository, "x/y", nil)
	body, err := c.Manifest(t.Context(), ref.Repository, desc)
	if err != nil {
		t.Fatal(err)
	}
	byDigest := distribution.Reference{Repository: ref.Repository, Digest: desc.Digest}
	for _, at := range []distribution.Reference{ref, byDigest} {
		if _, err := c.PushManifest(t.Context(), ref, desc.MediaType, body); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), at); err != nil {
			t.Error(err)
		}
		if _, _, err := c.Resolve(t.Context(), ref); !errors.Is(err, distribution.ErrNotFound) {
			t.Error(err)
		}
		_, _, err := c.Resolve(t.Context(), byDigest)
		if gone := errors.Is(err, distribution.ErrNotFound); gone != (at == byDigest) {
			t.Errorf("%s deleted: %v", at, err)
		}
	}
	if err := c.Delete(t.Context(), ref); !errors.Is(err, distribution.ErrNotFound) {
		t.Error(err)
	}
	if err := c.DeleteBlob(t.Context(), ref.Repository, ocispec.DescriptorEmptyJSON.Digest); err != nil {
		t.Error(err)
	}
	if has, err := c.HasBlob(t.Context(), ref.Repository, ocispec.DescriptorEmptyJSON); has || err != nil {
		t.Error(has, err)
	}
}

func TestCatalogAndPing(t *testing.T) {
	addr := testenv.RegistryAuth(t, "me", "secret")
	c := remote.New(remote.Options{Credentials: anybody{"me", "secret"}})
	defer c.Close()
	for _, name := range []string{"a", "team/app"} {
		pushArtifact(t, c, parse(t, addr+"/"+name).Repository, "x/y", nil)
	}
	names, err := c.Repositories(t.Context(), addr)
	if err != nil || strings.Join(names, " ") != "a team/app" {
		t.Error(names, err)
	}
	if err := c.Ping(t.Context(), addr); err != nil {
		t.Error(err)
	}
	stranger := remote.New(remote.Options{})
	defer stranger.Close()
	if err := stranger.Ping(t.Context(), addr); !errors.Is(err, distribution.ErrUnauthorized) || !strings.Contains(err.Error(), addr) {
		t.Error(err)
	}
}
