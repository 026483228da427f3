package image_test

import (
	"reflect"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

func TestParsePlatform(t *testing.T) {
	host := image.PlatformString(image.HostPlatform())
	arch := strings.TrimPrefix(host, "linux/")
	for in, want := range map[string]string{
		"linux/arm/v7":   "linux/arm/v7",
		"linux/arm":      "linux/arm/v7",
		"linux/armhf":    "linux/arm/v7",
		"linux/armel":    "linux/arm/v6",
		"arm/6":          runtime.GOOS + "/arm/v6",
		"arm64":          runtime.GOOS + "/arm64",
		"linux":          "linux/" + arch,
		"Linux/AArch64":  "linux/arm64",
		"linux/arm64/v8": "linux/arm64",
		"linux/arm64/v9": "linux/arm64/v9",
		"x86_64":         runtime.GOOS + "/amd64",
		"linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3",
		"i686":           runtime.GOOS + "/386",
		"linux/ppc64el":  "linux/ppc64le",
		"windows/amd64":  "windows/amd64",
		"macos/arm64":    "darwin/arm64",
	} {
		p, err := image.ParsePlatform(in)
		if err != nil || image.PlatformString(p) != want {
			t.Errorf("%q: %q, %v, want %q", in, image.PlatformString(p), err, want)
		}
	}
	for _, in := range []string{"", "/", "linux/", "linux/arm/", "lunix", "linux/foo", "foo/arm64", "linux/arm/v7/x", "linux/arm/v 7", "linux/amd64/\x1b[m", "unknown/unknown"} {
		if p, err := image.ParsePlatform(in); err == nil {
			t.Errorf("%q: accepted as %+v", in, p)
		}
	}
}

func TestPlatformStringQuotes(t *testing.T) {
	got := image.PlatformString(v1.Platform{OS: "linux\x1b[2J", Architecture: "", Variant: "v1"})
	if want := `"linux\x1b[2J"/""/v1`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestMatchPlatform(t *testing.T) {
	for _, c := range []struct {
		want, have string
		rank       int
	}{
		{"linux/amd64", "linux/amd64", 0},
		{"linux/amd64", "linux/x86_64/v1", 0},
		{"linux/amd64", "linux/amd64/v2", -1},
		{"linux/amd64/v3", "linux/amd64/v3", 0},
		{"linux/amd64/v3", "linux/amd64/v2", 1},
		{"linux/amd64/v3", "linux/amd64", 2},
		{"linux/amd64/v3", "linux/amd64/v4", -1},
		{"linux/arm/v7", "linux/arm", 0},
		{"linux/arm/v7", "linux/arm/v6", 1},
		{"linux/arm/v7", "linux/arm/v5", 2},
		{"linux/arm/v6", "linux/arm/v7", -1},
		{"linux/arm/v8", "linux/arm/v7", 1},
		{"linux/arm64", "linux/arm64/v8", 0},
		{"linux/arm64/v9", "linux/arm64", 1},
		{"linux/arm64/v8.2", "linux/arm64", 1},
		{"linux/arm64", "linux/arm64/v9", -1},
		{"linux/arm64", "linux/arm", -1},
		{"linux/amd64", "windows/amd64", -1},
		{"linux/riscv64/x", "linux/riscv64/x", 0},
	} {
		want, err1 := image.ParsePlatform(c.want)
		have, err2 := image.ParsePlatform(c.have)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if got := image.MatchPlatform(want, have); got != c.rank {
			t.Errorf("%s on %s: rank %d, want %d", c.have, c.want, got, c.rank)
		}
	}
	linux := v1.Platform{OS: "linux", Architecture: "amd64"}
	special := linux
	special.OSFeatures = []string{"erofs"}
	if image.MatchPlatform(linux, special) >= 0 {
		t.Error("an image was taken that needs a feature we don't have")
	}
	win := v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.1"}
	if image.MatchPlatform(win, v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.2"}) >= 0 {
		t.Error("an image was taken for another version")
	}
}

func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"linux/arm/v7", "arm64", "linux", "armhf/v6", "windows/x86-64", "a/b/c/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return
		}
		written := image.PlatformString(p)
		again, err := image.ParsePlatform(written)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q is %+v, written %q, which is %+v, %v", s, p, written, again, err)
		}
		if rank := image.MatchPlatform(p, p); rank != 0 {
			t.Fatalf("%q does not match itself: %d", s, rank)
		}
	})
}
