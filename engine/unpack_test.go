package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/testenv"
)

// unpackChild unpacks an image to the directory that is the first of more,
// without root if there is another.
func unpackChild(dir, image string, more []string) (int, error) {
	e, err := Open(Options{Root: dir + "/root", RunRoot: dir + "/run"})
	if err != nil {
		return 0, err
	}
	return 0, e.Unpack(context.Background(), image, more[0], UnpackOptions{Rootless: len(more) > 1})
}

// ordinary is the id of a user and of a group that nobody has.
const ordinary = 54321

// openTo copies an image to where an ordinary user gets to it.
func openTo(t testing.TB, dir, image string) string {
	t.Helper()
	letIn(t, dir)
	mine := filepath.Join(dir, "layout")
	testenv.Run(t, "cp", "-r", image, mine)
	testenv.Run(t, "chown", "-R", fmt.Sprintf("%d:%[1]d", ordinary), dir)
	return mine
}

// letIn lets all users get to a test's directory.
func letIn(t testing.TB, dir string) {
	t.Helper()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&fs.ModeSticky != 0 {
			break // where all users are
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// asOrdinary is a command of a user without privileges.
func asOrdinary(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	return cmd
}

// mustRun is what a command writes that has to end well.
func mustRun(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// TestUnpackRootless unpacks as an ordinary user what umoci does as well, and
// runs it. The trees are the same, with the owners as attributes.
func TestUnpackRootless(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	from := openTo(t, dir, edgeImage(t))
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	cmd := asOrdinary("/proc/self/exe", filepath.Join(dir, "engine"), "oci:"+from+":latest", ours, "rootless")
	cmd.Env = append(os.Environ(), childVar+"=unpack")
	mustRun(t, cmd)
	mustRun(t, asOrdinary(testenv.Tool(t, "umoci"), "unpack", "--rootless", "--image", from+":latest", theirs))
	got, want := testenv.Tree(t, filepath.Join(ours, "rootfs")), testenv.Tree(t, filepath.Join(theirs, "rootfs"))
	for _, name := range []string{"dev/null", "opt/edge/null", "opt/edge/loop0"} {
		if !strings.HasPrefix(got[name], "file 0") || !strings.Contains(got[name], " size 0 ") {
			t.Errorf("device %s: %s", name, got[name])
		}
	}
	if !strings.Contains(got["opt/edge/bigid"], layer.OwnerXattr) {
		t.Errorf("no owner is kept: %s", got["opt/edge/bigid"])
	}
	testenv.SameTree(t, got, want, "ours", "umoci's")

	// The bundle is one that its user can run.
	setArgs(t, ours, "sh", "-c", "id -u; stat -c %u /opt/edge/bigid")
	state := filepath.Join(dir, "state")
	for _, runtime := range []string{testenv.Command(t, "tare-runtime"), testenv.Tool(t, "runc")} {
		copied := filepath.Join(dir, filepath.Base(runtime))
		testenv.Run(t, "cp", runtime, copied)
		if out := mustRun(t, asOrdinary(copied, "--root", state, "run", "--bundle", ours, testenv.Name(t))); out != "0\n0\n" {
			t.Errorf("%s: %q", runtime, out)
		}
	}
}

// edgeImage is busybox with the edge cases of the image medium above it, which as
// a whole takes umoci minutes.
func edgeImage(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "edge")
	store, err := layout.Open(dir, layout.Options{Create: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	session, err := store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	medium, err := layout.Open(testLayout(t, "medium"), layout.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer medium.Close()
	desc, err := medium.Resolve(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(t.Context(), medium, desc)
	if err != nil {
		t.Fatal(err)
	}
	base := copyImage(t, session, testLayout(t, "small")+":latest")
	last := len(img.Manifest.Layers) - 1
	blob, err := os.ReadFile(filepath.Join(testLayout(t, "medium"), "blobs/sha256", img.Manifest.Layers[last].Digest.Encoded()))
	if err == nil {
		_, err = session.Put(t.Context(), img.Manifest.Layers[last].MediaType, blob)
	}
	if err != nil {
		t.Fatal(err)
	}
	desc, err = mutate.Apply(t.Context(), session, &base, mutate.Change{
		Layers: []mutate.Layer{{Desc: img.Manifest.Layers[last], DiffID: img.Config.RootFS.DiffIDs[last]}},
	})
	if err == nil {
		err = session.Tag(t.Context(), "latest", desc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// setArgs changes the command in a bundle's config.json.
func setArgs(t testing.TB, bundle string, args ...string) {
	t.Helper()
	var s specs.Spec
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Process.Args = args
	if err := os.WriteFile(path, mustJSON(t, s), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestUnpackRootlessClosedDirs: directories that their owner may not enter or
// change get new contents, and lose some, from the layers above; their modes stay.
func TestUnpackRootlessClosedDirs(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	image := filepath.Join(t.TempDir(), "layout")
	closed := func(name string, mode int64) file { return file{name: name, mode: mode} }
	makeImage(t, image, "latest", "", nil,
		[]file{closed("./", 0o555), closed("a/", 0), closed("a/b/", 0o111), {name: "a/b/old", content: "o", mode: 0}, closed("gone/", 0), closed("gone/deep/", 0), {name: "gone/deep/f", content: "f", mode: 0},
			closed("opaque/", 0o500), {name: "opaque/f", content: "f", mode: 0}, {name: "link", link: "a/b"}},
		[]file{{name: "a/b/new", content: "n", mode: 0o400}, {name: "link/through", content: "t", mode: 0o400}, {name: ".wh.gone"}, {name: "a/b/.wh.old"}, {name: "opaque/.wh..wh..opq"}, {name: "top", content: "t", mode: 0o400}})
	from := openTo(t, dir, image)
	for _, rootfsOnly := range []bool{false, true} {
		out := filepath.Join(dir, fmt.Sprint("out", rootfsOnly))
		cmd := asOrdinary("/proc/self/exe", filepath.Join(dir, "engine"), "oci:"+from+":latest", out, "rootless")
		cmd.Env = append(os.Environ(), childVar+"=unpack")
		mustRun(t, cmd)
		tree := testenv.Tree(t, filepath.Join(out, "rootfs"))
		for name, want := range map[string]string{".": "dir 0555", "a": "dir 0000", "a/b": "dir 0111", "opaque": "dir 0500", "a/b/new": "file", "a/b/through": "file", "top": "file",
			"gone": "", "a/b/old": "", "opaque/f": ""} {
			if got := tree[name]; !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

// TestUnpackMapped: files have the ids of this machine, and a container in the
// namespace of the config sees those of the image.
func TestUnpackMapped(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	dir := filepath.Join(t.TempDir(), "bundle")
	from := filepath.Join(t.TempDir(), "layout")
	makeImage(t, from, "latest", testLayout(t, "small")+":latest", nil, []file{{name: "mine", content: "x", mode: 0o600, uid: 1000}})
	o := UnpackOptions{UIDMap: layer.IDMap{{ContainerID: 0, HostID: 200000, Size: 65536}}}
	if err := e.Unpack(t.Context(), "oci:"+from+":latest", dir, o); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "rootfs/mine"), &st); err != nil || st.Uid != 201000 || st.Gid != 201000 {
		t.Errorf("%d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := unix.Stat(dir, &st); err != nil || st.Mode&0o777 != 0o710 || st.Uid != 0 || st.Gid != 200000 {
		t.Errorf("the bundle is %d:%d's with mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	letIn(t, filepath.Dir(dir))
	setArgs(t, dir, "stat", "-c", "%u", "/mine")
	for _, runtime := range []string{testenv.Command(t, "tare-runtime"), testenv.Tool(t, "runc")} {
		out := testenv.Run(t, runtime, "--root", t.TempDir(), "run", "--bundle", dir, testenv.Name(t))
		if out != "1000\n" {
			t.Errorf("%s: in the container it is %q's", runtime, out)
		}
	}
	o.UIDMap[0].Size = 10
	err := e.Unpack(t.Context(), "oci:"+from+":latest", filepath.Join(t.TempDir(), "b"), o)
	if !errors.Is(err, layer.ErrNotMapped) || !strings.Contains(err.Error(), `"mine"`) {
		t.Errorf("too small a map: %v", err)
	}
}

// putLayer makes an image of one layer with the blob and descriptor as given.
func putLayer(t testing.TB, dir string, plain, blob []byte, desc v1.Descriptor) v1.Descriptor {
	t.Helper()
	store, err := layout.Open(dir, layout.Options{Create: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	session, err := store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	put, err := session.Put(t.Context(), desc.MediaType, blob)
	if err != nil {
		t.Fatal(err)
	}
	desc.Digest, desc.Size = put.Digest, put.Size
	made, err := mutate.Apply(t.Context(), session, nil, mutate.Change{
		Config: func(img *v1.Image) { img.Architecture, img.OS = "amd64", "linux" },
		Layers: []mutate.Layer{{Desc: desc, DiffID: desc.Digest.Algorithm().FromBytes(plain)}},
	})
	if err == nil {
		err = session.Tag(t.Context(), "latest", made)
	}
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// TestUnpackEncrypted: a command decrypts what it is given, and what goes wrong
// in it is told and leaves nothing.
func TestUnpackEncrypted(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	plain := tarOf(t, []file{{name: "secret", content: strings.Repeat("s", 1<<20), mode: 0o600}})
	const decrypt = "LC_ALL=C tr b-za a-z"
	blob := slices.Clone(plain)
	for i, c := range blob {
		if 'a' <= c && c <= 'z' {
			blob[i] = 'a' + (c-'a'+1)%26
		}
	}
	from := filepath.Join(t.TempDir(), "layout")
	desc := putLayer(t, from, plain, blob, v1.Descriptor{
		MediaType:   v1.MediaTypeImageLayer + "+encrypted",
		Annotations: map[string]string{"org.opencontainers.image.enc.keys.demo": "KEY", "it's": `"quoted" $HOME`},
	})
	for what, c := range map[string]struct{ command, want string }{
		"none":         {"", "layer is encrypted: media type \"" + desc.MediaType + "\", its keys wrapped by \"demo\""},
		"good":         {`[ "$TARE_ANNOTATIONS" ] && case $TARE_DESCRIPTOR in *'"digest":"` + desc.Digest.String() + `"'*) ` + decrypt + ` ;; *) exit 9 ;; esac`, ""},
		"wrong key":    {"echo no key for you >&2; exit 3", "exit status 3: no key for you"},
		"fails late":   {decrypt + "; echo tag mismatch >&2; exit 4", "exit status 4: tag mismatch"},
		"cut short":    {decrypt + " | head -c 1000000", "unexpected EOF"},
		"another text": {"head -c 1024 /dev/zero", "diffID"},
		"killed":       {"kill -9 $$", "signal: killed"},
		"no program":   {"exec /nowhere/decrypt", "exit status 127"},
	} {
		t.Run(what, func(t *testing.T) {
			o := UnpackOptions{RootfsOnly: true}
			if c.command != "" {
				o.Decrypter = DecryptCommand{Args: []string{"sh", "-c", c.command}}
			}
			parent := t.TempDir()
			err := e.Unpack(t.Context(), "oci:"+from+":latest", filepath.Join(parent, "out"), o)
			if c.want == "" {
				data, rerr := os.ReadFile(filepath.Join(parent, "out/secret"))
				if err != nil || rerr != nil || len(data) != 1<<20 {
					t.Errorf("%v, %v, %d bytes", err, rerr, len(data))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), desc.Digest.String()) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	o := UnpackOptions{Decrypter: DecryptCommand{Args: []string{"sh", "-c", "sleep 100"}}}
	begin := time.Now()
	if err := e.Unpack(ctx, "oci:"+from+":latest", filepath.Join(t.TempDir(), "out"), o); err == nil || time.Since(begin) > 20*time.Second {
		t.Errorf("cancelled: %v after %v", err, time.Since(begin))
	}
}

// TestUnpackForeign: a layer that is only elsewhere comes from there if that is
// allowed, and must be what the manifest says.
func TestUnpackForeign(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	plain := tarOf(t, []file{{name: "foreign", content: "f", mode: 0o600}})
	var answer http.HandlerFunc
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went elsewhere")
		}
		answer(w, r)
	}))
	t.Cleanup(elsewhere.Close)
	from := filepath.Join(t.TempDir(), "layout")
	desc := putLayer(t, from, plain, plain, v1.Descriptor{
		MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar",
		URLs:      []string{"file:///etc/passwd", "http://127.0.0.1:1/nothing", elsewhere.URL + "/layer"},
	})
	if err := os.Remove(filepath.Join(from, "blobs/sha256", desc.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	b := serve(t, from)
	for what, c := range map[string]struct {
		answer http.HandlerFunc
		denied bool
		is     error
		want   string
	}{
		"good":      {answer: answerBytes(plain)},
		"denied":    {denied: true, is: ErrForeign, want: "file:///etc/passwd"},
		"missing":   {answer: http.NotFound, want: "404"},
		"flipped":   {answer: answerBytes(append([]byte{'g'}, plain[1:]...)), is: image.ErrMismatch},
		"truncated": {answer: answerBytes(plain[:len(plain)-1])},
		"too long":  {answer: answerBytes(append(slices.Clone(plain), 0))},
	} {
		bad := what != "good"
		for _, name := range []string{"oci:" + from + ":latest", b.name()} {
			e := newEngine(t)
			answer = c.answer
			parent := t.TempDir()
			out := filepath.Join(parent, "out")
			o := UnpackOptions{RootfsOnly: true, Pull: impatient(t)}
			o.Pull.Foreign = !c.denied
			err := e.Unpack(t.Context(), name, out, o)
			if (err != nil) != bad || err != nil && !strings.Contains(err.Error(), desc.Digest.String()) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s from %s: %v", what, name, err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%s from %s: %v, want %v", what, name, err, c.is)
			}
			left, rerr := os.ReadDir(parent)
			if rerr != nil || bad && len(left) > 0 || !bad && len(left) != 1 {
				t.Errorf("%s from %s: %v, %v", what, name, left, rerr)
			}
			checkClean(t, e)
		}
	}
}

// TestUnpackKilled kills with SIGKILL at a random moment. Nothing has the name,
// or all of it; and the next one removes what was left.
func TestUnpackKilled(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	from := bigImage(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	start := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", filepath.Join(dir, "engine"), "oci:"+from+":latest", out)
		cmd.Env = append(os.Environ(), childVar+"=unpack")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	begin := time.Now()
	if err := start().Wait(); err != nil {
		t.Fatal(err)
	}
	takes := time.Since(begin)
	whole := testenv.Tree(t, filepath.Join(out, "rootfs"))
	for range 10 {
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		cmd := start()
		time.Sleep(rand.N(takes))
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, or was quicker
		if _, err := os.Lstat(out); err == nil {
			if _, err := os.Stat(filepath.Join(out, "config.json")); err != nil {
				t.Error(err)
			}
			testenv.SameTree(t, testenv.Tree(t, filepath.Join(out, "rootfs")), whole, "after a kill", "whole")
			continue
		}
		if err := start().Wait(); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 2 { // engine and out
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// TestUnpackNoSpace: a full disk is told, and nothing stays on it.
func TestUnpackNoSpace(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	from := bigImage(t)
	for _, sizeBytes := range []int64{64 << 10, 1 << 20, 6 << 20} {
		small := t.TempDir()
		testenv.Tmpfs(t, small, sizeBytes)
		for name, o := range map[string]UnpackOptions{"bundle": {}, "tree": {RootfsOnly: true}} {
			e := newEngine(t)
			err := e.Unpack(t.Context(), "oci:"+from+":latest", filepath.Join(small, name), o)
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%d bytes: %v", sizeBytes, err)
			}
			left, err := os.ReadDir(small)
			if err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}
	}
}

// TestUnpackHostile: whatever is wrong with a layer, nothing is left of it, and
// nothing beside the directory has changed.
func TestUnpackHostile(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	plain := tarOf(t, []file{{name: "d/", mode: 0o755}, {name: "d/f", content: strings.Repeat("f", 2000), mode: 0o644}, {name: "s", link: "../../outside"}, {name: "s/f", content: "f", mode: 0o644}})
	layers := map[string][]byte{
		"dot dot": tarOf(t, []file{{name: "../outside/f", content: "f", mode: 0o644}}),
		"through": tarOf(t, []file{{name: "f", content: "f", mode: 0o644}, {name: "f/g", content: "g", mode: 0o644}}),
	}
	for n := 0; n < len(plain); n += 512 {
		layers[fmt.Sprintf("cut at %d of %d", n, len(plain))] = plain[:n]
	}
	for what, blob := range layers {
		from := filepath.Join(t.TempDir(), "layout")
		vouched := blob
		if strings.HasPrefix(what, "cut") {
			vouched = plain
		}
		desc := putLayer(t, from, vouched, blob, v1.Descriptor{MediaType: v1.MediaTypeImageLayer})
		parent := t.TempDir()
		outside := filepath.Join(parent, "outside")
		if err := os.Mkdir(outside, 0o755); err != nil {
			t.Fatal(err)
		}
		before := testenv.Tree(t, outside)
		for _, o := range []UnpackOptions{{}, {RootfsOnly: true}, {Rootless: true}} {
			err := e.Unpack(t.Context(), "oci:"+from+":latest", filepath.Join(parent, "out"), o)
			if err == nil || !strings.Contains(err.Error(), desc.Digest.String()) {
				t.Errorf("%s: %v", what, err)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
				t.Errorf("%s: left %v, %v", what, left, err)
			}
		}
		testenv.SameTree(t, testenv.Tree(t, outside), before, "now", "before")
	}
}
