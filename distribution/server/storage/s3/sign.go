package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credentials are those of an account that may use the bucket.
type Credentials struct {
	AccessKey, SecretKey string
	SessionToken         string // of temporary ones, else empty
}

// signer implements AWS Signature Version 4, by header and by query.
type signer struct {
	credentials Credentials
	region      string
}

const (
	algorithm   = "AWS4-HMAC-SHA256"
	timeFormat  = "20060102T150405Z"
	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// sign adds the Authorization header. hash is the body's SHA-256 in hex.
func (s signer) sign(r *http.Request, hash string, now time.Time) {
	r.Header.Set("X-Amz-Date", now.UTC().Format(timeFormat))
	r.Header.Set("X-Amz-Content-Sha256", hash)
	if s.credentials.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", s.credentials.SessionToken)
	}
	names := []string{"host"}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.URL.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	signed := strings.Join(names, ";")
	scope, signature := s.signature(r.Method, r.URL, headers.String(), signed, hash, now)
	r.Header.Set("Authorization", algorithm+" Credential="+s.credentials.AccessKey+"/"+scope+", SignedHeaders="+signed+", Signature="+signature)
}

// presign makes a URL that anybody can GET for some time.
func (s signer) presign(u url.URL, life time.Duration, now time.Time) string {
	query := url.Values{
		"X-Amz-Algorithm":     {algorithm},
		"X-Amz-Credential":    {s.credentials.AccessKey + "/" + s.scope(now)},
		"X-Amz-Date":          {now.UTC().Format(timeFormat)},
		"X-Amz-Expires":       {strconv.Itoa(int(life.Seconds()))},
		"X-Amz-SignedHeaders": {"host"},
	}
	if s.credentials.SessionToken != "" {
		query.Set("X-Amz-Security-Token", s.credentials.SessionToken)
	}
	u.RawQuery = canonicalQuery(query)
	_, signature := s.signature(http.MethodGet, &u, "host:"+u.Host+"\n", "host", "UNSIGNED-PAYLOAD", now)
	u.RawQuery += "&X-Amz-Signature=" + signature
	return u.String()
}

func (s signer) scope(now time.Time) string {
	return now.UTC().Format("20060102") + "/" + s.region + "/s3/aws4_request"
}

func (s signer) signature(method string, u *url.URL, headers, signed, hash string, now time.Time) (scope, signature string) {
	request := strings.Join([]string{method, u.EscapedPath(), u.RawQuery, headers, signed, hash}, "\n")
	scope = s.scope(now)
	sum := sha256.Sum256([]byte(request))
	text := strings.Join([]string{algorithm, now.UTC().Format(timeFormat), scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + s.credentials.SecretKey)
	for _, part := range strings.Split(scope, "/") {
		key = keyed(key, part)
	}
	return scope, hex.EncodeToString(keyed(key, text))
}

func keyed(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonicalQuery is url.Values.Encode with AWS's escapes.
func canonicalQuery(v url.Values) string {
	return strings.ReplaceAll(v.Encode(), "+", "%20")
}

// escapePath escapes all but what AWS leaves as it is.
func escapePath(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
