package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/internal/testenv"
)

// exported is the archive of a container's or image's files.
func exported(t *testing.T, e *Engine, name string) []byte {
	t.Helper()
	c, err := e.OpenFiles(t.Context(), name, FilesOptions{Pause: true})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.Export(t.Context(), &b); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

// extracted unpacks an archive with GNU tar.
func extracted(t *testing.T, archive io.Reader) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(testenv.Tool(t, "tar"), "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	cmd.Stdin = archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar -x: %v\n%s", err, out)
	}
	return testenv.Tree(t, dir)
}

// seen is what tar sees of a container that runs.
func seen(t *testing.T, root string) map[string]string {
	t.Helper()
	cmd := exec.Command(testenv.Tool(t, "tar"), "-c", "--one-file-system", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", root, ".")
	var warnings bytes.Buffer
	cmd.Stderr = &warnings
	archive, err := cmd.Output()
	if err != nil {
		t.Logf("tar -c: %v\n%s", err, &warnings)
	}
	if cmd.ProcessState.ExitCode() > 1 { // 1 is that something was touched meanwhile, and the comparison's to judge
		t.Fatal("tar has failed")
	}
	return extracted(t, bytes.NewReader(archive))
}

// TestExportContainer compares what is written of a container with what tar sees in it while it runs: whiteouts, files in place of
// directories, directories made again, hard links, devices and attributes.
func TestExportContainer(t *testing.T) {
	testenv.Root(t)
	for _, tool := range []string{"setfattr", "setcap", "setfacl"} {
		testenv.Tool(t, tool)
	}
	testenv.Leaks(t)
	dir := t.TempDir()
	e := openEngine(t, dir)
	putImage(t, e, testLayout(t, "small")+":latest", "small:v1")
	t.Setenv(keepVar, "kept")
	cmd, out := startChild(t, dir, "small:v1", "sh", "-c", "echo ready; exec sleep 60")
	t.Cleanup(func() { // of a test that has failed
		_, _ = e.RemoveContainer(context.WithoutCancel(t.Context()), "kept", true)
	})
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	pids, err := e.options.runtime().Processes("kept")
	if err != nil || len(pids) != 1 {
		t.Fatalf("processes %v, %v", pids, err)
	}
	root := fmt.Sprintf("/proc/%d/root", pids[0])
	withoutTimes := modify[:strings.LastIndex(modify, "\n")] // the last line would go through /proc, too
	if out, err := exec.Command("bash", "-c", withoutTimes, root, ".25").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, archive := seen(t, root), exported(t, e, "kept")
	got := extracted(t, bytes.NewReader(archive))
	r, err := readRecord(e.containerDir("kept"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range r.Masked { // tar sees what is mounted there
		delete(got, name)
		delete(want, name)
	}
	if want["usr"] == "" || want["etc/group"] != "" || want["srv/link"] == "" {
		t.Fatalf("not modified: %q", want)
	}
	testenv.SameTree(t, got, want, "export", "tar")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := e.Containers(t.Context()); err != nil { // which buries it
		t.Fatal(err)
	}
	if !bytes.Equal(exported(t, e, "kept"), archive) {
		t.Error("when it has ended it is another archive")
	}
	exportNames(t, e)
	if _, err := e.RemoveContainer(t.Context(), "kept", false); err != nil {
		t.Error(err)
	}
	checkClean(t, e)
}

// exportNames: what a name stands for, where there is a container "kept".
func exportNames(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Tag(t.Context(), "small:v1", "kept:latest", "ke:latest"); err != nil {
		t.Fatal(err)
	}
	img, err := e.Resolve(t.Context(), "small:v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	host := image.HostPlatform()
	for _, c := range []struct {
		name      string
		platform  *v1.Platform
		container bool
	}{
		{"kept", nil, true},
		{"kep", nil, true},
		{"ke", nil, false},
		{"kept:latest", nil, false},
		{"kept", &host, false},
		{"oci:" + testLayout(t, "small") + ":latest", nil, false},
	} {
		files, err := e.OpenFiles(t.Context(), c.name, FilesOptions{Platform: c.platform})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if isImage := slices.Equal(files.Image.Config.RootFS.DiffIDs, img.Config.RootFS.DiffIDs); isImage == c.container {
			t.Errorf("%s, for platform %v: a container: %t", c.name, c.platform, !isImage)
		}
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	}
}
