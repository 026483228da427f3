package cli

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/testenv"
)

// tare runs tare with a root of its own and returns what it prints.
func tare(t *testing.T, root string, args ...string) string {
	t.Helper()
	return testenv.Run(t, "tare", append([]string{"--quiet", "--root", root}, args...)...)
}

// TestKilledTransfers kills, at random moments, what moves images: no part of an
// image has its name then, the stores are sound, and the next attempt works.
func TestKilledTransfers(t *testing.T) {
	testenv.Leaks(t)
	image := "oci:" + filepath.Join(testenv.Images(t), "medium") + ":latest"
	dir := t.TempDir()
	root, archive, layout := filepath.Join(dir, "root"), filepath.Join(dir, "in.tar"), filepath.Join(dir, "layout")
	tare(t, root, "copy", image, "image")
	tare(t, root, "save", "--format", "oci-archive", "-o", archive, "image")
	out, plain := filepath.Join(dir, "out.tar"), filepath.Join(dir, "dir")
	other := filepath.Join(dir, "other")
	for _, c := range []struct {
		args []string
		made string // what must not be there unless it is whole
		look []string
	}{
		{[]string{"--root", other, "load", "-i", archive}, "", []string{"--root", other, "fsck", "--no-diffids"}},
		{[]string{"--root", root, "save", "--format", "oci-archive", "-o", out, "image"}, out, []string{"--root", dir + "/x", "load", "-i", out}},
		{[]string{"--root", root, "copy", "image", "oci:" + layout + ":x"}, filepath.Join(layout, "oci-layout"), []string{"fsck", "--no-diffids", layout}},
		{[]string{"--root", root, "copy", "image", "dir:" + plain}, filepath.Join(plain, "manifest.json"), []string{"copy", "dir:" + plain, "oci:" + dir + "/y:x"}},
	} {
		for range 4 {
			cmd := exec.Command(testenv.Tool(t, "tare"), append([]string{"--quiet"}, c.args...)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
			cmd.Process.Kill()
			cmd.Wait()
			if _, err := os.Stat(c.made); c.made == "" || err == nil {
				tare(t, root, c.look...)
			}
		}
		tare(t, root, c.args...)
		tare(t, root, c.look...)
		for _, d := range []string{dir, plain} {
			entries, _ := os.ReadDir(d)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), ".") {
					t.Errorf("%q leaves %s", c.args, e.Name())
				}
			}
		}
	}
}

// TestPodmanBothWays has podman load what tare saves, and tare what podman saves,
// in every format.
func TestPodmanBothWays(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	tare(t, root, "copy", "oci:"+filepath.Join(testenv.Images(t), "small")+":latest", "small")
	podman := func(args ...string) string {
		t.Helper()
		return testenv.Run(t, "podman", append([]string{"--root", dir + "/podman", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	for _, format := range []string{"docker-archive", "oci-archive", "oci-dir", "docker-dir"} {
		ours, theirs := filepath.Join(dir, "ours-"+format), filepath.Join(dir, "theirs-"+format)
		tare(t, root, "save", "--format", format, "-o", ours, "small")
		if out := podman("load", "--quiet", "--input", ours); !strings.Contains(out, "Loaded image") {
			t.Errorf("%s: podman load prints %q", format, out)
		}
		podman("save", "--quiet", "--format", format, "--output", theirs, "docker.io/library/small:latest")
		if out := tare(t, dir+"/"+format, "load", "--input", theirs); !strings.Contains(out, "Loaded image") {
			t.Errorf("%s: tare load prints %q", format, out)
		}
		tare(t, dir+"/"+format, "fsck")
	}
}
