package seccomp

import "math"

// emitter assembles the code of one architecture.
type emitter struct {
	*assembler
	fallback  target // the default action
	wide      bool   // 64-bit arguments
	bigEndian bool
}

// offsets returns where the halves of an argument are.
func (e emitter) offsets(arg uint32) (low, high uint32) {
	at := offsetArgs + 8*arg
	if e.bigEndian {
		return at + 4, at
	}
	return at, at + 4
}

// chain assembles rules in the order they are tried, ending in the default
// action.
func (e emitter) chain(rules []rule) target {
	next := e.fallback
	for end := len(rules); end > 0; {
		start := end - 1
		for start > 0 && e.alike(rules[start-1], rules[start]) {
			start--
		}
		next = e.alternatives(rules[start:end], next)
		end = start
	}
	return next
}

// alike reports whether two rules ask if the same argument has one value, and
// that with the same upper half, so that both halves need loading only once.
func (e emitter) alike(a, b rule) bool {
	if len(a.conditions) != 1 || len(b.conditions) != 1 {
		return false
	}
	x, y := a.conditions[0], b.conditions[0]
	return x.op == equal && y.op == equal && x.mask == math.MaxUint64 && y.mask == math.MaxUint64 &&
		x.arg == y.arg && high(x.value) == high(y.value)
}

// alternatives assembles rules that are alike, or a single one.
func (e emitter) alternatives(rules []rule, no target) target {
	if len(rules) == 1 {
		return e.all(rules[0].conditions, returns(rules[0].action), no)
	}
	first := rules[0].conditions[0]
	at := no
	for i := len(rules) - 1; i >= 0; i-- {
		at = e.branch(opEqual, low(rules[i].conditions[0].value), returns(rules[i].action), at)
	}
	lowOffset, highOffset := e.offsets(first.arg)
	at = e.load(lowOffset, at)
	if e.wide {
		at = e.load(highOffset, e.branch(opEqual, high(first.value), at, no))
	}
	return at
}

// all assembles conditions that must all hold.
func (e emitter) all(conditions []condition, yes, no target) target {
	for i := len(conditions) - 1; i >= 0; i-- {
		yes = e.condition(conditions[i], yes, no)
	}
	return yes
}

func (e emitter) condition(c condition, yes, no target) target {
	switch c.op {
	case notEqual:
		return e.equal(c, no, yes)
	case greater:
		return e.above(opGT, c, yes, no)
	case greaterEqual:
		return e.above(opGE, c, yes, no)
	case less:
		return e.above(opGE, c, no, yes)
	case lessEqual:
		return e.above(opGT, c, no, yes)
	}
	return e.equal(c, yes, no)
}

func (e emitter) equal(c condition, yes, no target) target {
	lowOffset, highOffset := e.offsets(c.arg)
	if low(c.mask) != 0 {
		yes = e.equalWord(lowOffset, low(c.mask), low(c.value), yes, no)
	}
	if e.wide && high(c.mask) != 0 {
		yes = e.equalWord(highOffset, high(c.mask), high(c.value), yes, no)
	}
	return yes
}

func (e emitter) equalWord(offset, mask, value uint32, yes, no target) target {
	switch {
	case mask == math.MaxUint32:
		return e.load(offset, e.branch(opEqual, value, yes, no))
	case value == 0: // none of the bits: one instruction instead of two
		return e.load(offset, e.branch(opSet, mask, no, yes))
	}
	return e.load(offset, e.and(mask, e.branch(opEqual, value, yes, no)))
}

// above assembles > or >=, by code: the upper halves decide unless they are equal.
func (e emitter) above(code uint16, c condition, yes, no target) target {
	lowOffset, highOffset := e.offsets(c.arg)
	at := e.load(lowOffset, e.branch(code, low(c.value), yes, no))
	if !e.wide {
		return at
	}
	if high(c.value) == 0 {
		return e.load(highOffset, e.branch(opEqual, 0, at, yes))
	}
	at = e.branch(opEqual, high(c.value), at, no)
	return e.load(highOffset, e.branch(opGT, high(c.value), yes, at))
}

func low(v uint64) uint32 { return uint32(v) }

func high(v uint64) uint32 { return uint32(v >> 32) }

// span is a run of system call numbers, up to the next span's first, with one verdict.
type span struct {
	first   uint32
	verdict int
}

// tree assembles the search for the span of the number in the accumulator. The
// spans cover all numbers.
func (e emitter) tree(spans []span, verdicts []target) target {
	switch n := len(spans); {
	case n == 1:
		return verdicts[spans[0].verdict]
	case n == 3 && spans[0].verdict == spans[2].verdict && spans[1].first+1 == spans[2].first:
		return e.branch(opEqual, spans[1].first, verdicts[spans[1].verdict], verdicts[spans[0].verdict])
	}
	middle := len(spans) / 2
	above := e.tree(spans[middle:], verdicts)
	below := e.tree(spans[:middle], verdicts)
	return e.branch(opGE, spans[middle].first, above, below)
}
