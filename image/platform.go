package image

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A platform is written OS/ARCH or OS/ARCH/VARIANT, with the names of GOOS and
// GOARCH (image-index.md, "Platform Variants"). Either half may be left out
// and is then this machine's: "linux", "arm64", "arm/v7".

// oses are the values of GOOS that an image may be for.
var oses = [...]string{
	"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux",
	"netbsd", "openbsd", "plan9", "solaris", "wasip1", "wasi", "windows", "zos", "hurd",
}

// arches are the values of GOARCH and what else people call them.
var arches = [...]struct {
	name    string
	aliases []string
}{
	{"386", []string{"i386", "i486", "i586", "i686"}},
	{"amd64", []string{"x86_64", "x86-64"}},
	{"arm", nil},
	{"arm64", []string{"aarch64"}},
	{"loong64", []string{"loongarch64"}},
	{"mips", nil},
	{"mips64", nil},
	{"mips64le", []string{"mips64el"}},
	{"mipsle", []string{"mipsel"}},
	{"ppc64", nil},
	{"ppc64le", []string{"ppc64el", "powerpc64le"}},
	{"riscv64", nil},
	{"s390x", nil},
	{"sparc64", nil},
	{"wasm", nil},
}

// HostPlatform is the platform of this machine. It names no amd64 level: the
// image chosen is then the same on every machine of the architecture.
func HostPlatform() v1.Platform {
	return NormalizePlatform(v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatform reads what PlatformString writes, and the short and
// unnormalised forms that people type.
func ParsePlatform(s string) (v1.Platform, error) {
	parts := strings.Split(s, "/")
	host := HostPlatform()
	var p v1.Platform
	switch {
	case len(parts) == 3:
		p = v1.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	case len(parts) == 2 && knownArch(parts[0]):
		p = v1.Platform{OS: host.OS, Architecture: parts[0], Variant: parts[1]}
	case len(parts) == 2:
		p = v1.Platform{OS: parts[0], Architecture: parts[1]}
	case len(parts) == 1 && knownArch(s):
		p = v1.Platform{OS: host.OS, Architecture: s}
	case len(parts) == 1:
		p = v1.Platform{OS: s, Architecture: host.Architecture, Variant: host.Variant}
	}
	p = NormalizePlatform(p)
	switch {
	case len(parts) > 3:
		return v1.Platform{}, fmt.Errorf("parse platform %s: more than OS/ARCH/VARIANT", quote(s))
	case !slices.Contains(oses[:], p.OS):
		return v1.Platform{}, fmt.Errorf("parse platform %s: unknown operating system or architecture %s", quote(s), quote(p.OS))
	case !knownArch(p.Architecture):
		return v1.Platform{}, fmt.Errorf("parse platform %s: unknown architecture %s", quote(s), quote(p.Architecture))
	case len(parts) > 1 && parts[len(parts)-1] == "" || !plainName(p.Variant):
		return v1.Platform{}, fmt.Errorf("parse platform %s: bad variant", quote(s))
	}
	return p, nil
}

// PlatformString writes p as OS/ARCH or OS/ARCH/VARIANT. What comes from an
// index may be anything, and is quoted where it is not a plain name.
func PlatformString(p v1.Platform) string {
	parts := []string{p.OS, p.Architecture}
	if p.Variant != "" {
		parts = append(parts, p.Variant)
	}
	for i, part := range parts {
		if part == "" || !plainName(part) {
			parts[i] = quote(part)
		}
	}
	return strings.Join(parts, "/")
}

// plainName says whether s can stand in a platform as it is. Empty can.
func plainName(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return len(s) <= 64
}

func knownArch(s string) bool {
	s, _ = normalArch(s)
	for _, a := range arches {
		if a.name == s {
			return true
		}
	}
	return false
}

// normalArch is GOARCH's name for an architecture, and the variant that some
// names imply.
func normalArch(s string) (name, variant string) {
	s = strings.ToLower(s)
	switch s {
	case "armhf":
		return "arm", "v7"
	case "armel":
		return "arm", "v6"
	}
	for _, a := range arches {
		if slices.Contains(a.aliases, s) {
			return a.name, ""
		}
	}
	return s, ""
}

// NormalizePlatform gives every way to write a platform one form: lower case,
// GOOS and GOARCH, no variant where it is the architecture's baseline (amd64
// v1, arm64 v8), and v7 where arm has none, which is what an unmarked arm
// image means in practice.
func NormalizePlatform(p v1.Platform) v1.Platform {
	p.OS = strings.ToLower(p.OS)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	var implied string
	p.Architecture, implied = normalArch(p.Architecture)
	p.Variant = strings.ToLower(p.Variant)
	if p.Variant == "" {
		p.Variant = implied
	}
	switch p.Architecture {
	case "amd64", "arm64", "arm":
		if _, err := strconv.ParseUint(p.Variant, 10, 8); err == nil {
			p.Variant = "v" + p.Variant
		}
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1", p.Architecture == "arm64" && p.Variant == "v8":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return p
}

// variants lists the variants that run on a processor of p, the best first.
// Those of amd64, arm and arm64 each include the ones below.
func variants(p v1.Platform) []string {
	list := []string{p.Variant}
	var lowest, level int
	switch p.Architecture {
	case "amd64":
		lowest, level = 1, 1
	case "arm":
		lowest = 5
	case "arm64":
		lowest, level = 8, 8
	default:
		return list
	}
	if p.Variant != "" {
		major, _, _ := strings.Cut(strings.TrimPrefix(p.Variant, "v"), ".")
		n, err := strconv.ParseUint(major, 10, 5)
		if err != nil {
			return list
		}
		level = int(n)
	}
	for ; level >= lowest; level-- {
		p.Variant = fmt.Sprintf("v%d", level)
		if v := NormalizePlatform(p).Variant; !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// MatchPlatform says whether what is built for have runs on want, and how
// well: 0 is a perfect match, a higher rank a worse one, -1 none.
func MatchPlatform(want, have v1.Platform) (rank int) {
	want, have = NormalizePlatform(want), NormalizePlatform(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return -1
	}
	if want.OSVersion != "" && want.OSVersion != have.OSVersion {
		return -1
	}
	for _, need := range have.OSFeatures {
		if !slices.Contains(want.OSFeatures, need) {
			return -1
		}
	}
	return slices.Index(variants(want), have.Variant)
}
