package layer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/internal/testenv"
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

// TestNamesAreBounded: what is remembered of a layer's names has a limit, whatever they are names of.
func TestNamesAreBounded(t *testing.T) {
	testenv.Root(t)
	for what, c := range map[string]struct {
		form   Form
		header *tarstream.Header
	}{
		"directory": {Flat, &tarstream.Header{Type: tarstream.TypeDir, Name: "directory", Mode: 0o755}},
		"implied":   {Flat, &tarstream.Header{Type: tarstream.TypeSymlink, Name: "directory/l", Linkname: "x", Mode: 0o777}},
		"whiteout":  {Overlay, &tarstream.Header{Type: tarstream.TypeReg, Name: ".wh.whiteout"}},
		"link":      {Overlay, &tarstream.Header{Type: tarstream.TypeLink, Name: "l", Linkname: "elsewhere"}},
	} {
		for _, room := range []int{5, 50} {
			root, _, _ := sandbox(t)
			a := newApplier(root, Options{Form: c.form})
			a.tree.named = maxNamesBytes - room
			err := a.entry(c.header)
			if errors.Is(err, ErrLimit) != (room == 5) || room > 5 && err != nil {
				t.Errorf("%s, room for %d bytes: %v", what, room, err)
			}
			a.tree.closeAll()
		}
	}
}

// TestManyOpaqueWhiteouts: those that say the same again take no time. With a look at all files for each it would be hours.
func TestManyOpaqueWhiteouts(t *testing.T) {
	const n = 30_000
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	root := openRoot(t, testenv.MemoryDir(t))
	a := newApplier(root, ownable(Options{}))
	for i := range 3 * n {
		h := &tarstream.Header{Type: tarstream.TypeSymlink, Name: fmt.Sprint("d/", i), Linkname: "x", Mode: 0o777}
		if i >= n {
			h = &tarstream.Header{Type: tarstream.TypeReg, Name: "d/.wh..wh..opq"}
		}
		if err := errors.Join(a.entry(h), a.tree.release(), ctx.Err()); err != nil {
			t.Fatal(i, err)
		}
	}
	d, err := a.tree.find("d")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := safepath.List(d.fd); err != nil || len(names) != n {
		t.Errorf("%d files of its own are left, %v", len(names), err)
	}
	if err := a.tree.finish(); err != nil {
		t.Error(err)
	}
}
