package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

func describe(mediaType, data string) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}
}

const (
	dig     = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	cfgDesc = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + dig + `","size":0}`
	layDesc = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + dig + `","size":0}`
	manDesc = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + dig + `","size":0}`
)

func TestMediaTypeTable(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   image.Kind
		comp   image.Compression
		asOCI  string
		docker bool
	}{
		{image.MediaTypeDockerLayerGzip, image.KindLayer, image.Gzip, v1.MediaTypeImageLayerGzip, true},
		{image.MediaTypeDockerLayer, image.KindLayer, image.Uncompressed, v1.MediaTypeImageLayer, true},
		{image.MediaTypeDockerManifestList, image.KindIndex, "", v1.MediaTypeImageIndex, true},
		{image.MediaTypeDockerForeignLayerGzip, image.KindLayer, image.Gzip, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true},
		{v1.MediaTypeImageLayerZstd, image.KindLayer, image.Zstd, v1.MediaTypeImageLayerZstd, false},
		{"text/plain", image.KindUnknown, "", "text/plain", false},
	} {
		m := image.LookupMediaType(c.name)
		if m.Kind != c.kind || m.Compression != c.comp || m.Docker != c.docker || m.OCI().Name != c.asOCI {
			t.Errorf("%s: %+v, as OCI %s", c.name, m, m.OCI().Name)
		}
	}
	if got := image.LayerMediaType(image.Zstd); got != v1.MediaTypeImageLayerZstd {
		t.Errorf("LayerMediaType(zstd) = %s", got)
	}
}

// decode runs the decoder that fits the media type, over data as it is.
func decode(desc v1.Descriptor, data []byte) error {
	var err error
	switch image.KindOf(desc) {
	case image.KindIndex:
		_, err = image.DecodeIndex(desc, data)
	case image.KindConfig:
		_, err = image.DecodeConfig(desc, data)
	default:
		_, err = image.DecodeManifest(desc, data)
	}
	return err
}

func TestDecode(t *testing.T) {
	man, idx, cfg := v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, v1.MediaTypeImageConfig
	for _, c := range []struct{ mediaType, data, want string }{
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[` + layDesc + `]}`, ""},
		{image.MediaTypeDockerManifest, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[]}`, ""},
		{idx, `{"schemaVersion":2,"manifests":[` + manDesc + `,{"mediaType":"application/xml","digest":"` + dig + `","size":1}]}`, ""},
		{idx, `{"schemaVersion":2,"manifests":[]}`, ""},
		{cfg, `{"os":"linux","architecture":"amd64","unknown":[1],"rootfs":{"type":"layers","diff_ids":["` + dig + `"]}}`, ""},
		{cfg, `{"config":{"Labels":{"a":"1","A":"2"},"Volumes":{"/d":{},"/D":{}}},"rootfs":{"type":"layers"}}`, ""},

		{man, `nonsense`, "not JSON"},
		{man, ``, "not JSON"},
		{man, `[]`, "not a JSON object but a array"},
		{man, "{\"schemaVersion\":2,\"x\":\"\xff\"}", "not UTF-8"},
		{man, `{"schemaVersion":2}`, "neither a manifest"},
		{man, `{"schemaVersion":3,"config":` + cfgDesc + `,"layers":[]}`, "schemaVersion: 3"},
		{man, `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{image.MediaTypeDockerSchema1PrettyJWS, `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"manifests":[]}`, "ambiguous"},
		{idx, `{"schemaVersion":2,"manifests":[],"config":` + cfgDesc + `}`, "ambiguous"},
		{idx, `{"schemaVersion":2,"manifests":[],"Layers":[]}`, "ambiguous"},
		{man, `{"schemaVersion":2,"manifests":[]}`, "fields are those of an image index"},
		{man, `{"schemaVersion":2,"mediaType":"` + image.MediaTypeDockerManifest + `","config":` + cfgDesc + `,"layers":[]}`, "mediaType: "},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"layers":[]}`, `ambiguous: the key "layers" is there twice`},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"la\u0079ers":[]}`, `the key "layers" is there twice`},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"layer\u017f":[]}`, `is there twice`},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"digest":"` + dig + `","Digest":"x","mediaType":"a/b","size":1}]}`, `"Digest" is there twice`},
		{man, `{"schemaVersion":2,"config":{},"layers":[]}`, `config.mediaType: "" is not a media type`},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[` + layDesc + `,{"mediaType":"a/b","digest":"sha256:ABC","size":1}]}`, "layers[1].digest: "},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"sha384:00","size":1}]}`, `algorithm "sha384"`},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"` + dig + `","size":-1}]}`, "layers[0].size: -1"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"` + dig + `","size":9223372036854775807}]}`, "layers[0].size: 9223372036854775807 is more than"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"` + dig + `","size":1e99}]}`, "layers.size: a JSON number"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a b/c","digest":"` + dig + `","size":1}]}`, "layers[0].mediaType"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"` + dig + `","size":1,"data":"eA=="}]}`, "layers[0].data: "},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[{"mediaType":"a/b","digest":"` + dig + `","size":1,"data":"!"}]}`, "data: "},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[` + strings.Repeat(layDesc+",", image.MaxLayers) + layDesc + `]}`, "layers: 1001"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"subject":{"mediaType":"a/b","digest":"../../x","size":1}}`, "subject.digest"},
		{man, `{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[],"artifactType":"\u001b[2J"}`, `artifactType: "\x1b[2J"`},
		{idx, `{"schemaVersion":2,"manifests":[` + strings.Repeat(`{"mediaType":"a/b","digest":"`+dig+`","size":0},`, image.MaxManifests) + manDesc + `]}`, "manifests: 8193"},
		{idx, `{"schemaVersion":2,"manifests":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "exceeded max depth"},
		{cfg, `{"config":{"Env":{"A":"B"}},"rootfs":{"type":"layers"}}`, "config.Env: a JSON object, want []string"},
		{cfg, `{"created":"yesterday","rootfs":{"type":"layers"}}`, "created: "},
		{cfg, `{"history":[{"created":"yesterday"}],"rootfs":{"type":"layers"}}`, "history.created: "},
		{cfg, `{"rootfs":{"type":"layers+base"}}`, `rootfs.type: "layers+base"`},
		{cfg, `{"rootfs":{"type":"layers","diff_ids":["` + dig + `","md5:1"]}}`, "rootfs.diff_ids[1]"},
		{"text/plain", `{}`, `mediaType: "text/plain" is not that of an image manifest`},
		{man, strings.Repeat(" ", image.MaxDocumentBytes+1), "size: 4194305 bytes, more than"},
	} {
		desc := describe(c.mediaType, c.data)
		err := decode(desc, []byte(c.data))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%.200s: %v", c.data, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), string(desc.Digest))):
			t.Errorf("%.200s:\nerror %v\nwant  %q, naming %s", c.data, err, c.want, desc.Digest)
		}
	}
}

func TestDecodeChecksContent(t *testing.T) {
	good := `{"schemaVersion":2,"manifests":[]}`
	desc := describe(v1.MediaTypeImageIndex, good)
	for name, data := range map[string]string{
		"flipped":   strings.Replace(good, "2", "3", 1),
		"truncated": good[:10],
		"longer":    good + " ",
	} {
		if err := decode(desc, []byte(data)); !errors.Is(err, image.ErrMismatch) || !strings.Contains(err.Error(), string(desc.Digest)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestDetectMediaType(t *testing.T) {
	for _, c := range []struct{ data, want, err string }{
		{`{"schemaVersion":2,"config":{},"layers":[]}`, v1.MediaTypeImageManifest, ""},
		{`{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageIndex, ""},
		{`{"schemaVersion":2,"mediaType":"` + image.MediaTypeDockerManifestList + `","manifests":[]}`, image.MediaTypeDockerManifestList, ""},
		{`{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","manifests":[]}`, "", "fields are those of an image index"},
		{`{"schemaVersion":1,"fsLayers":[]}`, "", "schema 1"},
		{`<html>`, "", "not JSON"},
	} {
		got, err := image.DetectMediaType([]byte(c.data))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.data, got, err)
		}
	}
	if _, err := image.DetectMediaType([]byte(`{"schemaVersion":1}`)); !errors.Is(err, image.ErrSchema1) {
		t.Errorf("schema 1: %v", err)
	}
}

func TestChainIDs(t *testing.T) {
	diff := []digest.Digest{digest.FromString("a"), digest.FromString("b"), digest.SHA512.FromString("c"), digest.FromString("d")}
	for n := range len(diff) + 1 {
		want := identity.ChainIDs(slices.Clone(diff[:n])) // it overwrites its argument
		if got := image.ChainIDs(diff[:n]); !slices.Equal(got, want) {
			t.Errorf("%d layers: %v, want %v", n, got, want)
		}
	}
}

func TestVerifyReader(t *testing.T) {
	const text = "some content"
	good := describe("text/plain", text)
	sha512 := good
	sha512.Digest = digest.SHA512.FromString(text)
	short, wrong := good, good
	short.Size--
	wrong.Digest = digest.FromString("other")
	for _, c := range []struct {
		name string
		desc v1.Descriptor
		text string
		ok   bool
	}{
		{"good", good, text, true}, {"sha512", sha512, text, true}, {"longer", good, text + "x", false},
		{"truncated", good, text[:5], false}, {"smaller descriptor", short, text, false}, {"digest", wrong, text, false},
		{"empty", describe("a/b", ""), "", true},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.text), iotest.OneByteReader(strings.NewReader(c.text)), iotest.DataErrReader(strings.NewReader(c.text))} {
			v, err := image.VerifyReader(r, c.desc)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(v)
			if c.ok && (err != nil || string(got) != c.text) || !c.ok && !errors.Is(err, image.ErrMismatch) || int64(len(got)) > c.desc.Size {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
		}
	}
	v, _ := image.VerifyReader(iotest.ErrReader(errors.New("boom")), good)
	if _, err := io.ReadAll(v); err == nil || !strings.Contains(err.Error(), string(good.Digest)+": boom") {
		t.Errorf("error of the source: %v", err)
	}
	if _, err := image.VerifyReader(strings.NewReader(""), v1.Descriptor{Digest: "md5:x"}); err == nil {
		t.Error("md5 was accepted")
	}
}

// fuzzDocument checks what has to hold for a document of whatever bytes: an
// error, or a value that survives being written and read again.
func fuzzDocument[T any](t *testing.T, mediaType string, data []byte, decode func(v1.Descriptor, []byte) (T, error)) {
	first, err := decode(describe(mediaType, string(data)), data)
	if err != nil {
		return
	}
	written, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("decoded, but can't be encoded: %v", err)
	}
	second, err := decode(describe(mediaType, string(written)), written)
	if err != nil {
		t.Fatalf("%s\nwritten again as\n%s\nis refused: %v", data, written, err)
	}
	again, _ := json.Marshal(second)
	if !bytes.Equal(written, again) {
		t.Fatalf("%s\nis not stable:\n%s\n%s", data, written, again)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":` + cfgDesc + `,"layers":[` + layDesc + `],"subject":` + manDesc + `,"annotations":{"a":"b"}}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzDocument(t, v1.MediaTypeImageManifest, data, image.DecodeManifest)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + manDesc + `,{"mediaType":"a/b","digest":"` + dig + `","size":0,"platform":{"os":"linux","architecture":"arm"},"data":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzDocument(t, v1.MediaTypeImageIndex, data, image.DecodeIndex)
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"created":"2025-06-15T15:06:40Z","os":"linux","architecture":"amd64","config":{"Env":["A=B"],"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["` + dig + `"]},"history":[{"created_by":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzDocument(t, v1.MediaTypeImageConfig, data, image.DecodeConfig)
	})
}

func FuzzDigest(f *testing.F) {
	f.Add(dig)
	f.Add("sha512:../../etc/passwd")
	f.Fuzz(func(t *testing.T, s string) {
		if image.CheckDigest(digest.Digest(s)) != nil {
			return
		}
		if err := digest.Digest(s).Validate(); err != nil {
			t.Fatalf("%q: accepted, but go-digest says %v", s, err)
		}
		if strings.ContainsAny(s, "/.\x00") {
			t.Fatalf("%q could leave the blobs directory", s)
		}
		if _, err := image.NewHash(digest.Digest(s)); err != nil {
			t.Fatal(fmt.Errorf("%q: %w", s, err))
		}
	})
}
