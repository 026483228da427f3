package distribution

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// UploadRange is the range of an upload's chunk, "first-last", both inclusive:
// the Content-Range of a PATCH or PUT, and the Range of an upload's status
// (where first is 0). It is not HTTP's byte range, which has a unit.
type UploadRange struct{ First, Last int64 }

// ParseUploadRange reads ^[0-9]+-[0-9]+$.
func ParseUploadRange(s string) (UploadRange, error) {
	a, b, ok := strings.Cut(s, "-")
	first, ok1 := parseOffset(a)
	last, ok2 := parseOffset(b)
	if !ok || !ok1 || !ok2 || last < first {
		return UploadRange{}, fmt.Errorf("range %q: want first-last", clip(s))
	}
	return UploadRange{first, last}, nil
}

func (r UploadRange) String() string {
	return strconv.FormatInt(r.First, 10) + "-" + strconv.FormatInt(r.Last, 10)
}

// ContentRange is HTTP's Content-Range of a 206 answer (RFC 9110, 14.4):
// "bytes first-last/size", size -1 when the server says "*".
type ContentRange struct{ First, Last, Size int64 }

// ParseContentRange reads a Content-Range of a satisfied request.
func ParseContentRange(s string) (ContentRange, error) {
	bad := fmt.Errorf("Content-Range %q: want bytes first-last/size", clip(s))
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return ContentRange{}, bad
	}
	r, err := ParseUploadRange(span)
	if err != nil {
		return ContentRange{}, bad
	}
	c := ContentRange{First: r.First, Last: r.Last, Size: -1}
	if size != "*" {
		if c.Size, ok = parseOffset(size); !ok || c.Last >= c.Size {
			return ContentRange{}, bad
		}
	}
	return c, nil
}

func (c ContentRange) String() string {
	size := "*"
	if c.Size >= 0 {
		size = strconv.FormatInt(c.Size, 10)
	}
	return "bytes " + UploadRange{c.First, c.Last}.String() + "/" + size
}

// Warning is the Warning header of a registry that has something to say to people
// (Distribution Spec, "Warnings"). Text is to have no line breaks.
func Warning(text string) string {
	return warningPrefix + `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

const warningPrefix = "299 - "

// ParseWarning reads what Warning makes; ok is false for warnings with another code,
// agent or with a date, which are not meant for people. Control characters and length
// are tamed, as the text comes from a registry.
func ParseWarning(header string) (text string, ok bool) {
	quoted, ok := strings.CutPrefix(strings.TrimSpace(header), warningPrefix)
	if !ok || len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(quoted); i++ {
		switch c := quoted[i]; {
		case c == '"':
			return clean(b.String()), i == len(quoted)-1
		case c == '\\' && i+1 < len(quoted):
			i++
			b.WriteByte(quoted[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func parseOffset(s string) (int64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false // ParseInt would take a sign
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// NextLink is the Link header (RFC 8288) that says where a list goes on.
func NextLink(u *url.URL) string { return "<" + u.RequestURI() + `>; rel="next"` }

// ParseNextLink finds the target of rel="next" among Link headers; "" when
// there is none.
func ParseNextLink(headers []string) string {
	for _, header := range headers {
		_, rest, more := strings.Cut(header, "<")
		for more {
			target, params, ok := strings.Cut(rest, ">")
			if !ok {
				break
			}
			params, rest, more = strings.Cut(params, "<")
			if isNext(params) {
				return target
			}
		}
	}
	return ""
}

func isNext(params string) bool {
	params = strings.TrimRight(params, ", \t") // what parts it from the next link
	for p := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(strings.TrimSpace(key), "rel") &&
			strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next") {
			return true
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
