package config

import (
	"strings"
	"testing"

	"github.com/tare-oci/tare/distribution/server/storage"
)

func TestCheckRetention(t *testing.T) {
	for text, want := range map[string]string{
		"[[retention]]\nrepositories=['a/**']\nkeep-newest=3\nuntagged='7d'": "",
		"[[retention]]\nrepositories=['a/**']\nkeep-younger='30d'":           "",
		"[[retention]]\nrepositories=['a/**']":                               "retention rule 1: needs keep-newest",
		"[[retention]]\nkeep-newest=3":                                       "needs repositories",
		"[[retention]]\nrepositories=['a']\nkeep-newest=-1":                  "0 or more",
		"[[retention]]\nrepositories=['a']\nkeep-tags=['v*']":                "keep-newest (0 for none)",
		"[[retention]]\nrepositories=['a']\nkeep-newest=1\nkeep-tags=['']":   "bad pattern",
	} {
		checkText(t, text, want)
	}
}

// The first rule that covers a repository counts.
func TestRetentionOf(t *testing.T) {
	c, err := Parse("x", []byte("[[retention]]\nrepositories=['a/*']\nkeep-newest=0\nkeep-tags=['v*']\n[[retention]]\nrepositories=['**']\nuntagged='9d'"))
	if err != nil {
		t.Fatal(err)
	}
	if r := c.RetentionOf("a/b"); r.KeepNewest != 0 || !r.KeepTag("v1") || r.KeepTag("x") {
		t.Errorf("%+v", r)
	}
	if r := c.RetentionOf("a/b/c"); r.KeepNewest >= 0 || r.Untagged != 9*day {
		t.Errorf("%+v", r)
	}
	c.Retention = c.Retention[:1]
	if r := c.RetentionOf("b"); r != nil {
		t.Errorf("%+v", r)
	}
}

func TestQuotaOf(t *testing.T) {
	for text, want := range map[string]string{
		"[[quota]]\nnamespaces=['a','b/*']\nsize='10GB'": "",
		"[[quota]]\nsize='10GB'":                         "quota rule 1: needs namespaces",
		"[[quota]]\nnamespaces=['a']":                    "needs a size",
		"[[quota]]\nnamespaces=['']\nsize=1":             "bad pattern",
	} {
		checkText(t, text, want)
	}
	c, err := Parse("x", []byte("[[quota]]\nnamespaces=['team/*','ci']\nsize=10\n[[quota]]\nnamespaces=['*']\nsize=20"))
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]storage.Quota{
		"ci": {Namespace: "ci", LimitBytes: 10}, "ci/a/b": {Namespace: "ci", LimitBytes: 10}, "team/a": {Namespace: "team/a", LimitBytes: 10},
		"team/a/b": {Namespace: "team/a", LimitBytes: 10}, "team": {Namespace: "team", LimitBytes: 20}, "other/x": {Namespace: "other", LimitBytes: 20},
	} {
		if got, ok := c.QuotaOf(repo); got != want || !ok {
			t.Errorf("%s: %+v", repo, got)
		}
	}
	c.Quota = c.Quota[:1]
	if got, ok := c.QuotaOf("team"); ok {
		t.Errorf("%+v", got)
	}
}

func TestCheckScrub(t *testing.T) {
	for text, want := range map[string]string{
		"[scrub]\nrate='10MiB'\ninterval='0s'\n[storage]\nverify-on-read=true":           "",
		"[storage]\nlocation='s3://b'\nverify-on-read=true\n[storage.s3]\nredirect=true": "storage.verify-on-read",
	} {
		checkText(t, text, want)
	}
}

func TestCheckToken(t *testing.T) {
	token := func(change, to string) string {
		return strings.Replace("[auth.token]\nrealm='https://a.b/token'\nservice='s'\nissuer='i'\nkeys='k'", change, to, 1)
	}
	for text, want := range map[string]string{
		"[http]\naddr=':5000'\n" + token("", ""):             "",
		token("issuer='i'", ""):                              "auth.token.issuer: is not set",
		token("keys='k'", "keys='https://a.b/jwks'\nca='x'"): "",
		token("keys='k'", "keys='http://a.b/jwks'"):          "auth.token.keys: must be https",
		token("keys='k'", "keys='k'\nca='x'"):                "is no URL",
		token("keys='k'", ""):                                "auth.token.keys: is not set",
		token("service='s'", "service='a\"b'"):               "quotes",
		token("https://a.b/token", "http://a.b/token"):       "must be https",
		token("https://a.b/token", "http://[::1]:9/token"):   "",
		token("https://a.b/token", "a.b/token"):              "is no URL",
	} {
		checkText(t, text, want)
	}
}

func TestCheckRate(t *testing.T) {
	for text, want := range map[string]string{
		"[rate]\nrequests=5\nbytes='1MiB'\n[http]\ntrusted-proxies=['10.1.2.3/8','::1','fd00::/8']": "",
		"[rate]\nrequests=-1":                           "rate.requests",
		"[rate]\nburst=5":                               "needs rate.requests",
		"[rate]\nbytes=100":                             "at least 16KiB",
		"[http]\ntrusted-proxies=['10.0.0.0/40']":       "neither an address nor a network",
		"[http]\ntrusted-proxies=['proxy.example.com']": "http.trusted-proxies",
	} {
		checkText(t, text, want)
	}
}
