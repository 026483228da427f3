//go:generate sh -c "asm/generate.sh > interpreter.go"

package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

// Where the parts of an image lie. Both segments come from the start of the
// file, so the data segment's address is its file offset plus a constant that
// any page size up to 64 KiB divides.
const (
	codeBase   = 0x400000
	dataBase   = 0x410000
	headerSize = 64 + 3*56
	dataOffset = 0x1000
	callSize   = 72
	reportSize = 16
)

// The data segment begins with what calls of different programs have at the same
// place: the failure report, the address of the call that sends it, and a word
// that nobody reads. The calls follow.
const (
	dataAddress    = dataBase + dataOffset
	senderOffset   = reportSize
	scratchAddress = dataAddress + 24
	headSize       = 32
)

type machine struct {
	elf         uint16
	interpreter string
}

// machines holds what differs between architectures.
var machines = map[string]machine{
	"amd64": {62, interpreterAMD64},
	"arm64": {183, interpreterARM64},
}

// The words of the interpreter that an image fills in.
const (
	patchFirst  = "\x01\x00\x00\x10"
	patchReport = "\x02\x00\x00\x10"
)

// An Image is a complete ELF file and what is needed to read its reports.
type Image struct {
	// ELF is the file.
	ELF   []byte
	arch  linux.Arch
	calls []call
	arena []byte
	addr  func(Arg) uint64

	// What Verify looks at.
	labels []int
	masks  []errnoSet
	words  []word
	vars   int
	load   int
}

// Image lays the program out. The Builder must not be used afterwards.
func (b *Builder) Image() (*Image, error) {
	failed, err := b.finish()
	if err != nil {
		return nil, err
	}
	im := &Image{}
	code := len(b.calls) * callSize
	outs, masks, dests := b.placeLists()
	addr := func(a Arg) uint64 {
		switch a.kind {
		case text, block:
			return callAddress(0) + uint64(code) + a.v
		case place:
			return callAddress(b.labels[a.v])
		case result:
			return 0
		default:
			return a.v
		}
	}
	for _, w := range b.words {
		binary.LittleEndian.PutUint64(b.arena[w.offset:], addr(w.arg))
	}
	for _, d := range dests {
		at := callAddress(int(d.call)) + 24 + uint64(d.arg)*8
		if d.call < 0 {
			at = addr(Arg{block, uint64(d.arg)})
		}
		binary.LittleEndian.PutUint32(b.arena[d.slot:], uint32(at))
	}
	elf := make([]byte, dataOffset+headSize, dataOffset+headSize+code+len(b.arena))
	binary.LittleEndian.PutUint64(elf[dataOffset+senderOffset:], callAddress(b.labels[failed]))
	for i := range b.calls {
		elf = b.appendCall(elf, i, outs[i], masks[b.calls[i].mask], addr)
	}
	elf = append(elf, b.arena...)
	size := len(elf) - dataOffset
	if size > maxData {
		return nil, errors.New("program: too large: more than 32 MiB")
	}
	if b.load >= 0 {
		size = maxData // whatever is read has room
	}
	if err := putHeader(elf, b.goarch, size); err != nil {
		return nil, err
	}
	im.ELF, im.arch, im.calls, im.arena, im.addr = elf, b.arch, b.calls, b.arena, addr
	im.labels, im.masks, im.words, im.vars, im.load = b.labels, b.masks, b.words, b.vars, b.load
	return im, nil
}

func callAddress(index int) uint64 {
	return dataAddress + headSize + uint64(index)*callSize
}

// A destination is a place that a variable's value goes to: an argument of a call, or,
// with call < 0, the word of the arena at offset arg. Its address is written to
// the arena at slot.
type destination struct{ variable, call, arg, slot int32 }

// destinations are all of the program, in the order of its calls and words.
func (b *Builder) destinations() []destination {
	ds := make([]destination, 0, len(b.calls))
	for i := range b.calls {
		for j, c := 0, &b.calls[i]; j < int(c.nargs); j++ {
			if c.kinds[j] == result {
				ds = append(ds, destination{variable: int32(c.args[j]), call: int32(i), arg: int32(j)})
			}
		}
	}
	for _, w := range b.words {
		if w.arg.kind == result {
			ds = append(ds, destination{variable: int32(w.arg.v), call: -1, arg: int32(w.offset)})
		}
	}
	for _, r := range b.reports {
		for _, sender := range b.reporters {
			ds = append(ds, destination{variable: int32(r), call: int32(sender)})
		}
	}
	return ds
}

// placeLists puts the lists of destinations and the sets of tolerated errnos
// into the arena and returns their offsets: those of the lists by call, those
// of the sets by their index.
func (b *Builder) placeLists() (outs, masks []int, dests []destination) {
	b.align()
	empty := len(b.arena)
	b.arena = append(b.arena, 0, 0, 0, 0)
	masks = make([]int, len(b.masks))
	for i, set := range b.masks {
		masks[i] = len(b.arena)
		for _, w := range set {
			b.arena = binary.LittleEndian.AppendUint32(b.arena, w)
		}
	}
	dests = b.destinations()
	lengths, lists := make([]int, b.vars), make([]int, b.vars)
	for i := range dests {
		d := &dests[i]
		d.slot = int32(4 * lengths[d.variable])
		lengths[d.variable]++
	}
	end := len(b.arena)
	for v, n := range lengths {
		lists[v] = end
		end += 4 * (n + 1) // 0 ends a list
	}
	b.arena = append(b.arena, make([]byte, end-len(b.arena))...)
	for i := range dests {
		dests[i].slot += int32(lists[dests[i].variable])
	}
	outs = make([]int, len(b.calls))
	for i := range b.calls {
		outs[i] = empty
		if into := b.calls[i].into; into >= 0 {
			outs[i] = lists[into]
		}
	}
	return outs, masks, dests
}

func (b *Builder) appendCall(elf []byte, i, outs, mask int, addr func(Arg) uint64) []byte {
	le, c := binary.LittleEndian, &b.calls[i]
	target := func(l Label, otherwise uint64) uint32 {
		if l == nowhere {
			return uint32(otherwise)
		}
		return uint32(callAddress(b.labels[l]))
	}
	elf = le.AppendUint32(elf, uint32(c.nr))
	elf = le.AppendUint32(elf, uint32(addr(Arg{block, uint64(outs)})))
	elf = le.AppendUint32(elf, uint32(addr(Arg{block, uint64(mask)})))
	elf = le.AppendUint32(elf, target(c.onErrno, callAddress(i+1)))
	elf = le.AppendUint32(elf, target(c.onZero, 0))
	elf = le.AppendUint32(elf, 0)
	for j := range c.args {
		elf = le.AppendUint64(elf, addr(c.arg(j)))
	}
	return elf
}

// putHeader writes the ELF header, the program headers and the interpreter
// into the first page. Size is that of the data in memory.
func putHeader(elf []byte, goarch string, size int) error {
	m := machines[goarch]
	code := strings.Replace(m.interpreter, patchFirst, word32(callAddress(0)), 1)
	code = strings.Replace(code, patchReport, word32(dataAddress), 1)
	if headerSize+len(code) > dataOffset || code == m.interpreter {
		return fmt.Errorf("program: bad interpreter for %s", goarch)
	}
	const (
		load, gnuStack   = 1, 0x6474e551
		exec, write, get = 1, 2, 4
	)
	le := binary.LittleEndian
	h := make([]byte, 0, headerSize+len(code))
	h = append(h, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	h = le.AppendUint16(h, 2) // ET_EXEC
	h = le.AppendUint16(h, m.elf)
	h = le.AppendUint32(h, 1)
	h = le.AppendUint64(h, codeBase+headerSize) // e_entry
	h = le.AppendUint64(h, 64)                  // e_phoff
	h = le.AppendUint64(h, 0)                   // e_shoff
	h = le.AppendUint32(h, 0)                   // e_flags
	for _, v := range []uint16{64, 56, 3, 0, 0, 0} {
		h = le.AppendUint16(h, v) // e_ehsize, e_phentsize, e_phnum, no sections
	}
	segment := func(kind, flags uint32, offset, vaddr, size, memory uint64) {
		h = le.AppendUint32(h, kind)
		h = le.AppendUint32(h, flags)
		for _, v := range []uint64{offset, vaddr, vaddr, size, memory, 0x10000} {
			h = le.AppendUint64(h, v)
		}
	}
	segment(load, get|exec, 0, codeBase, uint64(headerSize+len(code)), uint64(headerSize+len(code)))
	segment(load, get|write, dataOffset, dataAddress, uint64(len(elf)-dataOffset), uint64(size))
	segment(gnuStack, get|write, 0, 0, 0, 0)
	copy(elf, append(h, code...))
	return nil
}

func word32(v uint64) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(v)))
}
