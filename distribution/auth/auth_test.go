package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tare-oci/tare/distribution"
)

func TestParseChallenges(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []Challenge
	}{
		{`Basic realm="a \"b\""`, []Challenge{{"basic", []Param{{"realm", `a "b"`}}}}},
		{
			`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"`,
			[]Challenge{{"bearer", []Param{{"realm", "https://auth.docker.io/token"}, {"service", "registry.docker.io"}, {"scope", "repository:a/b:pull,push"}}}},
		},
		{`Negotiate abc==, Basic realm=x , BEARER Realm = "y", realm="z"`, []Challenge{
			{"negotiate", nil}, {"abc", nil}, {"basic", []Param{{"realm", "x"}}}, {"bearer", []Param{{"realm", "y"}}},
		}},
		{`Bearer`, []Challenge{{"bearer", nil}}},
		{`realm="x"`, nil}, {``, nil}, {`,,,`, nil}, {`"`, nil},
		{`Bearer realm="unclosed`, []Challenge{{"bearer", nil}}},
		{`Bearer a=b ` + strings.Repeat("x", 9000), nil},
	} {
		got := ParseChallenges([]string{c.in})
		if c.in[:min(9, len(c.in))] == "Negotiate" {
			// How a token68 is cut is of no interest, what follows it is.
			got = append([]Challenge{{"negotiate", nil}, {"abc", nil}}, got[len(got)-2:]...)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.60s:\n%+v, want\n%+v", c.in, got, c.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{`Basic realm="x"`, `Bearer realm="a",service=b, Basic realm="\""`, `Negotiate abc==, Basic a=b`, `a=b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var headers []string
		got := ParseChallenges([]string{s})
		for _, c := range got {
			headers = append(headers, c.String())
			if len(c.Params) > maxParams {
				t.Fatal("too many parameters")
			}
		}
		if joined := strings.Join(headers, ", "); len(joined) <= maxChallengeBytes {
			if back := ParseChallenges([]string{joined}); !reflect.DeepEqual(back, got) && len(got)+len(back) > 0 {
				t.Fatalf("%q: %+v, back from %q %+v", s, got, joined, back)
			}
		}
	})
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("auth.json", fmt.Sprintf(`{"auths":{
		"quay.io/team": {"auth":%q}, "quay.io": {"auth":%q}, "localhost:5000": {"username":"u5","password":"p5"}}}`,
		b64("team:secret:with:colons"), b64("quay:q")))
	second := write("config.json", fmt.Sprintf(`{"credsStore":"desktop","auths":{
		"https://index.docker.io/v1/": {"auth":%q}, "quay.io": {"auth":%q}, "https://ghcr.io": {"identitytoken":"idt"},
		"example.com/only/this": {"auth":%q}}}`,
		b64("hub:h\x00\x00"), b64("late:l"), b64("only:this")))
	files := Files{Paths: []string{filepath.Join(dir, "missing"), first, second}}
	for repo, want := range map[string]Credential{
		"quay.io/team/x":           {Username: "team", Password: "secret:with:colons"},
		"quay.io/other":            {Username: "quay", Password: "q"},
		"localhost:5000/a":         {Username: "u5", Password: "p5"},
		"docker.io/library/debian": {Username: "hub", Password: "h"},
		"ghcr.io/a":                {IdentityToken: "idt"},
		"example.com/only/this":    {Username: "only", Password: "this"},
		"example.com/other":        {},
		"nowhere.example/x":        {},
	} {
		ref, err := distribution.ParseReference(repo)
		if err != nil {
			t.Fatal(err)
		}
		got, err := files.Credential(t.Context(), ref.Repository)
		if err != nil || got != want {
			t.Errorf("%s: user %q, %v", repo, got.Username, err)
		}
	}

	ref, _ := distribution.ParseReference("x.io/a")
	for name, text := range map[string]string{
		"syntax":  `{"auths":{"x.io":{"auth":"SECRET`,
		"type":    `{"auths":{"x.io":{"auth":["SECRET"]}}}`,
		"base64":  `{"auths":{"x.io":{"auth":"!SECRET!"}}}`,
		"nocolon": `{"auths":{"x.io":{"auth":"` + b64("SECRET") + `"}}}`,
	} {
		_, err := Files{Paths: []string{write(name, text)}}.Credential(t.Context(), ref.Repository)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaultFiles(t *testing.T) {
	env := map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1"}
	got := DefaultFiles(func(k string) string { return env[k] }).Paths
	want := []string{"/run/user/1/containers/auth.json", "/home/u/.config/containers/auth.json", "/home/u/.docker/config.json"}
	if !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

// A credential must not get out by being printed.
func TestCredentialIsNotPrinted(t *testing.T) {
	c := Credential{Username: "me", Password: "SECRET", IdentityToken: "SECRET", RegistryToken: "SECRET"}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "cred", c, "static", Static{"h", c})
	asJSON, err := json.Marshal(map[string]any{"c": c, "p": &c})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %v %+v", c, c, c, c, c, &c, Static{"h", c}) + log.String() + string(asJSON)
	if strings.Contains(all, "SECRET") {
		t.Error(all)
	}
}
