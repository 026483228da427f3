package inflate

import (
	"compress/gzip"
	"hash/crc32"
	"strings"
	"testing"
)

// hostileStream is one that breaks a rule, or looks as if, and what has to come of it.
type hostileStream struct {
	name   string
	stream []byte
	bytes  int // of content
	err    string
}

// made is what write writes, and enough after it that it does not lie at the source's end.
func made(write func(w *bitWriter)) []byte {
	var w bitWriter
	write(&w)
	return append(w.b, make([]byte, 100)...)
}

// flat is a code of n symbols with words of the same length, of which there must be as many as that needs.
func flat(n int, length uint8) tree {
	t := make(tree, n)
	for i := range 1 << length {
		t[i] = length
	}
	return t
}

// fixedLiterals is the fixed code of RFC 1951, section 3.2.6.
func fixedLiterals() tree {
	t := make(tree, 288)
	for i := range t {
		t[i] = 8
		if i >= 144 && i < 256 {
			t[i] = 9
		} else if i >= 256 && i < 280 {
			t[i] = 7
		}
	}
	return t
}

func hostile() []hostileStream {
	one := make(tree, 257) // the end of the block, and nothing else
	one[256] = 1
	two := make(tree, 258) // literal 0, the end of the block, a length
	two[0], two[256], two[257] = 2, 2, 1
	fixed, distances := fixedLiterals(), flat(32, 5)
	header := func(literals, distances, order uint64) func(w *bitWriter) {
		return func(w *bitWriter) {
			w.bits(1|2<<1, 3)
			w.bits(literals, 5)
			w.bits(distances, 5)
			w.bits(order, 4)
			w.bits(0, 60)
		}
	}
	match := func(literal, length, distance int) func(w *bitWriter) {
		return func(w *bitWriter) {
			w.bits(1|1<<1, 3)
			fixed.word(w, literal)
			fixed.word(w, length)
			distances.word(w, distance)
			w.bits(0, 20)
		}
	}
	return append([]hostileStream{
		{"reserved type of block", made(func(w *bitWriter) { w.bits(1|3<<1, 3) }), 0, "corrupt"},
		{"287 literals", made(header(30, 0, 0)), 0, "corrupt"},
		{"31 distances", made(header(0, 30, 0)), 0, "corrupt"},
		{"no lengths", made(header(0, 0, 15)), 0, "corrupt"},
		{"stored length and its complement", made(func(w *bitWriter) { w.bits(1, 8); w.bits(5, 16); w.bits(5, 16) }), 0, "corrupt"},
		{"empty stored block", made(func(w *bitWriter) { w.bits(1, 8); w.bits(0xffff<<16, 32) }), 0, "end"},
		{"literal 286", made(match('a', 286, 0)), 1, "corrupt"},
		{"literal 287", made(match('a', 287, 0)), 1, "corrupt"},
		{"distance 30", made(match('a', 257, 30)), 1, "corrupt"},
		{"distance 31", made(match('a', 257, 31)), 1, "corrupt"},
		{"distance 2 after 1 byte", made(match('a', 257, 1)), 1, "corrupt"},
		{"distance 1 at the start", made(func(w *bitWriter) { w.bits(3, 3); fixed.word(w, 257); distances.word(w, 0) }), 0, "corrupt"},
		{"one word", made(func(w *bitWriter) { w.dynamic(1, one, tree{0}); w.bits(0, 1) }), 0, "end"},
		{"one word, not used", made(func(w *bitWriter) { w.dynamic(1, one, tree{0}); w.bits(1, 1) }), 0, "corrupt"},
		{"no distances, but a match", made(func(w *bitWriter) { w.dynamic(1, two, tree{0}); two.word(w, 0); two.word(w, 257) }), 1, "corrupt"},
		{"one distance", made(func(w *bitWriter) {
			w.dynamic(1, two, tree{1})
			two.word(w, 0)
			two.word(w, 257)
			w.bits(0, 1)
			two.word(w, 256)
		}), 4, "end"},
		{"one distance, not used", made(func(w *bitWriter) { w.dynamic(1, two, tree{1}); two.word(w, 0); two.word(w, 257); w.bits(1, 1) }), 1, "corrupt"},
		{"no literals", made(func(w *bitWriter) { w.dynamic(1, make(tree, 257), tree{0}) }), 0, "corrupt"},
		{"too many words", made(func(w *bitWriter) { w.dynamic(1, append(flat(256, 8), 1), tree{0}) }), 0, "corrupt"},
		{"too few words", made(func(w *bitWriter) { w.dynamic(1, append(flat(256, 7), 3), tree{0}) }), 0, "corrupt"},
		{"too few distances", made(func(w *bitWriter) { w.dynamic(1, two, tree{2, 2, 2}) }), 0, "corrupt"},
	}, repeats()...)
}

// repeats are wrong repetitions of code lengths. Symbols 0, 16, 17, 18 have two bits each.
func repeats() []hostileStream {
	own := make(tree, 19)
	own[0], own[16], own[17], own[18] = 2, 2, 2, 2
	head := func(w *bitWriter) {
		w.bits(1|2<<1, 3)
		w.bits(0, 10)
		w.bits(0, 4)
		for _, s := range lengthOrder[:4] {
			w.bits(uint64(own[s]), 3)
		}
	}
	return []hostileStream{
		{"nothing to repeat", made(func(w *bitWriter) { head(w); own.word(w, 16); w.bits(0, 2) }), 0, "corrupt"},
		{"repeated too often", made(func(w *bitWriter) {
			head(w)
			for range 2 {
				own.word(w, 18)
				w.bits(127, 7)
			}
		}), 0, "corrupt"},
	}
}

func TestHostile(t *testing.T) {
	for _, h := range hostile() {
		got := compare(t, h.name, h.stream, false)
		if len(got.content) != h.bytes || got.err != h.err {
			t.Errorf("%s: %d bytes, %s; not %d bytes, %s", h.name, len(got.content), got.err, h.bytes, h.err)
		}
		for cut := range h.stream[:len(h.stream)-100] {
			compare(t, h.name+", cut", h.stream[:cut], false)
		}
	}
}

// TestShortWords has words at the end of a stream that are shorter than that for the end of the block: the standard library
// does not decode what cannot be complete.
func TestShortWords(t *testing.T) {
	literals := make(tree, 257)
	for i := range 14 {
		literals['a'+i] = uint8(i + 1)
	}
	literals['z'], literals[256] = 15, 15
	for n := range 30 {
		var w bitWriter
		w.dynamic(1, literals, tree{0})
		for range n {
			literals.word(&w, 'a')
		}
		compare(t, "stream without end", w.b, false)
	}
}

func TestGzipFiles(t *testing.T) {
	plain := gzipped([]byte("content"), gzip.Header{})
	long := strings.Repeat("x", 511)
	with := func(flags byte, more string) []byte {
		b := append([]byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255}, more...)
		return append(b, plain[10:]...)
	}
	crc := crc32.ChecksumIEEE(with(flagHeaderCRC, "")[:10])
	edit := func(at int, to byte) []byte {
		b := append([]byte{}, plain...)
		b[len(b)+at] = to
		return b
	}
	for _, f := range []struct {
		name string
		file []byte
		err  string
	}{
		{"nothing", nil, "EOF"},
		{"one member", plain, "end"},
		{"two members", append(append([]byte{}, plain...), plain...), "end"},
		{"zeros after the last member", append(append([]byte{}, plain...), make([]byte, 20)...), gzip.ErrHeader.Error()},
		{"few zeros after the last member", append(append([]byte{}, plain...), make([]byte, 5)...), "unexpected EOF"},
		{"another method", append([]byte{0x1f, 0x8b, 7}, plain[3:]...), gzip.ErrHeader.Error()},
		{"checksum", edit(-8, plain[len(plain)-8]^1), gzip.ErrChecksum.Error()},
		{"size", edit(-1, 1), gzip.ErrChecksum.Error()},
		{"header's CRC", with(flagHeaderCRC, string([]byte{byte(crc), byte(crc >> 8)})), "end"},
		{"wrong CRC of the header", with(flagHeaderCRC, string([]byte{byte(crc), byte(crc>>8) ^ 1})), gzip.ErrHeader.Error()},
		{"name of 511 bytes", with(flagName, long+"\x00"), "end"},
		{"name of 512 bytes", with(flagName, long+"x\x00"), gzip.ErrHeader.Error()},
		{"name and comment", with(flagName|flagComment, "name\x00comment\x00"), "end"},
		{"extra", with(flagExtra, "\x0d\x00twelve bytes!"), "end"},
		{"reserved flags", with(0xe0, ""), "end"},
	} {
		if got := compare(t, f.name, f.file, true); got.err != f.err {
			t.Errorf("%s: %s, not %s", f.name, got.err, f.err)
		}
		for cut := range f.file {
			compare(t, f.name+", cut", f.file[:cut], true)
		}
	}
}
