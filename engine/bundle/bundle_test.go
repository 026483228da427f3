package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/safepath"
)

// tree makes a root file system of files; a content that begins with "-> " is
// that of a symbolic link.
func tree(t testing.TB, files map[string]string) *safepath.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if to, isLink := strings.CutPrefix(content, "-> "); err == nil && isLink {
			err = os.Symlink(to, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// TestConversion goes through conversion.md field by field.
func TestConversion(t *testing.T) {
	created := time.Date(2025, 6, 15, 12, 0, 0, 500, time.UTC)
	img := v1.Image{
		Created: &created, Author: "somebody",
		Platform: v1.Platform{Architecture: "arm64", OS: "linux", Variant: "v8", OSVersion: "1.2", OSFeatures: []string{"a", "b"}},
		Config: v1.ImageConfig{
			User: "app", Env: []string{"A=1", "NOVALUE"}, Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"cmd"},
			WorkingDir: "/work", StopSignal: "SIGINT", Volumes: map[string]struct{}{"/data": {}, "/dangling": {}},
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}},
			Labels:       map[string]string{"own": "label", "org.opencontainers.image.author": "the label"},
		},
	}
	root := tree(t, map[string]string{"etc/passwd": "app:x:10:11::/:\n", "etc/group": "g:x:12:app\n", "dangling": "-> real/place"})
	s, err := Spec(img, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"own":                                   "label",
		"org.opencontainers.image.os":           "linux",
		"org.opencontainers.image.architecture": "arm64",
		"org.opencontainers.image.variant":      "v8",
		"org.opencontainers.image.os.version":   "1.2",
		"org.opencontainers.image.os.features":  "a,b",
		"org.opencontainers.image.author":       "the label",
		"org.opencontainers.image.created":      "2025-06-15T12:00:00.0000005Z",
		"org.opencontainers.image.stopSignal":   "SIGINT",
		"org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
	}
	if !reflect.DeepEqual(s.Annotations, want) {
		t.Errorf("annotations %v\nwant %v", s.Annotations, want)
	}
	p := s.Process
	if !slices.Equal(p.Args, []string{"/entry", "-x", "cmd"}) || p.Cwd != "/work" || !slices.Equal(p.Env, []string{"A=1", "NOVALUE", defaultPath}) {
		t.Errorf("args %q, cwd %q, env %q", p.Args, p.Cwd, p.Env)
	}
	if !reflect.DeepEqual(p.User, specs.User{UID: 10, GID: 11, AdditionalGids: []uint32{11, 12}}) {
		t.Errorf("user %+v", p.User)
	}
	if len(p.Capabilities.Bounding) != 14 || p.Capabilities.Effective != nil || p.Capabilities.Inheritable != nil {
		t.Errorf("capabilities of a user: %+v", p.Capabilities)
	}
	volumes := map[string]string{}
	for _, m := range s.Mounts {
		if m.Type == "bind" {
			volumes[m.Destination] = m.Source
		}
	}
	if !reflect.DeepEqual(volumes, map[string]string{"/data": "rootfs/data", "/dangling": "rootfs/real/place"}) {
		t.Errorf("volumes %v", volumes)
	}
	decodes(t, s)
}

func TestTooManyVolumes(t *testing.T) {
	volumes := map[string]struct{}{}
	for i := range maxImageVolumes + 1 {
		volumes[fmt.Sprintf("/v%d", i)] = struct{}{}
	}
	img := v1.Image{Config: v1.ImageConfig{Cmd: []string{"x"}, Volumes: volumes}}
	if _, err := Spec(img, tree(t, nil), Options{}); err == nil || !strings.Contains(err.Error(), "volumes") {
		t.Errorf("got %v", err)
	}
}

// decodes fails the test unless the runtime can read the configuration.
func decodes(t *testing.T, s *specs.Spec) {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spec.Decode(data); err != nil {
		t.Error(err)
	}
}

func TestCommand(t *testing.T) {
	image := v1.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "e c"},
		{Options{Args: []string{"a", "b"}}, "e a b"},
		{Options{Entrypoint: []string{"x"}}, "x"},
		{Options{Entrypoint: []string{}, Args: []string{"a"}}, "a"},
		{Options{Entrypoint: []string{}}, ""},
	} {
		if got := strings.Join(command(image, c.o), " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
	}
}

func TestLookupUser(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/passwd": "# comment\nbroken\nroot:x:0:0:root:/root:/bin/sh\nbad:x:y:z::/:\nweb:x:33:34:::\n1234:x:7:7:::\nbig:x:4294967295:0:::\n",
		"etc/group":  "root:x:0:\nadm:x:4:web,other\ndup:x:4:web\nweb:x:34:\n",
	})
	for _, c := range []struct {
		name string
		want specs.User
		err  string
	}{
		{"", specs.User{AdditionalGids: []uint32{0}}, ""},
		{"root", specs.User{AdditionalGids: []uint32{0}}, ""},
		{"web", specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4}}, ""},
		{"33", specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4}}, ""},
		{"web:adm", specs.User{UID: 33, GID: 4, AdditionalGids: []uint32{4}}, ""},
		{"web:99", specs.User{UID: 33, GID: 99, AdditionalGids: []uint32{99}}, ""},
		{"99:web", specs.User{UID: 99, GID: 34, AdditionalGids: []uint32{34}}, ""},
		{"99:98", specs.User{UID: 99, GID: 98, AdditionalGids: []uint32{98}}, ""},
		{"99", specs.User{UID: 99, AdditionalGids: []uint32{0}}, ""},
		{"4294967294", specs.User{UID: 4294967294, AdditionalGids: []uint32{0}}, ""},
		{":web", specs.User{GID: 34, AdditionalGids: []uint32{34}}, ""},
		{"nobody", specs.User{}, `has no "nobody"`},
		{"web:none", specs.User{}, `has no "none"`},
		{"4294967295", specs.User{}, "not an id"},
		{"0:99999999999999999999", specs.User{}, "not an id"},
		{"bad", specs.User{}, "has no"},
		{"big", specs.User{}, "has no"},
		{"-1", specs.User{}, "has no"},
	} {
		got, err := LookupUser(root, c.name)
		if c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)) {
			t.Errorf("%q: %+v, %v; want %+v", c.name, got, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %v, want %q", c.name, err, c.err)
		}
	}
	// An image need have no accounts; what is there must not lead outside.
	if u, err := LookupUser(tree(t, nil), "7"); err != nil || u.UID != 7 {
		t.Errorf("without accounts: %+v, %v", u, err)
	}
	hidden := tree(t, map[string]string{"etc/passwd": "-> ../../../../etc/passwd"})
	if _, err := LookupUser(hidden, "daemon"); err == nil {
		t.Error("found a user of the machine's")
	}
}

func FuzzLookupUser(f *testing.F) {
	f.Add("web:adm", "web:x:33:34:::\n", "adm:x:4:web\n")
	f.Add("0", "", "")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		u, err := LookupUser(tree(t, map[string]string{"etc/passwd": passwd, "etc/group": group}), name)
		if err == nil && !slices.Contains(u.AdditionalGids, u.GID) {
			t.Errorf("%q: %+v is not in its own group", name, u)
		}
	})
}

func TestParseVolume(t *testing.T) {
	for text, want := range map[string]string{
		"/a:/b":                "/a /b rbind,rprivate",
		"/a:/b/../c/":          "/a /c rbind,rprivate",
		"/a:/b:ro":             "/a /b rbind,rprivate,rro",
		"/a:/b:z,bind,rslave":  "/a /b bind,rslave",
		"/a:/b:rw,ro,rshared":  "/a /b rbind,rshared,rro",
		"/a,b:/c":              "/a,b /c rbind,rprivate",
		"a:/b":                 "!absolute path",
		"./a:/b":               "!absolute",
		"/a:b":                 "!destination",
		"/a:/":                 "!destination",
		"/a:/..":               "!destination",
		"/a":                   "!SOURCE:DESTINATION",
		":/b":                  "!SOURCE:DESTINATION",
		"/a:/b:ro:x":           "!SOURCE:DESTINATION",
		"/a:/b:exec":           "!unknown option",
		"/a\x00:/b":            "!NUL",
		"":                     "!SOURCE:DESTINATION",
		"name-of-a-volume:/db": "!volumes with names",
	} {
		m, err := ParseVolume(text)
		if msg, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), msg) {
				t.Errorf("%q: %v, want %q", text, err, msg)
			}
			continue
		}
		if got := m.Source + " " + m.Destination + " " + strings.Join(m.Options, ","); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzParseVolume(f *testing.F) {
	f.Add("/a:/b:ro,z")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseVolume(text)
		if err == nil && (!filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Destination) || m.Destination == "/" || len(m.Options) < 2) {
			t.Errorf("%q: %+v", text, m)
		}
	})
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		add, drop string
		want      int
		has, not  string
	}{
		{"", "", 14, "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{"sys_admin CAP_CHOWN", "", 15, "CAP_SYS_ADMIN", "CAP_BPF"},
		{"", "chown", 13, "CAP_KILL", "CAP_CHOWN"},
		{"", "ALL", 0, "", "CAP_CHOWN"},
		{"all", "sys_admin", 40, "CAP_BPF", "CAP_SYS_ADMIN"},
		{"NET_ADMIN", "all", 1, "CAP_NET_ADMIN", "CAP_CHOWN"},
	} {
		got, err := capabilities(strings.Fields(c.add), strings.Fields(c.drop))
		if err != nil || len(got) != c.want || c.has != "" && !slices.Contains(got, c.has) || slices.Contains(got, c.not) {
			t.Errorf("add %q, drop %q: %v, %v", c.add, c.drop, got, err)
		}
	}
}

// TestProfile reads docker's format, conditions and all.
func TestProfile(t *testing.T) {
	const docker = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
		"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
			{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
			{"architecture":"SCMP_ARCH_S390X","subArchitectures":["SCMP_ARCH_S390"]}],
		"syscalls":[
			{"names":["read","write"],"action":"SCMP_ACT_ALLOW","includes":{},"excludes":{}},
			{"name":"close","action":"SCMP_ACT_ALLOW","args":null},
			{"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
			{"names":["here"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","arm64"]}},
			{"names":["elsewhere"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
			{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
			{"names":["chroot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_CHROOT"]}},
			{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}`
	p, err := parseProfile([]byte(docker), defaultCapabilities())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range p.Syscalls {
		names = append(names, s.Names...)
	}
	if got := strings.Join(names, " "); got != "read write close ptrace here chroot clone" {
		t.Errorf("rules for %s", got)
	}
	if len(p.Architectures) != 2 || *p.DefaultErrnoRet != 1 || len(p.Syscalls[len(p.Syscalls)-1].Args) != 1 {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"", "{}", `{"defaultAction":1}`, "[]"} {
		if _, err := parseProfile([]byte(bad), nil); err == nil {
			t.Errorf("%q is no profile", bad)
		}
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["x"]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parseProfile(data, defaultCapabilities()); err == nil && p.DefaultAction == "" {
			t.Error("a profile without a default action")
		}
	})
}
