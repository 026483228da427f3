package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/changeset"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/testenv"
)

// putImage copies a test image into the store.
func putImage(t testing.TB, e *Engine, from, name string) {
	t.Helper()
	if _, err := e.Copy(t.Context(), "oci:"+from, name, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
}

// modify changes a root file system in all the ways that a layer can tell.
const modify = `set -e; cd "$0"
echo new > etc/new; echo more >> etc/passwd; rm etc/group; mkdir -p srv/a/b; echo x > srv/a/b/c; ln srv/a/b/c srv/link
ln -s ../etc/new srv/symlink; mkfifo srv/fifo; mknod srv/null c 1 3; chmod 4751 bin/busybox; chown 7:70000 srv
rm -rf usr; echo file > usr; rm -rf tmp; mkdir -m 1777 tmp; echo again > tmp/x
setfattr -n user.mine -v value srv/a/b/c; setfattr -n trusted.mine -v t srv; setcap cap_net_raw+ep srv/a/b/c; setfacl -m u:12:rwx srv/a
truncate -s 1M srv/sparse; echo end >> srv/sparse; echo umlaut > "srv/Ü $(printf '\377')"
touch -d 1969-12-31T23:59:58${1}Z srv/old; touch -d 2001-02-03T04:05:06${1}Z srv/a/b/c
find . -newermt 2020-01-01 -depth -exec touch -h -d 2002-02-02T02:02:02${1}Z {} +`

// modified changes a root file system; times have that fraction of a second.
func modified(t testing.TB, rootfs, fraction string) {
	t.Helper()
	if out, err := exec.Command("bash", "-c", modify, rootfs, fraction).CombinedOutput(); err != nil {
		t.Fatalf("modify %s: %v\n%s", rootfs, err, out)
	}
}

func repackOptions() RepackOptions {
	when, latest := time.Unix(1_700_000_000, 0).UTC(), int64(1_700_000_000)
	return RepackOptions{NewImageOptions: NewImageOptions{History: v1.History{Created: &when, CreatedBy: "test"}, LatestTime: &latest}}
}

func unpackedBundle(t testing.TB, e *Engine, name string) string {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle")
	if err := e.Unpack(t.Context(), name, bundle, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	return bundle
}

func repacked(t testing.TB, e *Engine, bundle, name string, o RepackOptions) NewImage {
	t.Helper()
	n, err := e.Repack(t.Context(), bundle, name, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// treeBy unpacks an image of a layout with another tool.
func treeBy(t *testing.T, tool, dir, tag string) map[string]string {
	t.Helper()
	to := t.TempDir()
	switch tool {
	case "tare":
		e := newEngine(t)
		if err := e.Unpack(t.Context(), "oci:"+dir+":"+tag, to+"/bundle", UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
	case "umoci":
		testenv.Run(t, "umoci", "unpack", "--image", dir+":"+tag, to+"/bundle")
	}
	return testenv.Tree(t, to+"/bundle/rootfs")
}

// TestRepackRoundTrip: what was repacked is unpacked, by us and by others, to the tree that the bundle has. The same bundle
// gives the same image, from either form of the store.
func TestRepackRoundTrip(t *testing.T) {
	testenv.Root(t)
	for _, tool := range []string{"setfattr", "setcap", "setfacl"} {
		testenv.Tool(t, tool)
	}
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	if n := repacked(t, e, bundle, "same:v1", repackOptions()); n.Layer != nil || n.Changes != 0 {
		t.Errorf("nothing was changed: %+v", n)
	}
	modified(t, bundle+"/rootfs", ".25")
	want := testenv.Tree(t, bundle+"/rootfs")
	dir := filepath.Join(t.TempDir(), "layout")
	first := repacked(t, e, bundle, "oci:"+dir+":gzip", repackOptions())
	if again := repacked(t, e, bundle, "small:v2", repackOptions()); again.Descriptor.Digest != first.Descriptor.Digest {
		t.Errorf("the second time it is %s, not %s", again.Descriptor.Digest, first.Descriptor.Digest)
	}
	zstd := repackOptions()
	zstd.Pack = layer.PackOptions{Compression: layer.Zstd, Level: 5}
	repacked(t, e, bundle, "oci:"+dir+":zstd", zstd)
	plain := repackOptions()
	plain.Pack.Compression = layer.Uncompressed
	repacked(t, e, bundle, "oci:"+dir+":plain", plain)
	for _, by := range [][2]string{{"tare", "gzip"}, {"tare", "zstd"}, {"tare", "plain"}, {"umoci", "gzip"}, {"umoci", "plain"}} {
		t.Run(by[0]+" "+by[1], func(t *testing.T) {
			testenv.SameTree(t, treeBy(t, by[0], dir, by[1]), want, by[0], "bundle")
		})
	}
	for _, tag := range []string{"gzip", "zstd", "plain"} {
		testenv.Run(t, "skopeo", "copy", "--quiet", "oci:"+dir+":"+tag, "dir:"+t.TempDir())
	}
	refreshed := repackOptions()
	refreshed.Refresh = true
	repacked(t, e, bundle, "oci:"+dir+":refreshed", refreshed)
	if changes, err := e.Changes(t.Context(), bundle+"/", ChangeOptions{}); err != nil || len(changes) > 0 {
		t.Errorf("after --refresh-bundle: %v, %v", changes, err)
	}
	checkClean(t, e)
}

// TestRepackLikeUmoci: umoci's layer of the same changes and ours make the same tree.
func TestRepackLikeUmoci(t *testing.T) {
	testenv.Root(t)
	e := newEngine(t)
	dir := filepath.Join(t.TempDir(), "layout")
	testenv.Run(t, "cp", "-r", testLayout(t, "small"), dir)
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	if err := e.Unpack(t.Context(), "oci:"+dir+":latest", ours, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "umoci", "unpack", "--image", dir+":latest", theirs)
	modified(t, ours+"/rootfs", "") // umoci 0.4 rounds to whole seconds
	modified(t, theirs+"/rootfs", "")
	repacked(t, e, ours, "oci:"+dir+":ours", repackOptions())
	testenv.Run(t, "umoci", "repack", "--image", dir+":theirs", theirs)
	for _, tool := range []string{"tare", "umoci"} {
		testenv.SameTree(t, treeBy(t, tool, dir, "ours"), treeBy(t, tool, dir, "theirs"), "ours", "umoci's")
	}
}

// TestRepackForEngines: podman and buildah, whose layers are directories of their own, see the same tree.
func TestRepackForEngines(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	modified(t, bundle+"/rootfs", ".25")
	dir, err := os.MkdirTemp("", "tare-layout-") // these tools make an image's name of the path, in lower case
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	repacked(t, e, bundle, "oci:"+dir+":v1", repackOptions())
	for _, tool := range []string{"buildah", "podman"} {
		t.Run(tool, func(t *testing.T) {
			work := t.TempDir()
			testenv.Tmpfs(t, work, 256<<20)
			args := []string{"--root", work + "/root", "--runroot", work + "/run", "--storage-driver", "overlay"}
			run := func(more ...string) string {
				return strings.TrimSpace(testenv.Run(t, tool, slices.Concat(args, more)...))
			}
			run("pull", "-q", "oci:"+dir+":v1")
			var mounted string
			if tool == "buildah" {
				mounted = run("mount", run("from", "--pull-never", run("images", "-q")))
				defer run("umount", "-a")
			} else {
				mounted = run("image", "mount", run("images", "-q"))
				defer run("image", "umount", "-a")
			}
			got := testenv.Tree(t, mounted)
			want := testenv.Tree(t, bundle+"/rootfs")
			// The root is of the engine's own making, and times before 1970 they do not have.
			for _, name := range []string{".", "srv/old"} {
				delete(got, name)
				delete(want, name)
			}
			testenv.SameTree(t, got, want, tool, "bundle")
		})
	}
}

// TestRepackMasksVolumes: what was put into the image's volumes is no part of it, unless it is asked for.
func TestRepackMasksVolumes(t *testing.T) {
	testenv.Root(t)
	e := newEngine(t)
	dir := filepath.Join(t.TempDir(), "layout")
	makeImage(t, dir, "v1", "", func(c *v1.Image) { c.Config.Volumes = map[string]struct{}{"/data": {}} }, []file{{name: "data/", mode: 0o755}, {name: "f", content: "x"}})
	bundle := filepath.Join(t.TempDir(), "bundle")
	if err := e.Unpack(t.Context(), "oci:"+dir+":v1", bundle, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bundle+"/rootfs/data/x", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := repacked(t, e, bundle, "a:v1", repackOptions()); n.Layer != nil {
		t.Errorf("%+v", n)
	}
	o := repackOptions()
	o.Changes.KeepVolumes = true
	if n := repacked(t, e, bundle, "a:v2", o); n.Layer == nil || n.Changes != 2 {
		t.Errorf("%+v", n)
	}
}

// TestCommit: an image of a container that has ended, and of one that runs.
func TestCommit(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	o := RunOptions{Image: "small:v1", ID: "one", Keep: true, Env: []string{"A=1"}, Workdir: "/tmp", Args: []string{"sh", "-c", "echo $A > /file; rm -r /usr; pwd"}}
	if out := mustOutput(t, e, o); out != "/tmp\n" {
		t.Errorf("output %q", out)
	}
	if _, err := e.Remove(t.Context(), "small:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.GC(t.Context(), GCOptions{}); err != nil { // which must leave what the container needs
		t.Fatal(err)
	}
	when := time.Unix(1e9, 0).UTC()
	options := CommitOptions{NewImageOptions: NewImageOptions{Author: "me", History: v1.History{Created: &when, Comment: "why"}}}
	n, err := e.Commit(t.Context(), "one", "new:v1", options)
	if err != nil || n.Layer == nil {
		t.Fatalf("%+v, %v", n, err)
	}
	again, err := e.Commit(t.Context(), "on", "new:v2", options) // by the beginning of its name
	if err != nil || again.Descriptor.Digest != n.Descriptor.Digest {
		t.Errorf("%+v, %v, want %s", again, err, n.Descriptor.Digest)
	}
	img, err := e.Resolve(t.Context(), "new:v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := img.Config
	if last := c.History[len(c.History)-1]; c.Author != "me" || last.Comment != "why" || last.CreatedBy != strings.Join(o.Args, " ") || !last.Created.Equal(when) {
		t.Errorf("config %+v", c)
	}
	if !slices.Equal(c.Config.Cmd, o.Args) || c.Config.WorkingDir != "/tmp" || !slices.Contains(c.Config.Env, "A=1") {
		t.Errorf("config %+v", c.Config)
	}
	if out := mustOutput(t, e, RunOptions{Image: "new:v1", Args: []string{"cat", "/file"}}); out != "1\n" {
		t.Errorf("output %q", out)
	}
	if _, err := e.RemoveContainer(t.Context(), "one", false); err != nil {
		t.Error(err)
	}
	checkClean(t, e)
}

// TestKeeperKilled: a container whose keeper is killed is killed and kept, if it was to be.
func TestKeeperKilled(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	e := openEngine(t, dir)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	t.Setenv(keepVar, "kept")
	cmd, out := startChild(t, dir, "small:v1", "sh", "-c", "echo x > /file; echo ready; sleep 60")
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := e.RemoveContainer(t.Context(), "kept", false); !errors.Is(err, ErrRunning) {
		t.Errorf("remove: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	all, err := e.Containers(t.Context())
	if err != nil || len(all) != 1 || all[0].Running || all[0].Exit == nil || all[0].Exit.Status != 137 {
		t.Fatalf("%+v, %v", all, err)
	}
	changes, err := e.Changes(t.Context(), "kept", ChangeOptions{})
	if err != nil || !slices.ContainsFunc(changes, func(c changeset.Change) bool { return c.Name == "file" }) {
		t.Errorf("%v, %v", changes, err)
	}
	if _, err := e.RemoveContainer(t.Context(), "kept", false); err != nil {
		t.Error(err)
	}
	checkClean(t, e)
}

// TestRepackKilled kills repacks and commits at random moments: the store is whole, no name is half there.
func TestRepackKilled(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	e := openEngine(t, dir)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	big := make([]byte, 8<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(bundle+"/rootfs/big", big, 0o644); err != nil {
		t.Fatal(err)
	}
	finished := 0
	for i := range 15 {
		name := fmt.Sprintf("killed:v%d", i)
		cmd := exec.Command("/proc/self/exe", dir, bundle, name)
		cmd.Env = append(os.Environ(), childVar+"=repack")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 30 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if img, err := e.Resolve(t.Context(), name, nil); err == nil {
			finished++
			if len(img.Manifest.Layers) != 2 {
				t.Errorf("%s has %d layers", name, len(img.Manifest.Layers))
			}
		} else if !errors.Is(err, ErrNoImage) {
			t.Error(err)
		}
	}
	t.Logf("%d of 15 came to their end", finished)
	checkClean(t, e)
	if _, err := e.GC(t.Context(), GCOptions{}); err != nil {
		t.Error(err)
	}
	if left := partials(t, e); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	repacked(t, e, bundle, "whole:v1", repackOptions())
	checkClean(t, e)
}

// TestRepackFullDisk: where there is no room for the layer, there is no image, and the room is given back.
func TestRepackFullDisk(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	dir := t.TempDir()
	testenv.Tmpfs(t, dir, 12<<20)
	e := openEngine(t, dir)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer random.Close()
	f, err := os.Create(bundle + "/rootfs/big")
	if err == nil {
		_, err = io.CopyN(f, random, 16<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var before, after unix.Statfs_t
	if err := unix.Statfs(dir, &before); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Repack(t.Context(), bundle, "full:v1", repackOptions()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	if _, err := e.Resolve(t.Context(), "full:v1", nil); !errors.Is(err, ErrNoImage) {
		t.Errorf("the image is there: %v", err)
	}
	if err := unix.Statfs(dir, &after); err != nil || after.Bfree < before.Bfree-4 {
		t.Errorf("%d blocks free, %d before (%v)", after.Bfree, before.Bfree, err)
	}
	checkClean(t, e)
}

// TestBadOrigin: a bundle that is none, or that somebody has edited.
func TestBadOrigin(t *testing.T) {
	testenv.Root(t)
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	good, err := os.ReadFile(filepath.Join(bundle, originName))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		text string
		want string
	}{
		"no JSON":  {"{", originName},
		"version":  {`{"version":7}`, "version 7"},
		"digest":   {`{"version":1,"image":"x","manifest":{"mediaType":"a/b","digest":"sha256:12","size":1}}`, "digest"},
		"missing":  {`{"version":1,"image":"x","manifest":{"mediaType":"` + v1.MediaTypeImageManifest + `","digest":"sha256:` + strings.Repeat("0", 64) + `","size":1}}`, "which this was made from"},
		"too long": {strings.Repeat(" ", 2<<20), "at most"},
	} {
		if err := os.WriteFile(filepath.Join(bundle, originName), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Repack(t.Context(), bundle, "x:v1", repackOptions()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), bundle) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, originName), good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bundle, recordFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Repack(t.Context(), bundle, "x:v1", repackOptions()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a record: %v", err)
	}
}
