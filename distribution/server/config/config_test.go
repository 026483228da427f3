package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// keys lists the keys of a struct as they are in the file.
func keys(prefix string, t reflect.Type) (all []string) {
	for f := range fields(t) {
		key := prefix + f.Tag.Get("toml")
		inner := f.Type
		if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			all = append(all, keys(key+".", inner)...)
		} else {
			all = append(all, key)
		}
	}
	return all
}

func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// TestEveryKeyIsDocumented compares the table in docs/registry.md with the code.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9.-]+)` \\|[^|]*\\|[^|]+\\|$").FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	want := keys("", reflect.TypeFor[Config]())
	for _, key := range want {
		if !slices.Contains(documented, key) {
			t.Errorf("docs/registry.md has no row for %s", key)
		}
	}
	for _, key := range documented {
		if !slices.Contains(want, key) {
			t.Errorf("docs/registry.md has a row for %s, which is no key", key)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.toml")
	text := `
[http]
addr = "[::1]:0"
idle-timeout = "90s"
[tls]
cert = "a.crt"
key = "/etc/a.key"
[storage]
location = "data"
[limits]
manifest-size = "1MiB"
upload-age = "7d"
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if c.TLS.Cert != filepath.Join(dir, "a.crt") || c.TLS.Key != "/etc/a.key" || c.Storage.Location != filepath.Join(dir, "data") {
		t.Errorf("paths: %+v", c)
	}
	if time.Duration(c.HTTP.IdleTimeout) != 90*time.Second || c.Limits.ManifestSize != 1<<20 || time.Duration(c.Limits.UploadAge) != 168*time.Hour {
		t.Errorf("values: %+v", c)
	}
	if !c.Storage.Sync || c.Limits.TagsPage != 10_000 {
		t.Error("defaults are gone")
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestMistakesHaveALine(t *testing.T) {
	for text, want := range map[string]string{
		"[http]\nadr = 1":                         "x.toml:2: unknown key http.adr",
		"[htp]\naddr = 'x'":                       "x.toml:1: unknown key htp",
		"\n\n[http]\naddr = 1":                    "x.toml:4:",
		"[http]\nidle-timeout = 'soon'":           `x.toml:2:16: http.idle-timeout: "soon" is no duration`,
		"[http]\nidle-timeout = '-1s'":            `x.toml:2:16:`,
		"[limits]\nmanifest-size = '4 parsecs'":   "x.toml:2:17:",
		"[gc]\ngrace = 86400":                     "x.toml: gc.grace: 86400 has no unit",
		"[gc]\ngrace = -1":                        "gc.grace",
		"[limits]\nblob-size = -1":                "limits.blob-size: -1 is no size",
		"[[upstream]]\nfresh = 300":               "upstream.fresh: 300 has no unit",
		"[limits]\nmanifest-size = '99999999TiB'": "is larger than sizes can be",
		"[http\n": "x.toml:1:",
	} {
		_, err := Parse("x.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for change, want := range map[string]string{
		"[http]\naddr='0.0.0.0:5000'":                                       ErrNeedsAuth.Error(),
		"[http]\naddr=':5000'":                                              ErrNeedsAuth.Error(),
		"[http]\naddr='registry.example.com:5000'":                          ErrNeedsAuth.Error(),
		"[http]\naddr='0.0.0.0:5000'\ninsecure-no-auth=true":                "",
		"[http]\naddr='127.1.2.3:5000'":                                     "",
		"[http]\naddr='localhost:5000'":                                     "",
		"[http]\naddr='5000'":                                               "is no HOST:PORT",
		"[http]\nidle-timeout='0s'":                                         "http.idle-timeout",
		"[tls]\ncert='x'":                                                   "cert and key go together",
		"[tls]\nclient-ca='x'":                                              "needs cert and key",
		"[http]\naddr='0.0.0.0:1'\n[tls]\ncert='x'\nkey='y'\nclient-ca='z'": "",
		"[storage]\nlocation='ftp://x'":                                     "no driver for ftp",
		"[limits]\nmanifest-size='5MiB'":                                    "from 1KiB to 4MiB",
		"[limits]\nuploads=0":                                               "limits.uploads",
		"[[upstream]]\nprefix='hub'\nurl='https://registry-1.docker.io'":    "",
		"[[upstream]]\nprefix='hub/'\nurl='https://docker.io'":              "upstream 1: prefix",
		"[[upstream]]\nurl='docker.io'":                                     "upstream 1: url",
		"[[upstream]]\nurl='https://u:secret@docker.io'":                    "with a password in it",
		"[[upstream]]\nurl='https://a.b'\n[[upstream]]\nurl='https://c.d'":  "another upstream has",
		"[[upstream]]\nurl='https://a.b'\nuser='x'":                         "goes together with",
		"[[upstream]]\nurl='https://a.b'\nexcept=['']":                      "bad pattern",
		"[[upstream]]\nurl='https://a.b'\nkeep-prefix=true":                 "there is no prefix",
		"[[webhook]]\nurl='https://ci.example.com/hook'":                    "",
		"[[webhook]]\nurl='ci.example.com'":                                 "webhook 1: url",
		"[[webhook]]\nurl='http://a.b'\nactions=['shout']":                  "webhook 1: actions",
		"[[webhook]]\nurl='http://a.b'\nformat='xml'":                       "webhook 1: format",
		"[log]\nformat='xml'":                                               "neither text nor json",
	} {
		checkText(t, change, want)
	}
}

// checkText wants the check of a file to say something, or nothing.
func checkText(t *testing.T, text, want string) {
	t.Helper()
	c, err := Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if c.Storage.Location == "" {
		c.Storage.Location = "/x"
	}
	err = c.Check()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", text, err, want)
	}
}

func TestValuesPrintThemselves(t *testing.T) {
	for _, s := range []string{"90s", "1m30s", "30d", "12h0m0s", "0s"} {
		d, err := ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%s is printed as %s", s, d)
		}
	}
	for s, want := range map[string]Size{"0": 0, "512": 512, "4MiB": 4 << 20, "10GB": 10e9, "1 KiB": 1024, "3B": 3} {
		got, err := ParseSize(s)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s is printed as %s", s, got)
		}
	}
}

// FuzzParse: whatever the file holds, it is read or refused, and what is read
// can be checked.
func FuzzParse(f *testing.F) {
	f.Add("[http]\naddr='x:1'\n[limits]\nuploads=3")
	f.Add("[limits]\nmanifest-size='4MiB'\nupload-age='30d'")
	f.Add("http={addr=''}")
	f.Add("[[upstream]]\nprefix='a/b'\nurl='http://[::1]:5000/x/y'\nexcept=['a/b/c/**']\nfresh='0s'\nkeep='30d'")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x", []byte(text))
		if err == nil {
			c.resolve("/dir")
			c.Check()
		}
	})
}
