package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/safepath"
)

// rawHeader is a header block as archive/tar would not write it; change is made before the checksum is right.
func rawHeader(typ byte, name string, change func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if change != nil {
		change(b)
	}
	fixChecksum(b)
	return b
}

func fixChecksum(b []byte) {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// size sets the size field: in octal, or where it does not fit in base 256.
func size(n int64) func([]byte) {
	return func(b []byte) {
		if n >= 0 && n < 1<<33 {
			copy(b[124:], fmt.Sprintf("%011o\x00", n))
			return
		}
		field := b[124:136]
		for i := range field {
			shift := 8 * (len(field) - 1 - i)
			if shift >= 64 {
				field[i] = byte(n >> 63)
			} else {
				field[i] = byte(n >> shift)
			}
		}
		field[0] |= 0x80
	}
}

func joined(parts ...[]byte) io.Reader { return bytes.NewReader(bytes.Join(parts, nil)) }

// paxHeader is an extended header of these records, key and value in turn.
func paxHeader(pairs ...string) []byte {
	var data []byte
	for i := 0; i < len(pairs); i += 2 {
		record := fmt.Sprintf(" %s=%s\n", pairs[i], pairs[i+1])
		n := len(record)
		for n < len(record)+len(fmt.Sprint(n)) {
			n = len(record) + len(fmt.Sprint(n))
		}
		data = append(data, fmt.Sprint(n)+record...)
	}
	return append(rawHeader('x', "pax", size(int64(len(data)))), append(data, make([]byte, -len(data)&511)...)...)
}

// endless repeats a block.
type endless struct {
	block []byte
	n     int64 // how many
	read  int64
}

func (e *endless) Read(b []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	e.n--
	e.read += int64(len(e.block))
	return copy(b, e.block), nil // readers here ask for much more than a block
}

// hostile is one layer that has to be refused.
type hostile struct {
	blob    func(t *testing.T) io.Reader
	options Options
	is      error  // in the chain of the error
	text    string // in the error
}

func entries(headers ...*tar.Header) func(t *testing.T) io.Reader {
	return func(t *testing.T) io.Reader { return bytes.NewReader(archive(t, headers...)) }
}

func parts(blocks ...[]byte) func(t *testing.T) io.Reader {
	return func(*testing.T) io.Reader { return joined(blocks...) }
}

// oldSparse is the header of a sparse file in the old GNU format, of 16 stored bytes.
func oldSparse(realSize int64, extents ...int64) []byte {
	return rawHeader('S', "sparse", func(b []byte) {
		copy(b[257:], "ustar  \x00")
		size(16)(b)
		for i, n := range extents {
			copy(b[386+12*i:], fmt.Sprintf("%011o\x00", n))
		}
		copy(b[483:], fmt.Sprintf("%011o\x00", realSize))
	})
}

// sparse01 is a sparse file in PAX format 0.1, of 16 stored bytes.
func sparse01(sizeBytes, blocks, extents string) func(*testing.T) io.Reader {
	return parts(paxHeader("GNU.sparse.size", sizeBytes, "GNU.sparse.numblocks", blocks, "GNU.sparse.map", extents),
		rawHeader('0', "f", size(16)), make([]byte, 512), make([]byte, 1024))
}

// corpus are bad layers by what is bad about them.
func corpus() map[string]hostile {
	tail, data := make([]byte, 1024), make([]byte, 512)
	big := &endless{block: make([]byte, 512), n: 1 << 40}
	return map[string]hostile{
		"dot dot":                      {blob: entries(file("../../etc/passwd")), is: safepath.ErrEscapes},
		"dot dot in the middle":        {blob: entries(file("a/../../x")), is: safepath.ErrEscapes},
		"whiteout of dot dot":          {blob: entries(file("d/.wh...")), is: errWhiteout},
		"whiteout of nothing":          {blob: entries(file(".wh.")), is: errWhiteout},
		"whiteout of dot":              {blob: entries(file(".wh..")), is: errWhiteout},
		"whiteout with a slash":        {blob: entries(file(".wh.a/../../outside")), is: safepath.ErrEscapes},
		"opaque through dot dot":       {blob: entries(file("../.wh..wh..opq")), is: safepath.ErrEscapes},
		"hard link outside":            {blob: entries(hardlink("l", "../outside/secret")), is: safepath.ErrEscapes},
		"hard link to a later entry":   {blob: entries(hardlink("l", "later"), file("later")), text: "no such file"},
		"hard link through a symlink":  {blob: entries(symlink("s", "../outside"), hardlink("l", "s/secret")), text: "no such file"},
		"device":                       {blob: entries(device("null")), is: ErrDevice},
		"device number that is absurd": {blob: entries(&tar.Header{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 1 << 20, Devminor: 1}), options: Options{Devices: DevicesCreate}, text: "does not exist"},
		"entry through a file":         {blob: entries(file("f"), file("f/x")), text: "not a directory"},
		"unknown type":                 {blob: parts(rawHeader('Q', "f", nil), tail), is: tarstream.ErrHeader},

		"10 million entries":     {blob: func(*testing.T) io.Reader { return &endless{block: rawHeader('0', "f", nil), n: 10e6} }, options: Options{Limits: Limits{Entries: 1000}}, is: ErrLimit},
		"name of 5 MiB, PAX":     {blob: parts(paxHeader("path", strings.Repeat("n/", 5<<19)), rawHeader('0', "f", nil), tail), is: tarstream.ErrTooLarge},
		"name of 5 MiB, allowed": {blob: parts(paxHeader("path", strings.Repeat("n/", 5<<19)), rawHeader('0', "f", nil), tail), options: Options{Limits: Limits{MetaBytes: 8 << 20}}, text: "longer than 4095 bytes"},
		"name of 5 MiB, GNU":     {blob: parts(rawHeader('L', "@", size(5<<20)), bytes.Repeat([]byte("n"), 5<<20), rawHeader('0', "f", nil), tail), is: tarstream.ErrTooLarge},
		"link of 5 MiB":          {blob: parts(rawHeader('K', "@", size(5<<20)), bytes.Repeat([]byte("n"), 5<<20), rawHeader('2', "f", nil), tail), is: tarstream.ErrTooLarge},
		"PAX header of 100 MiB":  {blob: func(*testing.T) io.Reader { return io.MultiReader(joined(rawHeader('x', "p", size(100<<20))), big) }, is: tarstream.ErrTooLarge},
		"PAX header of 2^62":     {blob: func(*testing.T) io.Reader { return io.MultiReader(joined(rawHeader('x', "p", size(1<<62))), big) }, is: tarstream.ErrTooLarge},
		"long names without end": {blob: func(*testing.T) io.Reader { return &endless{block: rawHeader('L', "@", nil), n: 1 << 40} }, is: ErrLimit, options: Options{Limits: Limits{SizeBytes: 16 << 20}}},

		"negative size":           {blob: parts(rawHeader('0', "f", size(-1)), tail), is: tarstream.ErrHeader},
		"negative PAX size":       {blob: parts(paxHeader("size", "-5"), rawHeader('0', "f", nil), tail), is: tarstream.ErrHeader},
		"size of 2^63-1":          {blob: parts(rawHeader('0', "f", size(math.MaxInt64)), data, tail), is: tarstream.ErrHeader},
		"size of 2^62":            {blob: parts(rawHeader('0', "f", size(1<<62)), data, tail), is: io.ErrUnexpectedEOF},
		"size beyond the end":     {blob: parts(rawHeader('0', "f", size(8<<30)), data, tail), is: io.ErrUnexpectedEOF},
		"size of no number":       {blob: parts(rawHeader('0', "f", func(b []byte) { copy(b[124:], "123456789xyz") }), tail), is: tarstream.ErrHeader},
		"negative owner":          {blob: parts(paxHeader("uid", "-1"), rawHeader('0', "f", nil), tail), is: tarstream.ErrHeader},
		"owner beyond 2^32":       {blob: parts(paxHeader("uid", "4294967296"), rawHeader('0', "f", nil), tail), text: "does not exist"},
		"time of no number":       {blob: parts(paxHeader("mtime", "yesterday"), rawHeader('0', "f", nil), tail), is: tarstream.ErrHeader},
		"sparse, overlapping":     {blob: parts(oldSparse(100, 0, 10, 5, 6), data, tail), is: tarstream.ErrHeader},
		"sparse, beyond the end":  {blob: parts(oldSparse(10, 0, 16), data, tail), is: tarstream.ErrHeader},
		"sparse, wrong sum":       {blob: parts(oldSparse(100, 0, 10), data, tail), is: tarstream.ErrHeader},
		"sparse, overflowing":     {blob: sparse01("9223372036854775807", "2", "9223372036854775800,7,9223372036854775807,9"), is: tarstream.ErrHeader},
		"sparse, negative":        {blob: sparse01("100", "1", "-16,16"), is: tarstream.ErrHeader},
		"sparse, overlapping PAX": {blob: sparse01("100", "2", "0,8,4,8"), is: tarstream.ErrHeader},
		"sparse, absurd count":    {blob: sparse01("100", "999999999999", "0,16"), is: tarstream.ErrHeader},

		"wrong checksum":   {blob: func(t *testing.T) io.Reader { b := archive(t, file("f")); b[0] ^= 1; return joined(b) }, is: tarstream.ErrHeader},
		"trailing garbage": {blob: func(t *testing.T) io.Reader { return joined(archive(t, file("f")), []byte("garbage")) }, is: tarstream.ErrTrailing},
		"trailing archive": {blob: func(t *testing.T) io.Reader { return joined(archive(t, file("f")), archive(t, file("g"))) }, is: tarstream.ErrTrailing},
		"gzip, bad CRC": {blob: func(t *testing.T) io.Reader {
			b := compressGzip(t, archive(t, file("f")))
			b[len(b)-8] ^= 1
			return joined(b)
		}, text: "checksum"},
		"gzip, bad length": {blob: func(t *testing.T) io.Reader {
			b := compressGzip(t, archive(t, file("f")))
			b[len(b)-1] ^= 1
			return joined(b)
		}, text: "checksum"},
		"zstd, 2 GiB window":   {blob: parts([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0}), is: zstd.ErrWindowSizeExceeded},
		"zstd, 256 MiB window": {blob: parts([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0}), is: zstd.ErrWindowSizeExceeded}, // the next after the largest that is taken
		"diffID of another":    {blob: entries(file("f")), options: Options{DiffID: "sha256:0123456789012345678901234567890123456789012345678901234567890123"}, is: ErrDiffID},
		"encrypted":            {blob: entries(file("f")), options: Options{MediaType: encryptedGzip}, is: ErrEncrypted},
		"unknown media type":   {blob: entries(file("f")), options: Options{MediaType: "application/x-layer"}, is: ErrCompression},
	}
}

// TestCorpus: each bad layer is refused in every form, with an error that names the blob and is short, in little memory, and
// nothing outside of the root has changed.
func TestCorpus(t *testing.T) {
	for what, c := range corpus() {
		t.Run(what, func(t *testing.T) {
			for _, form := range []Form{Flat, Overlay} {
				if form == Overlay {
					testenv.Root(t)
					if strings.HasPrefix(what, "hard link to") || strings.HasPrefix(what, "hard link through") {
						continue // left to Complete: TestOverlayLinksToLower
					}
				}
				root, _, _ := sandbox(t)
				o := ownable(c.options)
				o.Name, o.Form = blobName, form
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, err := Apply(t.Context(), c.blob(t), root, o)
				runtime.ReadMemStats(&after)
				switch {
				case err == nil:
					t.Fatal("applied")
				case c.is != nil && !errors.Is(err, c.is), !strings.Contains(err.Error(), c.text):
					t.Errorf("error %v, want %v %q", err, c.is, c.text)
				case !strings.Contains(err.Error(), blobName), len(err.Error()) > 1000:
					t.Errorf("error %.2000s", err)
				}
				const maxBytes = 40 << 20
				if n := after.TotalAlloc - before.TotalAlloc; n > maxBytes {
					t.Errorf("took %d MiB of memory", n>>20)
				}
			}
		})
	}
}
