package inflate

import (
	"math/bits"
	"math/rand/v2"
)

// bitWriter makes streams by hand.
type bitWriter struct {
	b []byte
	n uint // bits used of the last byte, 0 if all
}

// bits writes the lowest n bits of v, the lowest first.
func (w *bitWriter) bits(v uint64, n uint) {
	for i := range n {
		if w.n == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << w.n
		w.n = (w.n + 1) % 8
	}
}

// tree is a code by the lengths of its words.
type tree []uint8

// word writes symbol s.
func (t tree) word(w *bitWriter, s int) {
	word := uint64(0)
	for other, n := range t {
		if n != 0 && (n < t[s] || n == t[s] && other < s) {
			word += 1 << (16 - n)
		}
	}
	w.bits(uint64(bits.Reverse16(uint16(word))), uint(t[s]))
}

// dynamic writes the header of a block with the codes literals and distances, whose own lengths are in a code in which
// each number from 0 to 15 takes four bits.
func (w *bitWriter) dynamic(last uint64, literals, distances tree) {
	w.bits(last|2<<1, 3)
	w.bits(uint64(len(literals)-257), 5)
	w.bits(uint64(len(distances)-1), 5)
	w.bits(19-4, 4)
	plain := make(tree, 19)
	for i := range 16 {
		plain[i] = 4
	}
	for _, s := range lengthOrder {
		w.bits(uint64(plain[s]), 3)
	}
	for _, t := range []tree{literals, distances} {
		for _, n := range t {
			plain.word(w, int(n))
		}
	}
}

// randomTree makes a complete code for symbols of which those in must are part.
func randomTree(r *rand.Rand, size int, must ...int) tree {
	t := make(tree, size)
	used := append([]int{}, must...)
	for _, s := range r.Perm(size)[:max(2, r.IntN(size+1))] {
		found := false
		for _, m := range must {
			found = found || m == s
		}
		if !found {
			used = append(used, s)
		}
	}
	// Split words in two until there is one for each.
	lengths := []uint8{1, 1}
	for len(lengths) < len(used) {
		i := r.IntN(len(lengths))
		if r.IntN(3) > 0 {
			i = len(lengths) - 1 // for long ones
		}
		if lengths[i] == maxCodeBits {
			continue
		}
		lengths[i]++
		lengths = append(lengths, lengths[i])
	}
	r.Shuffle(len(used), func(i, j int) { used[i], used[j] = used[j], used[i] })
	for i, s := range used {
		t[s] = lengths[i]
	}
	return t
}

// randomBlock writes a block of random symbols, sound but for distances that may reach too far.
func (w *bitWriter) randomBlock(r *rand.Rand, last uint64, symbols int) {
	literals := randomTree(r, maxLiterals, endOfBlock, 'a')
	distances := randomTree(r, maxDistances, 0)
	w.dynamic(last, literals, distances)
	var some, near []int
	for s, n := range literals {
		if n > 0 && s != endOfBlock {
			some = append(some, s)
		}
	}
	for s, n := range distances {
		if n > 0 && (s < 12 || r.IntN(20) == 0) {
			near = append(near, s)
		}
	}
	for range 300 {
		literals.word(w, 'a') // so that there is something to copy
	}
	for range symbols {
		s := some[r.IntN(len(some))]
		literals.word(w, s)
		if s < endOfBlock {
			continue
		}
		w.bits(r.Uint64(), uint(literalSymbols[s]>>8&7))
		s = near[r.IntN(len(near))]
		distances.word(w, s)
		w.bits(r.Uint64(), uint(distanceSymbols[s]&bitsMask))
	}
	literals.word(w, endOfBlock)
}
