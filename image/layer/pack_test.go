package layer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/testenv"
)

// someText is data that compresses like files do: repetitions near and far, and noise.
func someText(n int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n+4096)
	for len(out) < n {
		switch at := 0; {
		case len(out) > 100 && rnd.IntN(3) > 0:
			at = rnd.IntN(len(out) - 50)
			out = append(out, out[at:at+rnd.IntN(50)]...)
		case rnd.IntN(50) == 0:
			out = append(out, make([]byte, rnd.IntN(4096))...)
		default:
			for range rnd.IntN(20) {
				out = append(out, byte(rnd.IntN(64)+32))
			}
		}
	}
	return out[:n]
}

func pack(t testing.TB, data []byte, o PackOptions) ([]byte, Written) {
	t.Helper()
	var b bytes.Buffer
	p, err := NewPacker(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(uint64(o.Workers), 2)) // pieces of any size
	for rest := data; len(rest) > 0; {
		n := min(len(rest), rnd.IntN(100_000))
		if _, err := p.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	w, err := p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if w.Digest != digest.FromBytes(b.Bytes()) || w.SizeBytes != int64(b.Len()) || w.DiffID != digest.FromBytes(data) || w.ArchiveBytes != int64(len(data)) {
		t.Errorf("%v: %+v does not describe what was written", o, w)
	}
	return b.Bytes(), w
}

func unpacked(t testing.TB, blob []byte, c Compression) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(blob)
	var err error
	switch c {
	case Gzip:
		r, err = gzip.NewReader(r)
	case Zstd:
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPack: every compression and level gives the data back, and the same blob whatever the number of processors.
func TestPack(t *testing.T) {
	const block = gzipBlockBytes
	for _, size := range []int{0, 1, 511, block - 1, block, block + 1, 3 * block, 5*block + 77} {
		data := someText(size, uint64(size))
		for c := range compressions {
			for level := range 10 {
				o := PackOptions{Compression: Compression(c), Level: level, Workers: 1}
				if o.Check() != nil || size > block && level > 0 && level < 9 {
					continue
				}
				want, w := pack(t, data, o)
				if !bytes.Equal(unpacked(t, want, o.Compression), data) {
					t.Errorf("%v level %d, %d bytes: not what was packed", o.Compression, level, size)
				}
				for _, workers := range []int{2, 7} {
					o.Workers = workers
					if _, again := pack(t, data, o); again != w {
						t.Errorf("%v level %d, %d bytes, %d workers: %+v, want %+v", o.Compression, level, size, workers, again, w)
					}
				}
			}
		}
	}
}

// TestPackDigests: the bytes are the same on any machine, with any number of processors, and stay the same. If these change,
// by a new version of the compression say, images are no longer reproduced: say so in the release notes.
func TestPackDigests(t *testing.T) {
	data := someText(3<<20, 7)
	for c, want := range map[Compression]digest.Digest{
		Gzip:         "sha256:3fd44fd37ebd13a0bb2b2df95c9452bb15bd8d470309362f2397d2bbaf96afc8",
		Zstd:         "sha256:b5163a1347fb3b28dcaa6633c2724e9383f4219c24dfadb04e3cf8f5299b6b8f",
		Uncompressed: digest.FromBytes(data),
	} {
		for _, procs := range []int{1, 2, 5} {
			before := runtime.GOMAXPROCS(procs)
			_, w := pack(t, data, PackOptions{Compression: c})
			runtime.GOMAXPROCS(before)
			if w.Digest != want {
				t.Errorf("%v, %d processors: digest %s, want %s", c, procs, w.Digest, want)
			}
		}
	}
}

// TestPackTools: the tools that others have read it.
func TestPackTools(t *testing.T) {
	data := someText(2<<20, 3)
	for c, tool := range map[Compression]string{Gzip: "gzip", Zstd: "zstd"} {
		blob, _ := pack(t, data, PackOptions{Compression: c})
		cmd := exec.Command(testenv.Tool(t, tool), "-dc")
		cmd.Stdin = bytes.NewReader(blob)
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %d bytes, %v", tool, len(out), err)
		}
	}
}

// fullDisk takes some bytes and no more.
type fullDisk struct{ left int }

var errFull = errors.New("no space left")

func (f *fullDisk) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return f.left, errFull
	}
	f.left -= len(p)
	return len(p), nil
}

func TestPackFails(t *testing.T) {
	data := someText(2<<20, 3)
	before := runtime.NumGoroutine()
	for c := range compressions {
		for _, left := range []int{0, 5, 10, 1000, 100_000} {
			p, err := NewPacker(&fullDisk{left}, PackOptions{Compression: Compression(c)})
			if err != nil {
				t.Fatal(err)
			}
			_, werr := p.Write(data)
			_, cerr := p.Close()
			if err := errors.Join(werr, cerr); !errors.Is(err, errFull) {
				t.Errorf("%v, %d bytes: error %v", Compression(c), left, err)
			}
			if _, err := p.Close(); err == nil {
				t.Error("closed twice")
			}
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	for _, o := range []PackOptions{{Level: 10}, {Level: -1}, {Compression: Zstd, Level: 23}, {Compression: Uncompressed, Level: 1}, {Compression: 9}} {
		if _, err := NewPacker(io.Discard, o); err == nil {
			t.Errorf("%+v: taken", o)
		}
	}
}

func FuzzParseCompression(f *testing.F) {
	f.Add("gzip")
	f.Add("none")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCompression(s); err == nil && c.String() != s {
			t.Errorf("%q became %v", s, c)
		}
	})
}
