package directory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/directory"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/transfer/transfertest"
	"github.com/tare-oci/tare/internal/testenv"
)

func TestContract(t *testing.T) {
	transfertest.Run(t, transfertest.Form{
		Source:      func(_ context.Context, place string) (transfer.Source, error) { return directory.Open(place) },
		Destination: func(_ context.Context, place string) (transfer.Destination, error) { return directory.Create(place) },
		Place:       func(t *testing.T) string { return filepath.Join(t.TempDir(), "dir") },
	})
}

// copied is a directory with a sample.
func copied(t *testing.T, dir string, s *transfertest.Sample) string {
	t.Helper()
	dst, err := directory.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = transfer.Copy(t.Context(), dst, s, transfer.Options{}); err == nil {
		err = dst.Commit(t.Context())
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// names are the files of a directory.
func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range entries {
		all[e.Name()] = true
	}
	return all
}

// TestAsSkopeo: what we write is, file by file, what skopeo writes of the same image, and we read what it writes.
func TestAsSkopeo(t *testing.T) {
	for _, name := range []string{"small", "multiarch"} {
		from := "oci:" + filepath.Join(testenv.Images(t), name) + ":latest"
		theirs, again := filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "again")
		testenv.Run(t, "skopeo", "copy", "--quiet", "--all", from, "dir:"+theirs)
		src, err := directory.Open(theirs)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		ours := filepath.Join(t.TempDir(), "ours")
		dst, err := directory.Create(ours)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = transfer.Copy(t.Context(), dst, src, transfer.Options{All: true}); err == nil {
			err = dst.Commit(t.Context())
		}
		if err := errors.Join(err, dst.Close()); err != nil {
			t.Fatal(err)
		}
		want := names(t, theirs)
		if got := names(t, ours); len(got) != len(want) {
			t.Errorf("%s: files %v, skopeo's %v", name, got, want)
		}
		for file := range want {
			a, err := os.ReadFile(filepath.Join(ours, file))
			b, berr := os.ReadFile(filepath.Join(theirs, file))
			if err := errors.Join(err, berr); err != nil || string(a) != string(b) {
				t.Errorf("%s: %s is another, %v", name, file, err)
			}
		}
		testenv.Run(t, "skopeo", "copy", "--quiet", "--all", "dir:"+ours, "dir:"+again)
	}
}

// TestReplaced: of an image that was replaced nothing stays, and nothing is touched that is not of the form.
func TestReplaced(t *testing.T) {
	dir := copied(t, filepath.Join(t.TempDir(), "dir"), transfertest.NewSample("a", "b"))
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	copied(t, dir, transfertest.NewSample("b"))
	if got := names(t, dir); len(got) != 5 || !got["notes.txt"] { // version, manifest, config, layer
		t.Errorf("files %v", got)
	}
}

// TestRefused: what is no such directory, or leads out of it.
func TestRefused(t *testing.T) {
	good := transfertest.NewSample("a")
	for what, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"no manifest": {func(dir string) error { return os.Remove(dir + "/manifest.json") }, "manifest.json"},
		"not JSON":    {func(dir string) error { return os.WriteFile(dir+"/manifest.json", []byte("<"), 0o600) }, "not JSON"},
		"too large":   {func(dir string) error { return os.Truncate(dir+"/manifest.json", image.MaxDocumentBytes+1) }, "bytes, more than"},
		"a directory": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/manifest.json"), os.Mkdir(dir+"/manifest.json", 0o755))
		}, "not a regular file"},
		"leads out": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/manifest.json"), os.Symlink("/etc/passwd", dir+"/manifest.json"))
		}, "escapes"},
		"is no device": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/manifest.json"), os.Symlink("/dev/zero", dir+"/manifest.json"))
		}, "escapes"},
	} {
		dir := copied(t, filepath.Join(t.TempDir(), "dir"), good)
		if err := c.spoil(dir); err != nil {
			t.Fatal(err)
		}
		if src, err := directory.Open(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, %v", what, src, err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(other+"/precious", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := directory.Create(other); err == nil || !strings.Contains(err.Error(), `"precious"`) {
		t.Errorf("a directory of something else: %v", err)
	}
}

// TestDamaged: a blob that rots is found when it is copied on.
func TestDamaged(t *testing.T) {
	dir := copied(t, filepath.Join(t.TempDir(), "dir"), transfertest.NewSample("a"))
	for name := range names(t, dir) {
		path := filepath.Join(dir, name)
		if data, err := os.ReadFile(path); err != nil || len(data) != 1536 { // the layer
			continue
		} else if err := os.WriteFile(path, append([]byte("b"), data[1:]...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	src, err := directory.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	to := filepath.Join(t.TempDir(), "to")
	dst, err := directory.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := transfer.Copy(t.Context(), dst, src, transfer.Options{}); !errors.Is(err, image.ErrMismatch) {
		t.Error(err)
	}
	if _, err := directory.Open(to); err == nil {
		t.Error("there is an image")
	}
	for name := range names(t, to) {
		if strings.Contains(name, "tare") {
			t.Errorf("%s is left", name)
		}
	}
}
