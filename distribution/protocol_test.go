package distribution

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRoutes(t *testing.T) {
	for path, want := range map[string]Endpoint{
		"/v2":                                {Route: RouteBase},
		"/v2/":                               {Route: RouteBase},
		"/v2/_catalog":                       {Route: RouteCatalog},
		"/v2/a/tags/list":                    {RouteTags, "a", ""},
		"/v2/a/blobs/uploads/":               {RouteUploads, "a", ""},
		"/v2/a/blobs/uploads/blobs/uploads/": {RouteUploads, "a/blobs/uploads", ""},
		"/v2/a/blobs/uploads/0b9f-1":         {RouteUpload, "a", "0b9f-1"},
		"/v2/a/blobs/uploads/blobs/" + sha:   {RouteBlob, "a/blobs/uploads", sha},
		"/v2/a/manifests/manifests/x":        {RouteManifest, "a/manifests", "x"},
		"/v2/a/tags/manifests/list":          {RouteManifest, "a/tags", "list"},
		"/v2/manifests/tags/list":            {RouteTags, "manifests", ""},
		"/v2/a/b/c/manifests/" + sha:         {RouteManifest, "a/b/c", sha},
		"/v2/a/referrers/" + sha:             {RouteReferrers, "a", sha},
	} {
		got, err := ParsePath(path)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	for path, want := range map[string]Code{
		"/v2/A/tags/list":                                CodeNameInvalid,
		"/v2//tags/list":                                 CodeNameInvalid,
		"/v2/../manifests/x":                             CodeNameInvalid,
		"/v2/a/manifests/-x":                             CodeManifestInvalid,
		"/v2/-bad..tag/manifests/x":                      CodeNameInvalid,
		"/v2/a/manifests/sha256:baddigest":               CodeDigestInvalid,
		"/v2/a/blobs/x":                                  CodeDigestInvalid,
		"/v2/a/referrers/sha256:12":                      CodeDigestInvalid,
		"/v2/a/blobs/uploads/..":                         CodeBlobUploadUnknown,
		"/v2/" + strings.Repeat("a/", 200) + "tags/list": CodeNameInvalid,
	} {
		_, err := ParsePath(path)
		var e *Error
		if !errors.As(err, &e) || e.Code != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"", "/", "/v1/", "/v2/a", "/v2/a/b", "v2/a/tags/list", "/v2/_catalog/", "/v2/tags/list/"} {
		if _, err := ParsePath(path); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/a/blobs/uploads/x", "/v2/a/b/manifests/" + sha, "/v2/a/tags/list", "/v2/a/referrers/" + sha, "/v2/a/blobs/uploads/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		e, err := ParsePath(path)
		if err != nil {
			return
		}
		if path == "/v2" {
			path = "/v2/"
		}
		if e.Path() != path {
			t.Fatalf("%q: %+v is %q", path, e, e.Path())
		}
		if u := (&url.URL{Path: path}); u.EscapedPath() != path && !strings.Contains(path, "%") {
			t.Fatalf("%q needs escaping", path)
		}
	})
}

// The error table read both ways: what a server sends is what a client finds.
func TestErrorTable(t *testing.T) {
	for _, row := range codes {
		sent := Errorf(row.code, "more")
		re := ParseErrorBody(row.code.Status(), EncodeErrorBody(sent))
		if len(re.Errors) != 1 || !reflect.DeepEqual(&re.Errors[0], sent) {
			t.Errorf("%s: %+v", row.code, re)
		}
		if row.err != nil && !errors.Is(re, row.err) {
			t.Errorf("%s is not %v", row.code, row.err)
		}
	}
	for status, want := range map[int]error{404: ErrNotFound, 401: ErrUnauthorized, 403: ErrDenied, 429: ErrTooManyRequests, 413: ErrTooLarge, 405: ErrUnsupported} {
		if err := ParseErrorBody(status, []byte("<html>")); !errors.Is(err, want) {
			t.Errorf("%d: %v", status, err)
		}
	}
	if CodeForStatus(http.StatusBadRequest) != CodeUnknown {
		t.Error("400 is of several codes")
	}
	hostile := ParseErrorBody(500, []byte(`{"errors":[{"code":"X\u001b[2J","message":"`+strings.Repeat("é\\n", 4000)+`"}]}`)).Error()
	if strings.ContainsAny(hostile, "\x1b\n") || len(hostile) > 1200 {
		t.Errorf("%d bytes: %q", len(hostile), hostile)
	}
}

func FuzzParseErrorBody(f *testing.F) {
	f.Add(404, []byte(`{"errors":[{"code":"BLOB_UNKNOWN","message":"m","detail":{"a":1}}]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		re := ParseErrorBody(status, body)
		for _, r := range re.Error() {
			if r < ' ' || r == 0x7f {
				t.Fatalf("control character in %q", re.Error())
			}
		}
		for i := range re.Errors {
			again := ParseErrorBody(status, EncodeErrorBody(&re.Errors[i]))
			if len(again.Errors) != 1 || again.Errors[0].Code != re.Errors[i].Code || again.Errors[0].Message != re.Errors[i].Message {
				t.Fatalf("%+v came back as %+v", re.Errors[i], again.Errors)
			}
		}
	})
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{"0-0", "5-10", "bytes 0-9/10", "bytes 3-4/*", "10-5", "-5", "+1-2", "0-99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseUploadRange(s); err == nil {
			if back, err := ParseUploadRange(r.String()); err != nil || back != r || r.First < 0 || r.Last < r.First {
				t.Fatalf("%q: %v, %v, %v", s, r, back, err)
			}
		}
		if c, err := ParseContentRange(s); err == nil {
			if back, err := ParseContentRange(c.String()); err != nil || back != c || c.First < 0 || c.Last < c.First || c.Size >= 0 && c.Size <= c.Last {
				t.Fatalf("%q: %v, %v, %v", s, c, back, err)
			}
		}
	})
}

func TestRanges(t *testing.T) {
	if c, err := ParseContentRange("bytes 5-9/10"); err != nil || c != (ContentRange{5, 9, 10}) {
		t.Error(c, err)
	}
	if c, err := ParseContentRange("bytes 5-9/*"); err != nil || c != (ContentRange{5, 9, -1}) {
		t.Error(c, err)
	}
	for _, s := range []string{"", "bytes 5-9", "bytes */10", "bytes 5-10/10", "bytes 9-5/10", "5-9/10", "bytes -1-2/3", "items 1-2/3"} {
		if _, err := ParseContentRange(s); err == nil {
			t.Error(s)
		}
	}
}

func TestNextLink(t *testing.T) {
	for header, want := range map[string]string{
		`</v2/a/tags/list?n=1&last=x>; rel="next"`:      "/v2/a/tags/list?n=1&last=x",
		`</p>; rel="prev", </n,1>; title="a"; rel=next`: "/n,1",
		`</n>; REL="Next",</o>; rel="last"`:             "/n",
		`</n>`:                                          "", `rel="next"`: "", `</n; rel="next"`: "", ``: "", `<>; rel="next"`: "",
	} {
		if got := ParseNextLink([]string{header}); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
	u := &url.URL{Path: "/v2/a/tags/list", RawQuery: "last=x&n=1"}
	if got := ParseNextLink([]string{NextLink(u)}); got != u.RequestURI() {
		t.Error(got)
	}
}

func FuzzParseNextLink(f *testing.F) {
	f.Add(`</a>; rel="next", </b>; rel=prev`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := ParseNextLink([]string{s}); !strings.Contains(s, got) {
			t.Fatalf("%q: %q", s, got)
		}
	})
}

func TestManifestType(t *testing.T) {
	image, index := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	for _, c := range []struct{ contentType, body, want string }{
		{image, `{}`, image},
		{image + "; charset=utf-8", `{"mediaType":"` + image + `"}`, image},
		{"application/json", `{"mediaType":"` + index + `"}`, index},
		{"", `{"manifests":[]}`, index},
		{"text/plain", `{"config":{}}`, image},
		{"", `{}`, ""}, {index, `{"mediaType":"` + image + `"}`, ""},
		{image, `[]`, ""}, {image, `not json`, ""}, {image, ``, ""}, {image, `{"a":1} {}`, ""},
		{image, `{"layers":[],"Layers":[]}`, ""}, {image, `{"layers":[],"layer\u017f":[]}`, ""}, {image, `{"layers":[],"layers":[]}`, ""},
		{"", `{"mediaType":"a\n/b"}`, ""}, {"", `{"mediaType":7}`, ""},
	} {
		got, err := ManifestType(c.contentType, []byte(c.body))
		if got != c.want || (c.want == "") != errors.Is(err, ErrInvalidManifest) {
			t.Errorf("%q %q: %q, %v", c.contentType, c.body, got, err)
		}
	}
}

// FuzzManifestType: what is taken for a manifest is one JSON object, and its type,
// where it states one, is the one that is told.
func FuzzManifestType(f *testing.F) {
	f.Add("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`))
	f.Add("", []byte(`{"manifests":[]}`))
	f.Add("text/html; charset=utf-8", []byte(`{"mediaType":"a/b"}`))
	f.Add("application/json", []byte(`{"mediaType":"a/b","mediatype":"c/d"}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		mediaType, err := ManifestType(contentType, body)
		if err != nil {
			return
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(body, &doc); err != nil {
			t.Fatalf("took %q: %v", body, err)
		}
		var stated string
		if json.Unmarshal(doc["mediaType"], &stated) == nil && stated != "" && stated != mediaType {
			t.Fatalf("%q states %q, told %q", body, stated, mediaType)
		}
	})
}

func TestVerify(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		content := strings.Repeat("content ", 1000)
		desc := ocispec.Descriptor{Digest: algorithm.FromString(content), Size: int64(len(content))}
		for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader} {
			if got, err := io.ReadAll(Verify(wrap(strings.NewReader(content)), desc)); err != nil || string(got) != content {
				t.Error(err)
			}
			for bad, want := range map[string]error{
				content[1:]:              ErrSizeMismatch,
				content + "x":            ErrSizeMismatch,
				"C" + content[1:]:        ErrDigestMismatch,
				strings.ToUpper(content): ErrDigestMismatch,
			} {
				if _, err := io.ReadAll(Verify(wrap(strings.NewReader(bad)), desc)); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			}
		}
	}
	if _, err := io.ReadAll(Verify(strings.NewReader(""), ocispec.Descriptor{Digest: "md5:x"})); err == nil {
		t.Error("took a digest that cannot be verified")
	}
}

func ExampleResponseError() {
	body := EncodeErrorBody(&Error{Code: CodeManifestUnknown, Message: "unknown tag=x", Detail: json.RawMessage(`{}`)})
	fmt.Println(ParseErrorBody(404, body))
	// Output: registry answered 404 Not Found: MANIFEST_UNKNOWN: unknown tag=x
}

func TestWarning(t *testing.T) {
	for header, want := range map[string]string{
		`299 - "Your token ends soon."`: "Your token ends soon.",
		`299 - "a \"b\" \\c"`:           `a "b" \c`,
		"299 - \"\x1b[31mred\n\"":       " [31mred ",
		`299 - ""`:                      "",
	} {
		if text, ok := ParseWarning(header); !ok || text != want {
			t.Errorf("%q: %q, %v", header, text, ok)
		}
	}
	for _, header := range []string{"", "299", `110 - "stale"`, `299 host "text"`, `299 - text`, `299 - "open`, `299 - "open\"`, `299 - "a" "Sat, 01 Jan 2000 00:00:00 GMT"`} {
		if text, ok := ParseWarning(header); ok {
			t.Errorf("%q: %q", header, text)
		}
	}
}

func FuzzWarning(f *testing.F) {
	f.Add(`a "b" \ c`)
	f.Fuzz(func(t *testing.T, text string) {
		ParseWarning(text)
		if got, ok := ParseWarning(Warning(text)); !ok || got != clean(text) {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	})
}
