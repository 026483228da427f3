package transport

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Location{
		"debian:12":                              {Plain, "", "debian:12"},
		"docker:27":                              {Plain, "", "docker:27"},
		"127.0.0.1:5000/a/b@sha256:00":           {Plain, "", "127.0.0.1:5000/a/b@sha256:00"},
		"docker://debian:12":                     {Registry, "", "debian:12"},
		"oci:/a/b":                               {Layout, "/a/b", ""},
		"oci:/a/b:127.0.0.1:5000/x:latest":       {Layout, "/a/b", "127.0.0.1:5000/x:latest"},
		"oci-archive:x.tar:v1":                   {OCIArchive, "x.tar", "v1"},
		"docker-archive:x.tar:localhost/x:v1":    {DockerArchive, "x.tar", "localhost/x:v1"},
		"docker-archive:x.tar":                   {DockerArchive, "x.tar", ""},
		"dir:/a:b":                               {Dir, "/a:b", ""},
		"oci-archive-of-mine:v1":                 {Plain, "", "oci-archive-of-mine:v1"},
		"docker.io/library/oci:latest":           {Plain, "", "docker.io/library/oci:latest"},
		"docker://registry.example.com:5000/a/b": {Registry, "", "registry.example.com:5000/a/b"},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", s, got, err, want)
		}
		if got.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, got.String())
		}
	}
	for s, want := range map[string]string{
		"":                     "empty",
		"oci:":                 "nothing after",
		"oci::v1":              "nothing after",
		"dir:":                 "nothing after",
		"docker://":            "nothing after",
		"docker-daemon:a:b":    "docker save",
		"containers-storage:a": "podman save",
		"docker:/debian":       "docker://REF",
		"dir:a\x00b":           "NUL",
	} {
		if got, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %+v, %v; want an error with %q", s, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range Prefixes() {
		f.Add(p + "a:b:c")
	}
	f.Add("debian")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(l.String())
		if err != nil || again != l {
			t.Errorf("%q is %+v, which prints %q and is then %+v, %v", s, l, l.String(), again, err)
		}
	})
}
