package registries

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/distribution"
)

func parse(t testing.TB, s string) distribution.Reference {
	t.Helper()
	ref, err := distribution.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

const example = `
unqualified-search-registries = ["docker.io", "registry.example.com"]
short-name-mode = "enforcing"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.lan:5000/hub"
insecure = true
[[registry.mirror]]
location = "tags.lan"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/team"
location = "internal.lan/docker/team"

[[registry]]
prefix = "*.evil.example"
blocked = true

[[registry]]
prefix = "good.evil.example"
insecure = true

[[registry]]
prefix = "digests.example"
location = "digests.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.lan"

[aliases]
"app" = "registry.example.com/team/app"
`

func load(t testing.TB, texts ...string) (*Config, error) {
	t.Helper()
	var files []string
	for _, text := range texts {
		file := filepath.Join(t.TempDir(), "registries.conf")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return Load(files...)
}

func TestPlaces(t *testing.T) {
	c, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	digest := "@sha256:" + strings.Repeat("a", 64)
	for name, want := range map[string]string{
		"debian:12":                  "mirror.lan:5000/hub/library/debian! tags.lan/library/debian docker.io/library/debian",
		"debian" + digest:            "mirror.lan:5000/hub/library/debian! docker.io/library/debian",
		"team/app":                   "internal.lan/docker/team/app",
		"teams/app":                  "mirror.lan:5000/hub/teams/app! tags.lan/teams/app docker.io/teams/app",
		"docker.io.lan/x":            "docker.io.lan/x",
		"a.evil.example/x":           "blocked",
		"a.evil.example:5000/x":      "blocked",
		"good.evil.example/x":        "good.evil.example/x!",
		"evil.example/x":             "evil.example/x",
		"digests.example/a:1":        "digests.example/a",
		"digests.example/a" + digest: "m.lan/a digests.example/a",
		"other.example:5000/a/b:tag": "other.example:5000/a/b",
	} {
		places, err := c.Places(parse(t, name))
		got := []string{}
		for _, p := range places {
			s := p.String()
			if p.Insecure {
				s += "!"
			}
			got = append(got, s)
		}
		if errors.Is(err, ErrBlocked) {
			got = []string{"blocked"}
		} else if err != nil {
			t.Error(name, err)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", name, s, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	c, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"debian:12":        "docker.io/library/debian:12 registry.example.com/debian:12",
		"a/b":              "docker.io/a/b registry.example.com/a/b",
		"app:v1":           "registry.example.com/team/app:v1",
		"docker.io/x":      "docker.io/library/x",
		"localhost/x":      "localhost/x",
		"h:5000/x":         "h:5000/x",
		"localhost:5000/x": "localhost:5000/x",
	} {
		refs, err := c.Candidates(name)
		got := []string{}
		for _, r := range refs {
			got = append(got, r.String())
		}
		if s := strings.Join(got, " "); err != nil || s != want {
			t.Errorf("%s: %s, %v, want %s", name, s, err, want)
		}
	}
	if _, err := c.Candidates("UPPER"); err == nil {
		t.Error("took a bad name")
	}
	empty, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if refs, err := empty.Candidates("debian"); err != nil || len(refs) != 1 || refs[0].String() != "docker.io/library/debian" {
		t.Error(refs, err)
	}
}

// Later files count over earlier ones, registry by registry.
func TestSeveralFiles(t *testing.T) {
	c, err := load(t, example, "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n[aliases]\nx = \"h.example/x\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Places(parse(t, "debian")); !errors.Is(err, ErrBlocked) {
		t.Error(err)
	}
	if p, err := c.Places(parse(t, "team/app")); err != nil || p[0].Host != "internal.lan" {
		t.Error(p, err)
	}
	if len(c.Search) != 2 || len(c.Aliases) != 2 {
		t.Error(c.Search, c.Aliases)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"[[registry]]\nlocation = 5":                                                          "line 2",
		"[[registry]]\nblocked = true":                                                        "registry 1",
		"[registries.search]\nregistries = ['docker.io']":                                     "version 1",
		"[[registry]]\nlocation = 'https://x'":                                                "scheme",
		"[[registry]]\nprefix = '*.x/y'\nlocation='z'":                                        "wildcard",
		"[[registry]]\nlocation='x'\n[[registry.mirror]]\nlocation":                           "line 4",
		"[[registry]]\nlocation='x'\n[[registry.mirror]]\n":                                   "mirror",
		"[[registry]]\nlocation='x'\n[[registry.mirror]]\nlocation='m'\npull-from-mirror='x'": "pull-from-mirror",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registries.conf") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := Load("/nonexistent/registries.conf"); err == nil {
		t.Error("took a file that is not there")
	}
}

func TestFiles(t *testing.T) {
	home := t.TempDir()
	for _, file := range []string{"registries.conf", "registries.conf.d/b.conf", "registries.conf.d/a.conf", "registries.conf.d/x"} {
		path := filepath.Join(home, ".config/containers", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"HOME": home}
	files, err := Files(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(strings.Join(files, " "), home+"/.config/containers/", "~")
	if !strings.HasPrefix(got, "~registries.conf") || !strings.HasSuffix(got, " ~registries.conf.d/a.conf ~registries.conf.d/b.conf") {
		t.Error(got)
	}
	env["CONTAINERS_REGISTRIES_CONF"] = "/x"
	if files, err := Files(func(k string) string { return env[k] }); err != nil || len(files) != 1 || files[0] != "/x" {
		t.Error(files, err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(example, "debian:12")
	f.Add("[[registry]]\nprefix='*.a'\ninsecure=true", "x.a/b@sha256:"+strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, text, name string) {
		c := &Config{Aliases: map[string]string{}}
		if c.parse([]byte(text)) != nil {
			return
		}
		refs, err := c.Candidates(name)
		if err != nil {
			return
		}
		for _, ref := range refs {
			places, err := c.Places(ref)
			if err == nil && len(places) == 0 {
				t.Errorf("%s is nowhere", ref)
			}
			for _, p := range places {
				if err := distribution.ValidateName(p.Name); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
