package inflate

import "encoding/binary"

// How a run of fast ends.
const (
	unfinished = iota
	over       // the block is
	corrupt
)

// fast decodes symbols until the block is over, or there is neither input nor room for another round. A round is up to
// three entries of literals, or up to two and a match.
//
// How it is written matters: indexes are masked, or compared with a constant, so that the compiler sees that they are in
// range (go build -gcflags=-d=ssa/check_bce shows the checks that are left); the next entry is looked up before the match
// is copied, so that the processor does both at once.
func (d *decoder) fast() error {
	bits, n, ip, op := d.bits, d.nbits, d.pos, d.op
	lastIP := d.end - 16
	result := unfinished
	bits |= binary.LittleEndian.Uint64(d.in[ip&inMask:ip&inMask+8]) << (n & 63)
	ip += int(63-n) >> 3
	n |= 56
	e := d.literals[bits&(1<<literalBits-1)]
	for ip <= lastIP && op < outLimit {
		bits |= binary.LittleEndian.Uint64(d.in[ip&inMask:ip&inMask+8]) << (n & 63)
		ip += int(63-n) >> 3
		n |= 56
		if e&literalFlag != 0 {
			binary.LittleEndian.PutUint16(d.out[op:op+2], uint16(e>>8))
			op += int(e >> 24 & 3)
			bits >>= e & bitsMask
			n -= uint(e & bitsMask)
			e = d.literals[bits&(1<<literalBits-1)]
			if e&literalFlag != 0 {
				binary.LittleEndian.PutUint16(d.out[op:op+2], uint16(e>>8))
				op += int(e >> 24 & 3)
				bits >>= e & bitsMask
				n -= uint(e & bitsMask)
				e = d.literals[bits&(1<<literalBits-1)]
				if e&literalFlag != 0 {
					binary.LittleEndian.PutUint16(d.out[op:op+2], uint16(e>>8))
					op += int(e >> 24 & 3)
					bits >>= e & bitsMask
					n -= uint(e & bitsMask)
					e = d.literals[bits&(1<<literalBits-1)]
					continue
				}
			}
		}
		if e&(otherFlag|extraFlag) != 0 {
			if e&(otherFlag|tableFlag) == otherFlag|tableFlag {
				bits >>= e & bitsMask
				n -= uint(e & bitsMask)
				e = d.literals[(uint64(e>>16&0xfff)+bits&(1<<(e>>8&15)-1))&(literalEntries-1)]
				if e&literalFlag != 0 {
					d.out[op] = byte(e >> 8)
					op++
					bits >>= e & bitsMask
					n -= uint(e & bitsMask)
					e = d.literals[bits&(1<<literalBits-1)]
					continue
				}
			}
			if e&otherFlag != 0 {
				bits >>= e & bitsMask
				n -= uint(e & bitsMask)
				result = corrupt
				if e&endFlag != 0 {
					result = over
				}
				break
			}
		}
		length := int(e >> 16 & 0x1ff)
		bits >>= e & bitsMask
		n -= uint(e & bitsMask)
		if e&extraFlag != 0 {
			x := e >> 8 & 7
			length += int(bits & (1<<x - 1))
			bits >>= x
			n -= uint(x)
		}

		bits |= binary.LittleEndian.Uint64(d.in[ip&inMask:ip&inMask+8]) << (n & 63)
		ip += int(63-n) >> 3
		n |= 56
		e = d.distances[bits&(1<<distanceBits-1)]
		if e&otherFlag != 0 {
			if e&tableFlag != 0 {
				bits >>= e & bitsMask
				n -= uint(e & bitsMask)
				e = d.distances[(uint64(e>>16&0xfff)+bits&(1<<(e>>8&15)-1))&(distanceEntries-1)]
			}
			if e&otherFlag != 0 {
				result = corrupt
				break
			}
		}
		distance := int(e>>15&0x7fff) + int(bits&(1<<(e&bitsMask)-1)>>(e>>8&15))
		bits >>= e & bitsMask
		n -= uint(e & bitsMask)
		e = d.literals[bits&(1<<literalBits-1)]

		from := op - distance
		if from < d.start {
			result = corrupt
			break
		}
		to := op
		op += length
		switch {
		case distance >= 8:
			for ; to < op; to += 8 {
				binary.LittleEndian.PutUint64(d.out[to:to+8], binary.LittleEndian.Uint64(d.out[from:from+8]))
				from += 8
			}
		case distance == 1:
			same := uint64(d.out[from]) * 0x0101010101010101
			for ; to < op; to += 8 {
				binary.LittleEndian.PutUint64(d.out[to:to+8], same)
			}
		default:
			for to < op {
				binary.LittleEndian.PutUint64(d.out[to:to+8], binary.LittleEndian.Uint64(d.out[from:from+8]))
				to += distance
				from += distance
			}
		}
	}
	d.bits, d.nbits, d.pos, d.op = bits, n, ip, op
	d.unread()
	switch result {
	case over:
		d.endBlock()
	case corrupt:
		return d.corrupt()
	}
	return nil
}
