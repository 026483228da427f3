package layer

import (
	"testing"

	"github.com/tare-oci/tare/safepath"
)

func openRoot(t testing.TB, dir string) *safepath.Root {
	t.Helper()
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}
