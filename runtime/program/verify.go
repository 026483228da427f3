package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Verify checks that the image does nothing that nobody wrote: every call goes
// on at another call, results are stored only into arguments and words that take
// them, and none is used that no call on the way there has made, or after its
// descriptor was closed. It is for tests: what a Builder makes passes.
func (im *Image) Verify() error {
	var errs []error
	for i := range im.calls {
		if err := im.verifyLayout(i); err != nil {
			errs = append(errs, fmt.Errorf("call %d: %s: %w", i, im.text(i), err))
		}
	}
	return errors.Join(append(errs, im.verifyFlow())...)
}

// verifyLayout checks one call as the interpreter will read it.
func (im *Image) verifyLayout(i int) error {
	le, end := binary.LittleEndian, uint64(dataBase+len(im.ELF))
	raw := im.ELF[dataOffset+headSize+i*callSize:]
	outs, mask := uint64(le.Uint32(raw[4:])), uint64(le.Uint32(raw[8:]))
	onErrno, onZero := uint64(le.Uint32(raw[12:])), uint64(le.Uint32(raw[16:]))
	arena := callAddress(len(im.calls))
	if mask < arena || mask+maxErrno/8 > end {
		return fmt.Errorf("errnos at %#x", mask)
	}
	never := slices.Max(im.ELF[mask-dataBase:][:maxErrno/8]) == 0
	if !im.isCall(onErrno) && !never || onZero != 0 && !im.isCall(onZero) {
		return fmt.Errorf("goes on at %#x, %#x", onErrno, onZero)
	}
	for ; ; outs += 4 {
		if outs < arena || outs+4 > end {
			return fmt.Errorf("destinations at %#x", outs)
		}
		to := uint64(le.Uint32(im.ELF[outs-dataBase:]))
		if to == 0 {
			return nil
		}
		if !im.isArgument(to) && (to < arena || to%8 != 0 || to+8 > end) {
			return fmt.Errorf("stores its result at %#x", to)
		}
	}
}

func (im *Image) isCall(address uint64) bool {
	return address >= callAddress(0) && address < callAddress(len(im.calls)) && (address-callAddress(0))%callSize == 0
}

func (im *Image) isArgument(address uint64) bool {
	if address < callAddress(0) || address >= callAddress(len(im.calls)) {
		return false
	}
	i, offset := (address-callAddress(0))/callSize, (address-callAddress(0))%callSize
	return offset >= 24 && offset%8 == 0 && offset < 24+8*uint64(im.calls[i].nargs)
}

// nothing are calls that return nothing but 0, so that with a label for that
// they do not go on behind.
var nothing = [...]string{"close", "faccessat2", "linkat", "mkdirat", "mknodat", "sched_yield", "symlinkat", "unlinkat"}

// made says of each variable whether it has been given a result on every way to
// a call, and the descriptor not been closed.
type made []bool

// verifyFlow follows all ways through the program.
func (im *Image) verifyFlow() error {
	before := make([]made, len(im.calls)) // nil: not reached
	todo := []int{0}
	before[0] = make(made, im.vars)
	reach := func(i int, m made) {
		if i >= len(im.calls) {
			return
		}
		if before[i] == nil {
			before[i] = slices.Clone(m)
			todo = append(todo, i)
			return
		}
		changed := false
		for v := range m {
			if before[i][v] && !m[v] {
				before[i][v], changed = false, true
			}
		}
		if changed {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		im.successors(i, before[i], reach)
	}
	var errs []error
	for i, c := range im.calls[:len(im.calls)-2] { // without the report and the end
		if before[i] == nil {
			errs = append(errs, fmt.Errorf("call %d of step %d: %s: no way leads there", i, c.step, im.text(i)))
			continue
		}
		for j := range int(c.nargs) {
			if v := im.unmade(c.arg(j), before[i]); v >= 0 {
				errs = append(errs, fmt.Errorf("call %d of step %d: %s: $%d is not made, or closed", i, c.step, im.text(i), v))
			}
		}
	}
	return errors.Join(errs...)
}

// successors calls reach for each call that may come after call i.
func (im *Image) successors(i int, m made, reach func(int, made)) {
	c := &im.calls[i]
	name := im.name(*c)
	if name == "exit_group" {
		return
	}
	at := func(l Label) int {
		if l == nowhere {
			return i + 1
		}
		return im.labels[l]
	}
	if im.masks[c.mask] != (errnoSet{}) {
		reach(at(c.onErrno), m)
	}
	after := slices.Clone(m)
	if i == im.load {
		clear(after) // the arguments that took results are written anew
	}
	if c.into >= 0 {
		after[c.into] = true
	}
	if a := c.arg(0); name == "close" && a.kind == result {
		after[a.v] = false
	}
	if c.onZero != nowhere {
		reach(im.labels[c.onZero], after)
	}
	if (c.onZero == nowhere || !slices.Contains(nothing[:], name)) && name != "execve" {
		reach(i+1, after)
	}
}

// unmade returns a variable that an argument needs and that has no value, or -1.
func (im *Image) unmade(a Arg, m made) int {
	switch a.kind {
	case result:
		if !m[a.v] {
			return int(a.v)
		}
	case block:
		for _, w := range im.words {
			// What words point to was placed before them.
			if w.block == int(a.v) && (w.arg.kind != block || w.arg.v < a.v) {
				if v := im.unmade(w.arg, m); v >= 0 {
					return v
				}
			}
		}
	}
	return -1
}
