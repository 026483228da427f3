package mutate_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/mutate"
)

// TestFieldsAreAll: every field of the specification's types can be edited, but
// for those that go with the layers.
func TestFieldsAreAll(t *testing.T) {
	left := map[string]bool{}
	var collect func(prefix string, typ reflect.Type)
	collect = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				collect(prefix, f.Type)
			case f.Type == reflect.TypeFor[v1.ImageConfig]():
				collect("config.", f.Type)
			default:
				left[prefix+name] = true
			}
		}
	}
	collect("", reflect.TypeFor[v1.Image]())
	for _, f := range mutate.Fields() {
		if !left[f.Name] {
			t.Errorf("%s: not a field of the configuration, or there twice", f.Name)
		}
		delete(left, f.Name)
	}
	// Deprecated: of Docker for Windows.
	for _, known := range []string{"rootfs", "history", "config.ArgsEscaped"} {
		delete(left, known)
	}
	if len(left) > 0 {
		t.Errorf("cannot be edited: %v", left)
	}
}

func TestEdits(t *testing.T) {
	const before = `{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"u","Env":["A=1","B=2","A=3"],` +
		`"Cmd":["x"],"ExposedPorts":{"80":{}},"Labels":{"a":"1"}},"rootfs":{"type":"","diff_ids":null}}`
	for _, c := range []struct {
		field, op string
		values    []string
		want      string // what is different, as JSON of the field
	}{
		{"user", "put", []string{"1:2"}, `"1:2"`},
		{"config.User", "clear", nil, `""`},
		{"CREATED", "put", []string{"1700000000"}, `"2023-11-14T22:13:20Z"`},
		{"created", "put", []string{"2025-01-02T03:04:05+01:00"}, `"2025-01-02T02:04:05Z"`},
		{"created", "clear", nil, `null`},
		{"env", "put", []string{"A=9", "C="}, `["A=9","B=2","C="]`},
		{"env", "remove", []string{"A"}, `["B=2"]`},
		{"env", "remove", []string{"none"}, `["A=1","B=2","A=3"]`},
		{"env", "clear", nil, `null`},
		{"cmd", "put", []string{"a b", "c"}, `["a b","c"]`},
		{"cmd", "put", []string{`["sh", "-c", "echo"]`}, `["sh","-c","echo"]`},
		{"cmd", "put", []string{""}, `null`},
		{"entrypoint", "put", []string{"/x"}, `["/x"]`},
		{"port", "put", []string{"53/udp", "80"}, `{"53/udp":{},"80":{}}`},
		{"port", "remove", []string{"80"}, `{}`},
		{"volume", "put", []string{"/v"}, `{"/v":{}}`},
		{"label", "put", []string{"a=2", "b=x=y"}, `{"a":"2","b":"x=y"}`},
		{"label", "remove", []string{"a"}, `{}`},
		{"os-feature", "put", []string{"win32k", "win32k"}, `["win32k"]`},
		{"os-feature", "clear", nil, `null`},
		{"stop-signal", "put", []string{"SIGRTMIN+3"}, `"SIGRTMIN+3"`},
	} {
		f, err := mutate.FindField(c.field)
		if err != nil {
			t.Fatal(err)
		}
		var edit mutate.Edit
		switch c.op {
		case "put":
			edit, err = f.Put(c.values...)
		case "remove":
			edit, err = f.Remove(c.values[0])
		case "clear":
			edit = f.Clear()
		}
		if err != nil {
			t.Errorf("%s %s %q: %v", c.op, c.field, c.values, err)
			continue
		}
		var cfg v1.Image
		if err := json.Unmarshal([]byte(before), &cfg); err != nil {
			t.Fatal(err)
		}
		edit(&cfg)
		if got := fieldJSON(t, cfg, f.Name); got != c.want {
			t.Errorf("%s %s %q: %s, want %s", c.op, c.field, c.values, got, c.want)
		}
	}
}

// fieldJSON is a field of the configuration, found by its name in Go's type.
func fieldJSON(t *testing.T, cfg v1.Image, name string) string {
	t.Helper()
	short := name[strings.LastIndex(name, ".")+1:]
	if strings.HasPrefix(name, "os.") {
		short = "OS" + short
	}
	find := func(v reflect.Value) (reflect.Value, bool) {
		f := v.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, short) })
		return f, f.IsValid()
	}
	v, ok := find(reflect.ValueOf(cfg))
	if strings.HasPrefix(name, "config.") || !ok {
		v, ok = find(reflect.ValueOf(cfg.Config))
	}
	if !ok {
		t.Fatalf("no field %s", name)
	}
	data, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEditsRefused(t *testing.T) {
	for _, c := range []struct{ field, value, want string }{
		{"env", "A", `config.Env: "A": want NAME=VALUE`},
		{"env", "=x", "want NAME=VALUE"},
		{"label", "x", "want NAME=VALUE"},
		{"port", "99999", "want PORT"},
		{"port", "80/icmp", "want PORT"},
		{"port", "", "empty"},
		{"volume", "v", "not an absolute path"},
		{"created", "yesterday", "want RFC 3339"},
		{"created", "999999999999999", "out of range"},
		{"cmd", `["x"`, "list in JSON"},
		{"architecture", "a/b", "not a plain name"},
		{"stop-signal", "kill it", "SIGTERM"},
	} {
		f, err := mutate.FindField(c.field)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Put(c.value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.field, c.value, err, c.want)
		}
	}
	user, _ := mutate.FindField("user")
	if _, err := user.Remove("x"); err == nil {
		t.Error("a part of the user was removed")
	}
	if _, err := mutate.FindField("shell"); err == nil || !strings.Contains(err.Error(), "they are created, author") {
		t.Errorf("error %v", err)
	}
}
