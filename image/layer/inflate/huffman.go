package inflate

import "math/bits"

// A code is decoded by looking up the next bits of the stream in a table. Codes that are longer than the table's index lead
// to a second table, which the rest of their bits index. The tables lie one behind the other in one array.
//
// An entry of the literal and length table is one of
//
//	literal   31: 1  26-29: bits of the first literal  24-25: how many literals  8-15, 16-23: the literals  0-5: bits of them all
//	length    30: 0  16-24: length                                                     0-5: bits of code and extra bits
//	          29: 1  16-24: base of the length  8-10: extra bits                       0-5: bits of the code
//	other     30: 1  28: a table  27: end of block  neither: not a code
//	table            16-27: where the second table begins  8-11: bits of its index     0-5: bits of the first index
//
// Two literals whose codes fit in one index are one entry, and lengths whose extra bits fit as well are found with these.
const (
	literalFlag = 1 << 31
	otherFlag   = 1 << 30
	extraFlag   = 1 << 29
	tableFlag   = 1 << 28
	endFlag     = 1 << 27

	bitsMask = 63 // of any entry: how many bits of the stream it stands for
)

// An entry of the distance table has otherFlag for all but distances; else its bits are
//
//	15-29: base of the distance  8-11: bits of the code  0-5: bits of code and extra bits
const (
	maxCodeBits = 15

	literalBits  = 11
	distanceBits = 9

	// How many entries all tables of a code may have is known (zlib's examples/enough.c): 2342 for 288 symbols and an index
	// of 11 bits, 594 for 32 and 9. The next power of two makes any masked index a valid one.
	literalEntries  = 4096
	distanceEntries = 1024

	maxLiterals  = 286 // symbols that may occur; the fixed code has two more
	maxDistances = 30
	endOfBlock   = 256
)

// The code lengths of a block's codes come in a code of their own, in this order of symbols.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// A symbol's entry, to which the bits of its code are added.
var (
	literalSymbols  = makeLiteralSymbols()
	distanceSymbols = makeDistanceSymbols()
	lengthSymbols   = makeLengthSymbols()
)

func makeLiteralSymbols() (t [288]uint32) {
	for i := range endOfBlock {
		t[i] = literalFlag | 1<<24 | uint32(i)<<8
	}
	t[endOfBlock] = otherFlag | endFlag
	base := uint32(3)
	for i := endOfBlock + 1; i < maxLiterals-1; i++ {
		extra := uint32(max(0, (i-261)/4))
		t[i] = base<<16 | extra<<8
		if extra > 0 {
			t[i] |= extraFlag
		}
		base += 1 << extra
	}
	t[285] = 258 << 16
	t[286], t[287] = otherFlag, otherFlag
	return t
}

func makeDistanceSymbols() (t [32]uint32) {
	base := uint32(1)
	for i := range maxDistances {
		extra := uint32(max(0, (i-2)/2))
		t[i] = base<<15 | extra
		base += 1 << extra
	}
	t[30], t[31] = otherFlag, otherFlag
	return t
}

func makeLengthSymbols() (t [19]uint32) {
	for i := range t {
		t[i] = uint32(i) << 16
	}
	return t
}

// code is what lengths of codes amount to: the canonical Huffman code of RFC 1951, section 3.2.2.
type code struct {
	min, max uint // bits of the shortest and the longest code; 0 if there is none
	counts   [maxCodeBits + 1]uint16
	sorted   [288]uint16 // symbols, those with shorter codes first
}

// sort reads the lengths. It says whether every sequence of bits has a meaning; a code of one symbol, which is one bit
// long, is good as well, and one of none, as long as it is not used.
func (c *code) sort(lengths []uint8) bool {
	c.counts = [maxCodeBits + 1]uint16{}
	for _, n := range lengths {
		c.counts[n&maxCodeBits]++
	}
	c.counts[0] = 0
	c.min, c.max = 0, 0
	var next [maxCodeBits + 1]uint16
	room, total := 1, uint16(0)
	for n := 1; n <= maxCodeBits; n++ {
		next[n] = total
		count := c.counts[n]
		total += count
		room = room<<1 - int(count)
		if room < 0 {
			return false
		}
		if count > 0 {
			if c.max = uint(n); c.min == 0 {
				c.min = uint(n)
			}
		}
	}
	for s, n := range lengths {
		if n &= maxCodeBits; n != 0 {
			c.sorted[next[n]] = uint16(s)
			next[n]++
		}
	}
	return room == 0 || c.max == 0 || c.max == 1
}

// fill makes the tables of a code. table has room for them, and its first 1<<indexBits entries are the first table. A
// symbol's entry is that of symbols, plus unit for each bit of its code that is looked up in the same table.
func (c *code) fill(table, symbols []uint32, indexBits uint, unit uint32) {
	if c.max <= 1 && c.counts[1] < 2 {
		// A bit, or any, has no meaning. Its entry takes none, as there is no telling how many.
		for i := range table[:1<<indexBits] {
			table[i] = otherFlag
			if c.max == 1 && i&1 == 0 {
				table[i] = symbols[c.sorted[0]] + unit
			}
		}
		return
	}
	word, next := uint32(0), 0
	for n := uint(1); n <= min(c.max, indexBits); n++ {
		word <<= 1
		for range c.counts[n] {
			table[reverse(word, n)] = symbols[c.sorted[next]] + uint32(n)*unit
			word++
			next++
		}
		if n < indexBits {
			copy(table[1<<n:2<<n], table[:1<<n])
		}
	}
	for n := c.max + 1; n < indexBits; n++ {
		copy(table[1<<n:2<<n], table[:1<<n])
	}
	if c.max > indexBits {
		c.fillSecond(table, symbols, indexBits, unit, word, next)
	}
}

// fillSecond makes the tables of the codes longer than indexBits, of which word is the last before them, and next the first
// symbol.
func (c *code) fillSecond(table, symbols []uint32, indexBits uint, unit, word uint32, next int) {
	first := uint32(1<<indexBits - 1)
	prefix, start, end := ^uint32(0), uint32(0), uint32(1)<<indexBits
	for n := indexBits + 1; n <= c.max; n++ {
		word <<= 1
		for left := c.counts[n]; left > 0; left-- {
			w := reverse(word, n)
			if w&first != prefix {
				prefix, start = w&first, end
				size := n - indexBits
				for used := int(left); used < 1<<size; {
					size++
					used = used<<1 + int(c.counts[indexBits+size])
				}
				end = start + 1<<size
				table[prefix] = otherFlag | tableFlag | start<<16 | uint32(size)<<8 | uint32(indexBits)
			}
			entry := symbols[c.sorted[next]] + uint32(n-indexBits)*unit
			for i := start + w>>indexBits; i < end; i += 1 << (n - indexBits) {
				table[i] = entry
			}
			word++
			next++
		}
	}
}

// reverse turns a code word of n bits around: the stream has its first bit lowest.
func reverse(word uint32, n uint) uint32 {
	return uint32(bits.Reverse16(uint16(word)) >> (16 - n))
}

// combine lets an entry of the first table do as much as its index has bits for: two literals, or a length and its extra
// bits.
func combine(table *[literalEntries]uint32) {
	// Downwards, as an index without its lowest bits is a smaller one, and what is looked up is still one literal.
	for i := 1<<literalBits - 1; i >= 0; i-- {
		e := table[i]
		n := e & 15
		if e&literalFlag != 0 {
			next := table[i>>n]
			both := n + next&15
			if next&literalFlag != 0 && both <= literalBits {
				table[i] = literalFlag | n<<26 | 2<<24 | next&0xff00<<8 | e&0xff00 | both
			}
		} else if e&(otherFlag|extraFlag) == extraFlag {
			extra := e >> 8 & 7
			if n+extra <= literalBits {
				table[i] = e&0x1ff0000 + uint32(i)>>n&(1<<extra-1)<<16 | (n + extra)
			}
		}
	}
}
