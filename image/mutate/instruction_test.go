package mutate_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/mutate"
)

func TestParseInstructions(t *testing.T) {
	for text, want := range map[string]string{
		`CMD ["a", "b c"]`:                   `{"Cmd":["a","b c"]}`,
		`cmd echo $A`:                        `{"Cmd":["/bin/sh","-c","echo $A"]}`,
		`CMD []`:                             `{}`,
		`ENTRYPOINT ["a"]`:                   `{"Entrypoint":["a"]}`,
		"ENTRYPOINT [\"a\"]\nCMD b":          `{"Entrypoint":["a"],"Cmd":["/bin/sh","-c","b"]}`,
		`ENV A=1 B="two words" C=a\ b D='\'`: `{"Env":["A=1","B=two words","C=a b","D=\\"],"Cmd":["old"]}`,
		`ENV A the rest of it`:               `{"Env":["A=the rest of it"],"Cmd":["old"]}`,
		`EXPOSE 80 53/udp`:                   `{"ExposedPorts":{"53/udp":{},"80/tcp":{}},"Cmd":["old"]}`,
		`LABEL "a b"=c d=e`:                  `{"Cmd":["old"],"Labels":{"a b":"c","d":"e"}}`,
		`USER me:us`:                         `{"User":"me:us","Cmd":["old"]}`,
		`VOLUME ["/a b", "/c"]`:              `{"Cmd":["old"],"Volumes":{"/a b":{},"/c":{}}}`,
		`VOLUME /a /c`:                       `{"Cmd":["old"],"Volumes":{"/a":{},"/c":{}}}`,
		"WORKDIR /a\nWORKDIR b":              `{"Cmd":["old"],"WorkingDir":"/a/b"}`,
		`STOPSIGNAL SIGINT`:                  `{"Cmd":["old"],"StopSignal":"SIGINT"}`,
	} {
		edits, err := mutate.ParseInstructions(strings.Split(text, "\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		img := v1.Image{Config: v1.ImageConfig{Cmd: []string{"old"}}}
		for _, e := range edits {
			e(&img)
		}
		if got, _ := json.Marshal(img.Config); string(got) != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "CMD", "RUN true", "FROM x", "ENV A", `ENV A="1`, "USER a b", "EXPOSE x/y/z", "VOLUME []", "LABEL ="} {
		if _, err := mutate.ParseInstructions([]string{text}); err == nil || !strings.Contains(err.Error(), "instruction") {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// FuzzParseInstructions: whatever the text, there are edits or an error, and the edits can be made.
func FuzzParseInstructions(f *testing.F) {
	for _, s := range []string{`CMD ["a"]`, `ENV A=1 B="2"`, `LABEL a=b`, `EXPOSE 1`, `WORKDIR ..`, `ENTRYPOINT x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		edits, err := mutate.ParseInstructions([]string{text})
		if err != nil {
			return
		}
		var img v1.Image
		for _, e := range edits {
			e(&img)
		}
	})
}
