package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// knownKeys are all field names, to tell where encoding/json would match a key in another case and we do not.
func knownKeys() map[string]bool {
	keys, seen := map[string]bool{}, map[reflect.Type]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if seen[t] {
				return
			}
			seen[t] = true
			for i := range t.NumField() {
				name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
				keys[name] = true
				walk(t.Field(i).Type)
			}
		}
	}
	walk(reflect.TypeFor[specs.Spec]())
	return keys
}

// foldsKey reports whether the document has a known key in another case.
func foldsKey(data []byte, known map[string]bool) bool {
	dec := json.NewDecoder(bytes.NewReader(data))
	inObject, isKey := []bool{false}, false
	for {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		switch delim, _ := tok.(json.Delim); delim {
		case '{', '[':
			inObject = append(inObject, delim == '{')
			isKey = delim == '{'
			continue
		case '}', ']':
			inObject = inObject[:len(inObject)-1]
		default:
			if s, ok := tok.(string); ok && isKey && !known[s] {
				for k := range known {
					if strings.EqualFold(s, k) {
						return true
					}
				}
			}
			if isKey {
				isKey = false
				continue
			}
		}
		isKey = inObject[len(inObject)-1]
	}
}

// compare decodes data with encoding/json and with ours: same value, or both an error.
func compare[T any](t *testing.T, data []byte, ours func([]byte) (*T, error)) {
	t.Helper()
	got, gotErr := ours(data)
	want := new(T)
	wantErr := json.Unmarshal(data, want)
	if (gotErr != nil) != (wantErr != nil) {
		t.Fatalf("%.300q:\nours: %v\nencoding/json: %v", data, gotErr, wantErr)
	}
	if gotErr == nil && !reflect.DeepEqual(got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Fatalf("%.300q:\nours: %s\nencoding/json: %s", data, g, w)
	}
	var e *Error
	if gotErr != nil && (!errors.As(gotErr, &e) || e.Offset < 0 || e.Offset > len(data)) {
		t.Fatalf("%.300q: %v: not an Error with an offset", data, gotErr)
	}
}

func testdata(t testing.TB, pattern string) map[string][]byte {
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(names))
	}
	files := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

// TestRealConfigs decodes what engines wrote, also cut off at every 29th byte and damaged in every 197th.
func TestRealConfigs(t *testing.T) {
	known := knownKeys()
	for name, data := range testdata(t, "*.json") {
		compare(t, data, Decode)
		if foldsKey(data, known) {
			t.Errorf("%s has a key that only matches without regard to case", name)
		}
		for cut := 0; cut < len(data); cut += 29 {
			compare(t, data[:cut], Decode)
		}
		for i := 0; i < len(data); i += 197 {
			bad := bytes.Clone(data)
			bad[i] ^= 0x11
			if !foldsKey(bad, known) {
				compare(t, bad, Decode)
			}
		}
	}
	for _, data := range testdata(t, "process/*.json") {
		compare(t, data, DecodeProcess)
	}
}

// filled sets every field reachable from v to something, so that an encoding of it has every key.
// Slices get so many elements.
func filled(v reflect.Value, n *int, elements int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem(), n, elements)
	case reflect.Struct:
		for i := range v.NumField() {
			filled(v.Field(i), n, elements)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), elements, elements))
		for i := range elements {
			filled(v.Index(i), n, elements)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		filled(e, n, elements)
		v.SetMapIndex(reflect.ValueOf("k\"\u00e9\u2028"), e)
	case reflect.String:
		v.SetString("s" + strings.Repeat("x", *n%40) + "\n<é")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Interface:
		v.Set(reflect.ValueOf(map[string]any{"a": []any{nil, 1.5, "b", false}}))
	default:
		if v.CanInt() {
			v.SetInt(int64(-*n))
		} else {
			v.SetUint(uint64(*n))
		}
	}
}

func TestEveryField(t *testing.T) {
	var s specs.Spec
	n := 0
	filled(reflect.ValueOf(&s).Elem(), &n, 2)
	data, err := json.MarshalIndent(&s, "\r\n", "\t ")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, &s) {
		t.Error("a field was lost")
	}
	// Every value replaced by one of every other type, one at a time.
	s = specs.Spec{}
	filled(reflect.ValueOf(&s).Elem(), &n, 1)
	if data, err = json.Marshal(&s); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"null", "1", "-1", "1.5", "1e2", "18446744073709551616", `"x"`, "true", "{}", "[]", "[null]", "nul", "-", "01", ""} {
		dec := json.NewDecoder(bytes.NewReader(data))
		for {
			before := dec.InputOffset()
			tok, err := dec.Token()
			if err != nil {
				break
			}
			if _, delim := tok.(json.Delim); delim {
				continue
			}
			i := before + int64(bytes.IndexFunc(data[before:], func(r rune) bool { return !strings.ContainsRune(" \t\r\n,:", r) }))
			mutated := append(append(bytes.Clone(data[:i]), other...), data[dec.InputOffset():]...)
			compare(t, mutated, Decode)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"mounts":[{"destination":"/","options":["a","b",3]}]}`, `config.json: mounts[0].options[2]: want a string, got a number`},
		{`{"process":{"user":{"uid":-1}}}`, `config.json: process.user.uid: number -1 is not an unsigned integer in range`},
		{`{"process":{"user":{"uid":4294967296}}}`, `config.json: process.user.uid: number 4294967296 is not an unsigned integer in range`},
		{`{"process":{"oomScoreAdj":1.0}}`, `config.json: process.oomScoreAdj: number 1.0 is not an integer in range`},
		{`{"process":{"args":"sh"}}`, `config.json: process.args: want an array, got a string`},
		{`{"process":[]}`, `config.json: process: want an object, got an array`},
		{`[]`, `config.json: want an object, got an array`},
		{`{"annotations":{"a.b":{}}}`, `config.json: annotations["a.b"]: want a string, got an object`},
		{`{"root":{"readonly":"yes"}}`, `config.json: root.readonly: want a boolean, got a string`},
		{`{"linux":{"resources":{"blockIO":{"weightDevice":[{},{"major":true}]}}}}`,
			`config.json: linux.resources.blockIO.weightDevice[1].major: want a number, got a boolean`},
		{`{"mounts":[{"destination":"/" "type":"x"}]}`, `config.json: mounts[0]: want ',' or '}', got '"' at byte 30`},
		{`{"mounts":[{"destination":"/`, `config.json: mounts[0].destination: want '"', got the end of the file at byte 28`},
		{`{"x":{"y":[tru]}}`, `config.json: x: want a value, got 't' at byte 11`},
		{"{\"hostname\":\"a\nb\"}", `config.json: hostname: control character '\n' in a string at byte 14`},
		{`{"hostname":"\x"}`, `config.json: hostname: bad escape sequence in a string at byte 13`},
		{`{} x`, `config.json: want end of file, got 'x' at byte 3`},
		{``, `config.json: want an object, got the end of the file at byte 0`},
		{strings.Repeat(`{"a":`, 70), `config.json: a: nested more than 64 deep at byte 320`},
		{`{"mounts":[` + strings.Repeat("{},", 1<<18) + `{}]}`,
			`config.json: mounts[262144]: more than 262144 array elements and map entries at byte 786443`},
		{strings.Repeat(" ", maxBytes+1), `config.json: longer than 16777216 bytes`},
	} {
		_, err := Decode([]byte(c.in))
		if err == nil || err.Error() != c.want {
			t.Errorf("%.60s:\ngot  %v\nwant %s", c.in, err, c.want)
		}
	}
}

// TestNullsAndDuplicates holds the corners that a reader of the code may doubt.
func TestNullsAndDuplicates(t *testing.T) {
	for _, in := range []string{
		`null`, ` null `, `{}`, `{"process":null,"mounts":null,"annotations":null,"hostname":null,"linux":{"namespaces":[null]}}`,
		`{"hostname":"a","hostname":"b"}`, `{"hostname":"a","hostname":null}`,
		`{"process":{"cwd":"/"},"process":{"args":["a"]}}`, `{"process":{"cwd":"/"},"process":null}`,
		`{"mounts":[{"type":"a","source":"b"},{"type":"c"}],"mounts":[{"source":"d"}],"mounts":[{},{},{}]}`,
		`{"mounts":[{"type":"a"}],"mounts":[]}`, `{"mounts":[{"type":"a"}],"mounts":null,"mounts":[{}]}`,
		`{"annotations":{"a":"1","a":null},"annotations":{"b":"2"}}`, `{"annotations":{"":""}}`,
		`{"linux":{"timeOffsets":{"boottime":{"secs":1},"boottime":{"nanosecs":2}}}}`,
		`{"windows":{"credentialSpec":{"a":1e400}}}`, `{"windows":{"credentialSpec":[1e3,-0,"\ud83d\ude00",{"a":{"a":null}}]}}`,
		`{"windows":{"credentialSpec":{"a":1},"credentialSpec":{"b":2}}}`,
		`{"hostname":"\ud83d\ude00 \ud83d \ude00 \ud83d\ud83d\ude00 \u0000 \/\b\f\n\r\t\"\\"}`, "{\"hostname\":\"\xff\xc3\x28 \xed\xa0\x80\"}",
		`{"h\u006fstname":"escaped key"}`, `{"process":{"oomScoreAdj":-0,"user":{"uid":-0}}}`, `{"process":{"user":{"uid":0}}}`,
		`{"hostname":"a",}`, `{,}`, `{"a"}`, `{"a":}`, `{"mounts":[,]}`, `{"mounts":[{},]}`, `{"hostname":"a"`, `{"x":01}`, `{"x":1.}`, `{"x":.5}`,
		`{"x":1e}`, `{"x":+1}`, `{"x":-}`, `{"x":NaN}`, `{"x":'a'}`, "\ufeff{}", "{}\x00", `{"x":1}{"x":2}`, `//c`, `{"x":"\u12"}`, `{"x":"\u12g4"}`,
	} {
		compare(t, []byte(in), Decode)
	}
}

func TestKeysMatchInTheirExactCase(t *testing.T) {
	s, err := Decode([]byte(`{"HostName":"a","process":{"CWD":1}}`))
	if err != nil || s.Hostname != "" || s.Process.Cwd != "" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(`{"ociVersion":"1.3.0","hostname":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || err.Error() != path+": hostname: want a string, got a number" {
		t.Errorf("got %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: got %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	big := filepath.Join(dir, "big")
	if err := os.Truncate(path, maxBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("big file: got %v", err)
	}
	data := testdata(t, "podman.json")["testdata/podman.json"]
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(big)
	want, _ := Decode(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Load and Decode differ: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, data := range testdata(f, "containerd-cri.json") { // the smallest: large seeds make the fuzzer crawl
		f.Add(data)
	}
	f.Add([]byte(`{"process":{"rlimits":[{"type":"a","hard":18446744073709551615,"soft":1e2}],"oomScoreAdj":-5}}`))
	f.Add([]byte(`{"windows":{"credentialSpec":[1,{"a":"\ud83d"}]},"mounts":[{"type":"a"}],"mounts":[{}]}`))
	known := knownKeys()
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Decode(data)
		if foldsKey(data, known) || err != nil && strings.Contains(err.Error(), "nested more than") {
			return
		}
		compare(t, data, Decode)
	})
}

func FuzzDecodeResources(f *testing.F) {
	f.Add([]byte(`{"memory":{"limit":1,"swap":-1},"cpu":{"shares":2,"cpus":"0-1"},"devices":[{"allow":true,"type":"c","major":1}],"unified":{"a":"b"}}`))
	known := knownKeys()
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := DecodeResources(data)
		if foldsKey(data, known) || err != nil && strings.Contains(err.Error(), "nested more than") {
			return
		}
		compare(t, data, DecodeResources)
	})
}

func BenchmarkDecodeDocker(b *testing.B) {
	data := testdata(b, "docker.json")["testdata/docker.json"]
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
