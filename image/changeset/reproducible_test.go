package changeset

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/testenv"
)

// TestReproducible: the same tree gives the same blob, whatever the file system, the order in which the files were made, the
// number of processors, the umask, the time zone and the language.
func TestReproducible(t *testing.T) {
	testenv.Root(t)
	if !testenv.PrivateMounts(t) {
		return
	}
	var first layer.Written
	for i, variant := range []struct {
		tmpfs bool
		procs int
		umask int
		zone  string
	}{{false, 1, 0o22, "UTC"}, {true, 2, 0, "Asia/Kathmandu"}, {false, 7, 0o77, "America/St_Johns"}, {true, 1, 0o777, ""}} {
		dir := t.TempDir()
		if variant.tmpfs {
			testenv.Tmpfs(t, dir, 64<<20)
		}
		t.Setenv("TZ", variant.zone)
		t.Setenv("LC_ALL", []string{"C", "de_DE.UTF-8"}[i%2])
		record := recordOf(t, dir)
		plantInOrder(t, dir, rand.New(rand.NewPCG(uint64(i), 5)))
		procs, umask := runtime.GOMAXPROCS(variant.procs), syscall.Umask(variant.umask)
		root := openRoot(t, dir)
		set, err := Compare(t.Context(), root, record, Options{})
		check(t, err)
		var blob bytes.Buffer
		p, err := layer.NewPacker(&blob, layer.PackOptions{})
		check(t, err)
		err = set.Write(t.Context(), root, p, Options{})
		written, cerr := p.Close()
		runtime.GOMAXPROCS(procs)
		syscall.Umask(umask)
		check(t, err)
		check(t, cerr)
		if i == 0 {
			first = written
		} else if written != first {
			t.Errorf("%+v: %+v, want %+v", variant, written, first)
		}
	}
	// A change of these bytes makes all images others: say so in the release notes.
	const want = "sha256:2a01e5b0582da5a807878405508ab0b3215d705cec96a41ba425527f41578029"
	if first.Digest != want {
		t.Errorf("digest %s, want %s", first.Digest, want)
	}
}

// plantInOrder makes one tree, its files in an order of chance.
func plantInOrder(t *testing.T, dir string, rnd *rand.Rand) {
	t.Helper()
	when := time.Unix(1e9, 123)
	for _, i := range rnd.Perm(300) {
		name := fmt.Sprintf("%s/d%d/f%d", dir, i%7, i)
		check(t, os.MkdirAll(fmt.Sprintf("%s/d%d", dir, i%7), 0o755))
		check(t, os.WriteFile(name, bytes.Repeat([]byte{byte(i), byte(i >> 1), 'x'}, i*50), 0o600))
		check(t, os.Chmod(name, os.FileMode(0o400|i%0o300)))
		check(t, os.Lchown(name, i, 3*i))
		for _, n := range rnd.Perm(3) {
			check(t, unix.Setxattr(name, fmt.Sprintf("trusted.x%d", n), []byte{byte(n)}, 0))
		}
		check(t, os.Chtimes(name, when, when))
	}
	check(t, os.Link(dir+"/d1/f1", dir+"/d2/link"))
	check(t, os.Symlink("d1", dir+"/symlink"))
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/symlink", []unix.Timespec{{Sec: 5}, {Sec: 5}}, unix.AT_SYMLINK_NOFOLLOW))
	for _, d := range []string{"d0", "d1", "d2", "d3", "d4", "d5", "d6", "."} {
		check(t, os.Chmod(dir+"/"+d, 0o751))
		check(t, os.Chtimes(dir+"/"+d, when, when))
	}
}
