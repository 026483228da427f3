package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

// changesOf lists what has changed in a bundle, a line for each.
func changesOf(t *testing.T, e *Engine, bundle string) string {
	t.Helper()
	changes, err := e.Changes(t.Context(), bundle+"/", ChangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, c := range changes {
		lines.WriteString(c.Kind.String() + " " + c.Name + "\n")
	}
	return lines.String()
}

// shell runs a script in a directory.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -e; "+script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestRepackCopiedBundle: in a copy of a bundle all files are others, and nothing has changed. What has is found, also where
// size and times say nothing of it.
func TestRepackCopiedBundle(t *testing.T) {
	testenv.Root(t)
	e := newEngine(t)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	rich := unpackedBundle(t, e, "small:v1") // an image with everything in it
	modified(t, rich+"/rootfs", ".25")
	shell(t, rich+"/rootfs", "echo one > srv/edited; echo two > srv/touched; setfattr -n user.x -v 1 srv/touched; ln -s aaaa srv/turned")
	repacked(t, e, rich, "rich:v1", repackOptions())

	for what, o := range map[string]UnpackOptions{"root": {}, "rootless": {Rootless: true}} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			if err := e.Unpack(t.Context(), "rich:v1", dir+"/bundle", o); err != nil {
				t.Fatal(err)
			}
			testenv.Run(t, "cp", "-a", dir+"/bundle", dir+"/copy")
			if n := repacked(t, e, dir+"/copy", "copy:v1", repackOptions()); n.Layer != nil || n.Changes != 0 {
				t.Errorf("a layer of %d changes: %s", n.Changes, changesOf(t, e, dir+"/copy"))
			}
			shell(t, dir+"/copy/rootfs", `cd srv; : > ../../t
				keep() { touch -hr "$1" ../../t; "${@:2}"; touch -hr ../../t "$1"; }
				keep edited cp <(echo ONE) edited; keep touched setfattr -n user.x -v 2 touched
				ln -s bbbb t; touch -hr turned t; keep . mv t turned; keep . ln a/b/c more; keep . rm more`)
			if got, want := changesOf(t, e, dir+"/copy"), "C srv\nC srv/edited\nC srv/touched\nC srv/turned\n"; got != want {
				t.Errorf("changes\n%swant\n%s", got, want)
			}
			// In the bundle itself, too.
			shell(t, dir+"/bundle/rootfs", "cp -a etc etc.new; rm -r etc; mv etc.new etc; touch -r ../../copy/rootfs .")
			if got := changesOf(t, e, dir+"/bundle"); got != "" {
				t.Errorf("changes of what was copied in place\n%s", got)
			}
		})
	}
}

// TestCopiedBundleOfDamagedImage: where there is nothing to compare with, files count as changed, and that is said.
func TestCopiedBundleOfDamagedImage(t *testing.T) {
	testenv.Root(t)
	var warned []string
	dir := t.TempDir()
	e, err := Open(Options{Root: dir + "/root", RunRoot: dir + "/run", Warn: func(m string) { warned = append(warned, m) }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	bundle := unpackedBundle(t, e, "small:v1")
	copied := filepath.Join(t.TempDir(), "copy")
	testenv.Run(t, "cp", "-a", bundle, copied)
	img, err := e.Resolve(t.Context(), "small:v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root/images/blobs/sha256", img.Manifest.Layers[0].Digest.Encoded()), []byte("rot"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := changesOf(t, e, copied); !strings.Contains(got, "C bin/busybox\n") || len(warned) != 1 || !strings.Contains(warned[0], "count as changed") {
		t.Errorf("warnings %q, changes\n%s", warned, got)
	}
}
