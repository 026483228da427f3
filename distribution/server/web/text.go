package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sizeText is a size as people write it, in decimal units as docker does.
func sizeText(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < len("kMGTPE") {
		value /= 1000
		unit++
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %cB", value, "kMGTPE"[unit-1])
	}
	return fmt.Sprintf("%.0f %cB", value, "kMGTPE"[unit-1])
}

func timeText(t *time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// typeText leaves out of the well-known media types what all of them have.
func typeText(mediaType string) string {
	for _, prefix := range []string{"application/vnd.oci.image.", "application/vnd.docker.image.", "application/vnd.docker.distribution."} {
		if rest, ok := strings.CutPrefix(mediaType, prefix); ok {
			return clip(strings.TrimSuffix(rest, "+json"))
		}
	}
	return clip(mediaType)
}

const shortDigits = 12

// shortDigest is enough of a digest to tell it from its neighbours. It may be one
// that nobody has validated.
func shortDigest(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return clip(algorithm) + ":" + encoded[:min(len(encoded), shortDigits)]
}

const maxTextBytes = 2000

// clip bounds a text from an image.
func clip(s string) string {
	if len(s) > maxTextBytes {
		s = s[:maxTextBytes] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func platformText(p *ocispec.Platform) string {
	if p == nil || p.OS == "" && p.Architecture == "" {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	for _, part := range []string{p.Variant, p.OSVersion} {
		if part != "" {
			s += "/" + part
		}
	}
	return clip(s)
}

// jsonText is a list of arguments, "" for none.
func jsonText(list []string) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes it
	if e.Encode(list) != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}
