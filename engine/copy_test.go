package engine

import (
	"path/filepath"
	"testing"

	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestCopyAllTheWay takes an index with all below it through every form that
// keeps digests, and compares what skopeo makes of the end with the beginning.
func TestCopyAllTheWay(t *testing.T) {
	e := newEngine(t)
	addr := testenv.Registry(t)
	dir := t.TempDir()
	first := "oci:" + filepath.Join(testenv.Images(t), "multiarch") + ":nested"
	way := []string{
		first,
		"docker://" + addr + "/a/multiarch:v1",
		"docker://" + addr + "/b/multiarch:v1", // blobs are mounted
		"kept",
		"oci:" + filepath.Join(dir, "layout") + ":" + addr + "/x:y",
		"oci:" + filepath.Join(dir, "unnamed"),
		"docker://" + addr + "/c:latest",
	}
	for i, to := range way[1:] {
		r, err := e.Copy(t.Context(), way[i], to, CopyOptions{Options: transfer.Options{All: true}})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && r.Blobs > 0 && to == way[2] {
			t.Errorf("%s: %d blobs were sent", to, r.Blobs)
		}
	}
	last := way[len(way)-1]
	if a, b := testenv.Run(t, "skopeo", "inspect", "--raw", first), testenv.Run(t, "skopeo", "inspect", "--raw", "--tls-verify=false", last); a != b {
		t.Errorf("%s is %s, %s is %s", first, a, last, b)
	}
}
