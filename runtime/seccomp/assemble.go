package seccomp

import "slices"

// maxSkip is how far a comparison can jump: its distances are bytes.
const maxSkip = 255

// target is where a jump goes: an instruction already assembled, or the return
// of an action, which is put wherever it is in reach.
type target struct {
	at     int // -1: return
	action uint32
}

func returns(action uint32) target { return target{at: -1, action: action} }

func label(at int) target { return target{at: at} }

// assembler builds a program from its last instruction to its first. Positions
// count from the end, so they stay valid while code grows in front of them.
// Nothing falls from one piece of code into the next except a load or an and
// into what was assembled just before.
type assembler struct {
	code     []Instruction // reversed
	returned []returned
}

// returned remembers the foremost return of an action.
type returned struct {
	action uint32
	at     int
}

// program hands the instructions over in their right order.
func (a *assembler) program() []Instruction {
	slices.Reverse(a.code)
	return a.code
}

func (a *assembler) emit(in Instruction) int {
	a.code = append(a.code, in)
	return len(a.code) - 1
}

// reach returns a position for t that a comparison can jump to if no more than
// slack instructions come before it.
func (a *assembler) reach(t target, slack int) int {
	inReach := func(at int) bool { return len(a.code)+slack-at-1 <= maxSkip }
	if t.at >= 0 {
		if inReach(t.at) {
			return t.at
		}
		return a.jump(t.at)
	}
	for i := range a.returned {
		r := &a.returned[i]
		if r.action == t.action {
			if !inReach(r.at) {
				r.at = a.emit(Instruction{Code: opReturn, K: t.action})
			}
			return r.at
		}
	}
	at := a.emit(Instruction{Code: opReturn, K: t.action})
	a.returned = append(a.returned, returned{t.action, at})
	return at
}

func (a *assembler) jump(at int) int {
	return a.emit(Instruction{Code: opJump, K: uint32(len(a.code) - at - 1)})
}

// branch assembles a comparison of the accumulator with k.
func (a *assembler) branch(code uint16, k uint32, yes, no target) target {
	y := a.reach(yes, 1) // reaching no may put one instruction between
	n := a.reach(no, 0)
	here := len(a.code)
	return label(a.emit(Instruction{Code: code, Jt: uint8(here - y - 1), Jf: uint8(here - n - 1), K: k}))
}

// load assembles a load, after which the program goes on at next.
func (a *assembler) load(offset uint32, next target) target {
	a.flowInto(next)
	return label(a.emit(Instruction{Code: opLoad, K: offset}))
}

// and masks the accumulator, after which the program goes on at next.
func (a *assembler) and(mask uint32, next target) target {
	a.flowInto(next)
	return label(a.emit(Instruction{Code: opAnd, K: mask}))
}

// flowInto makes next follow.
func (a *assembler) flowInto(next target) {
	if at := a.reach(next, 0); at != len(a.code)-1 {
		a.jump(at)
	}
}
