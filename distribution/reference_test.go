package distribution

import (
	"errors"
	"strings"
	"testing"
)

const (
	sha = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func TestParseReference(t *testing.T) {
	for _, c := range []struct{ in, want, familiar, api, target string }{
		{"debian", "docker.io/library/debian", "debian", "registry-1.docker.io", "latest"},
		{"debian:12", "docker.io/library/debian:12", "debian:12", "registry-1.docker.io", "12"},
		{"debian@" + sha, "docker.io/library/debian@" + sha, "debian@" + sha, "registry-1.docker.io", sha},
		{"debian:12@" + sha, "docker.io/library/debian:12@" + sha, "debian:12@" + sha, "registry-1.docker.io", sha},
		{"a/b", "docker.io/a/b", "a/b", "registry-1.docker.io", "latest"},
		{"docker.io/debian", "docker.io/library/debian", "debian", "registry-1.docker.io", "latest"},
		{"index.docker.io/library/debian", "docker.io/library/debian", "debian", "registry-1.docker.io", "latest"},
		{"localhost/x", "localhost/x", "localhost/x", "localhost", "latest"},
		{"localhost:5000/x", "localhost:5000/x", "localhost:5000/x", "localhost:5000", "latest"},
		{"localhost:5000/x:5000", "localhost:5000/x:5000", "localhost:5000/x:5000", "localhost:5000", "5000"},
		{"Registry.Example/x", "registry.example/x", "registry.example/x", "registry.example", "latest"},
		{"ghcr.io/a/b/c:v1.2_3-4", "ghcr.io/a/b/c:v1.2_3-4", "ghcr.io/a/b/c:v1.2_3-4", "ghcr.io", "v1.2_3-4"},
		{"[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000", "1"},
		{"[0:0:0:0::1]/x", "[::1]/x", "[::1]/x", "[::1]", "latest"},
		{"a__b/c--d/e.f", "docker.io/a__b/c--d/e.f", "a__b/c--d/e.f", "registry-1.docker.io", "latest"},
	} {
		r, err := ParseReference(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if r.String() != c.want || r.Familiar() != c.familiar || r.APIHost() != c.api || r.Target() != c.target {
			t.Errorf("%s: %s, %s, %s, %s", c.in, r, r.Familiar(), r.APIHost(), r.Target())
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":", "@", "/", "a:", "a@", "a@sha256:12", "A", "a/B", "Registry/x", "localHost/x", "debian:-x", "debian:" + strings.Repeat("x", 129),
		"http://x.io/a", "x.io//a", "x.io/a/", "/a", "a b", "a\x00", "-a.io/x", "a-.io/x", "x..io/a", "x.io:/a", "x.io:0/a",
		"x.io:65536/a", "x.io:+80/a", "x.io:080/a", "[::1/a", "[1.2.3.4]/a", "[fe80::1%eth0]/a", "::1/a", "a/-b", "a/b-", "a/b_", "a/_b",
		"a/b___c", "a/b..c", "a/b._c", hex, hex + ":x", "x.io/" + strings.Repeat("a", 256), strings.Repeat("a", 5000),
		"x.io/a@sha256:" + strings.ToUpper(hex), "x.io/a@md5:d41d8cd98f00b204e9800998ecf8427e", "x.io/a@" + sha + "@" + sha, "x.io/..", "x.io/a/../b",
	} {
		if r, err := ParseReference(in); !errors.Is(err, ErrInvalidReference) {
			t.Errorf("%q: %v, %v", in, r, err)
		} else if len(err.Error()) > 1500 {
			t.Errorf("%.20q: error of %d bytes", in, len(err.Error()))
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"debian", "localhost:5000/a/b:c@" + sha, "[::1]:1/x", "X/y", "a/b/c", "docker.io/library/a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		if r.Host == "" || ValidateName(r.Name) != nil {
			t.Fatalf("%q: %+v", s, r)
		}
		back, err := ParseReference(r.String())
		if err != nil || back != r {
			t.Fatalf("%q: %+v, back %+v, %v", s, r, back, err)
		}
		if back, err := ParseReference(r.Familiar()); err != nil || back != r {
			t.Fatalf("%q: familiar %q: %+v, %v", s, r.Familiar(), back, err)
		}
		p := Endpoint{Route: RouteManifest, Name: r.Name, Argument: r.Target()}
		if e, err := ParsePath(p.Path()); err != nil || e != p {
			t.Fatalf("%q: path %s: %+v, %v", s, p.Path(), e, err)
		}
	})
}
