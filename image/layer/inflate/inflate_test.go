package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// outcome is what reading a stream comes to.
type outcome struct {
	content []byte
	err     string
}

// classOf names an error without where it was found.
func classOf(err error) string {
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &corrupt):
		return "corrupt"
	case err == nil:
		return "end"
	}
	return err.Error()
}

// ours reads a stream with this package; whole says by how much at once.
func ours(src io.Reader, framed bool, pieceBytes int) outcome {
	r := NewReader(src)
	if framed {
		var err error
		if r, err = NewGzipReader(src); err != nil {
			return outcome{nil, classOf(err)}
		}
	}
	var o outcome
	piece := make([]byte, pieceBytes)
	for {
		n, err := r.Read(piece)
		o.content = append(o.content, piece[:n]...)
		if err == io.EOF {
			err = nil
		} else if err == nil {
			continue
		}
		o.err = classOf(err)
		if _, again := r.Read(piece); again == nil {
			o.err += ", but not for long"
		}
		return o
	}
}

// standard reads it with the standard library.
func standard(src io.Reader, framed bool) outcome {
	if !framed {
		content, err := io.ReadAll(flate.NewReader(src))
		return outcome{content, classOf(err)}
	}
	r, err := gzip.NewReader(src)
	if err != nil {
		return outcome{nil, classOf(err)}
	}
	content, err := io.ReadAll(r)
	return outcome{content, classOf(err)}
}

// compare fails unless both libraries make the same of b.
func compare(t *testing.T, what string, b []byte, framed bool) outcome {
	t.Helper()
	want := standard(bytes.NewReader(b), framed)
	got := ours(bytes.NewReader(b), framed, 64<<10)
	if got.err != want.err || !bytes.Equal(got.content, want.content) {
		t.Fatalf("%s: %d bytes, %s; the standard library has %d bytes, %s (equal up to %d)", what,
			len(got.content), got.err, len(want.content), want.err, equalBytes(got.content, want.content))
	}
	return got
}

func equalBytes(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// contents are things to compress.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var text, runs []byte
	for len(text) < 500_000 {
		text = fmt.Appendf(text, "line %d of a text: %x\n", len(text), r.Uint32N(1<<r.UintN(30)))
	}
	for len(runs) < 400_000 {
		runs = append(runs, bytes.Repeat(random[r.IntN(1000):][:1+r.IntN(20)], 1+r.IntN(100))...)
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {'x'}, "random": random, "text": text, "runs": runs, "zeros": make([]byte, 1_000_000),
	}
}

func deflate(content []byte, level int) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err == nil {
		_, err = w.Write(content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func gzipped(content []byte, h gzip.Header) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Header = h
	_, err := w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestAllLevels(t *testing.T) {
	for name, content := range contents() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			b := deflate(content, level)
			got := compare(t, fmt.Sprint(name, " at level ", level), b, false)
			if !bytes.Equal(got.content, content) {
				t.Errorf("%s at level %d: wrong content", name, level)
			}
		}
	}
}

// TestSources reads from sources that give little at once, and into small buffers.
func TestSources(t *testing.T) {
	content := contents()["text"][:200_000]
	b := gzipped(content, gzip.Header{})
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "end with data": iotest.DataErrReader,
	} {
		for _, pieceBytes := range []int{1, 3, 1000, 1 << 20} {
			got := ours(wrap(bytes.NewReader(b)), true, pieceBytes)
			if got.err != "end" || !bytes.Equal(got.content, content) {
				t.Errorf("%s in pieces of %d: %d bytes, %s", name, pieceBytes, len(got.content), got.err)
			}
		}
	}
	failure := errors.New("the disk is on fire")
	for cut := range 200 {
		src := io.MultiReader(bytes.NewReader(b[:cut*len(b)/200]), iotest.ErrReader(failure))
		want := standard(io.MultiReader(bytes.NewReader(b[:cut*len(b)/200]), iotest.ErrReader(failure)), true)
		got := ours(src, true, 4096)
		if got.err != want.err || !bytes.Equal(got.content, want.content) {
			t.Errorf("source failed after %d bytes: %d bytes, %s, not %d bytes, %s", cut*len(b)/200, len(got.content), got.err,
				len(want.content), want.err)
		}
	}
	if got := ours(stuck{}, true, 10); got.err != io.ErrNoProgress.Error() {
		t.Error("source without progress:", got.err)
	}
}

// stuck is a source that never gives anything.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// TestDamage cuts streams at every byte and turns every bit of them around.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	streams := map[string][]byte{
		"text":   deflate(contents()["text"][:700], flate.BestCompression),
		"fixed":  deflate([]byte("abcabcabcabcd, abcabc"), flate.BestCompression),
		"stored": deflate(contents()["random"][:60], flate.NoCompression),
	}
	var made bitWriter
	made.randomBlock(r, 0, 50)
	made.randomBlock(r, 1, 20)
	streams["random codes"] = made.b
	for name, b := range streams {
		for i := range b {
			compare(t, fmt.Sprintf("%s, %d of %d bytes", name, i, len(b)), b[:i], false)
			for bit := range 8 {
				c := bytes.Clone(b)
				c[i] ^= 1 << bit
				compare(t, fmt.Sprintf("%s, bit %d of byte %d", name, bit, i), c, false)
			}
		}
	}
	b := gzipped([]byte("something small"), gzip.Header{Name: "name", Comment: "comment", Extra: []byte("extra")})
	b = append(b, gzipped([]byte("and more of it"), gzip.Header{})...)
	for i := range b {
		compare(t, fmt.Sprintf("gzip, %d of %d bytes", i, len(b)), b[:i], true)
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			compare(t, fmt.Sprintf("gzip, bit %d of byte %d", bit, i), c, true)
		}
	}
}

// TestRandomCodes decodes blocks with codes such as no compressor makes.
func TestRandomCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	failed := 0
	for i := range 600 {
		var w bitWriter
		for range 3 {
			w.randomBlock(r, 0, r.IntN(400))
		}
		w.randomBlock(r, 1, r.IntN(400))
		if got := compare(t, fmt.Sprint("stream ", i), w.b, false); got.err != "end" {
			failed++
		}
	}
	if failed == 0 || failed > 450 {
		t.Errorf("%d of 600 streams are not sound", failed)
	}
}

func FuzzInflate(f *testing.F) {
	for _, content := range contents() {
		content = content[:min(len(content), 2000)]
		f.Add(deflate(content, flate.BestCompression), false)
		f.Add(gzipped(content, gzip.Header{Name: "name"}), true)
	}
	for _, h := range hostile() {
		f.Add(h.stream, false)
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		var w bitWriter
		w.randomBlock(r, 0, 100)
		w.randomBlock(r, 1, 10)
		f.Add(w.b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, framed bool) {
		const maxBytes = 16 << 10
		if len(b) > maxBytes {
			return
		}
		compare(t, "stream", b, framed)
	})
}
