package plan_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// TestEveryFieldCounts holds the rule that no field is silently ignored, also
// for those that a later version of the specification brings. testdata/every.txt
// has a line for each: its path, and
//
//	a configuration that has it   its plan, or error, is not that without the field
//	- reason                      who else looks at it, or why nobody has to
//
// A path may end in .* for all below.
func TestEveryFieldCounts(t *testing.T) {
	data, err := os.ReadFile("testdata/every.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if path, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(path, "#") {
			known[path] = strings.TrimSpace(rest)
		}
	}
	used := map[string]bool{}
	for _, path := range leaves(reflect.TypeFor[specs.Spec](), "") {
		line := covering(known, path)
		used[line] = true
		switch config := known[line]; {
		case config == "":
			t.Errorf("%s: is it ignored? Tell in testdata/every.txt.", path)
		case strings.HasPrefix(config, "- "):
		default:
			with, without := outcome(t, config), outcome(t, withoutField(t, config, path))
			if with == without {
				t.Errorf("%s has no effect in %s", path, config)
			}
		}
	}
	for line := range known {
		if !used[line] {
			t.Errorf("there is no field %s", line)
		}
	}
}

// covering is the line about a path.
func covering(known map[string]string, path string) string {
	for p := path; known[path] == "" && p != ""; {
		p = p[:max(strings.LastIndexByte(p, '.'), 0)]
		if known[p+".*"] != "" {
			return p + ".*"
		}
	}
	return path
}

// leaves are the paths of all values in a type: "mounts[].options[]".
func leaves(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return leaves(t.Elem(), path)
	case reflect.Slice:
		return leaves(t.Elem(), path+"[]")
	case reflect.Map:
		return leaves(t.Elem(), path+"{}")
	case reflect.Struct:
		var all []string
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				all = append(all, leaves(f.Type, path)...)
			case name != "" && path == "":
				all = append(all, leaves(f.Type, name)...)
			case name != "":
				all = append(all, leaves(f.Type, path+"."+name)...)
			}
		}
		return all
	}
	return []string{path}
}

// withoutField removes the first value at a path, or empties the list or map
// that it is in.
func withoutField(t *testing.T, config, path string) string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(config), &root); err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	var at any = root
	names := strings.Split(path, ".")
	for i, full := range names {
		name := strings.TrimRight(full, "[]{}")
		object, ok := at.(map[string]any)
		if _, has := object[name]; !ok || !has {
			t.Fatalf("%s has no %s", config, path)
		}
		if i == len(names)-1 {
			delete(object, name)
			break
		}
		at = object[name]
		if list, ok := at.([]any); ok && len(list) > 0 {
			at = list[0]
		}
		if strings.HasSuffix(full, "{}") {
			for _, v := range at.(map[string]any) {
				at = v
				break
			}
		}
	}
	data, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// outcome is all that a configuration comes to.
func outcome(t *testing.T, config string) string {
	t.Helper()
	s := smallSpec()
	if err := json.Unmarshal([]byte(config), s); err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	if err := spec.Validate(s); err != nil {
		return err.Error()
	}
	f := facts(s)
	f.Resctrl = "/sys/fs/resctrl"
	p, err := plan.Compile(s, f)
	if err != nil {
		return err.Error()
	}
	im, err := p.Program()
	if err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	return fmt.Sprintf("%x %+v %+v %+v %+v %+v %x", sha256.Sum256(im.ELF), p.Files, p.Rlimits, p.Maps, p.Listener, p.Warnings, p.Namespaces)
}
