package inflate

import (
	"compress/flate"
	"encoding/binary"
)

// corrupt says that the stream is not DEFLATE, and after about how many bytes of it that was seen.
func (d *decoder) corrupt() error { return flate.CorruptInputError(d.offset + int64(d.pos)) }

func (d *decoder) block() error {
	head, err := d.take(3)
	if err != nil {
		return err
	}
	d.last = head&1 != 0
	switch head >> 1 {
	case 0:
		return d.storedHeader()
	case 1:
		d.fixedCodes()
	case 2:
		err = d.dynamicCodes()
	default:
		err = d.corrupt()
	}
	if err == nil {
		d.state = inCodes
	}
	return err
}

func (d *decoder) endBlock() {
	d.state = atBlock
	if d.last {
		d.state = atEnd
	}
}

func (d *decoder) storedHeader() error {
	d.bits, d.nbits = 0, 0
	if d.end-d.pos < 4 {
		if d.fill(4); d.end < 4 {
			d.pos = d.end
			return cut(d.srcErr)
		}
	}
	n := binary.LittleEndian.Uint16(d.in[d.pos:])
	complement := binary.LittleEndian.Uint16(d.in[d.pos+2:])
	d.pos += 4
	if n != ^complement {
		return d.corrupt()
	}
	d.state, d.stored = inStored, int(n)
	return nil
}

func (d *decoder) copyStored() error {
	if d.stored == 0 {
		d.endBlock()
		return nil
	}
	if d.pos == d.end {
		if d.fill(1); d.pos == d.end {
			return cut(d.srcErr)
		}
	}
	n := copy(d.out[d.op:outLimit], d.in[d.pos:min(d.end, d.pos+d.stored)])
	d.op += n
	d.pos += n
	d.stored -= n
	return nil
}

// look finds what the next bits mean. Bits of a first table that led to a second one are dropped.
func (d *decoder) look(table []uint32, indexBits, atLeast uint) (e uint32, err error) {
	for n := atLeast; ; {
		if err := d.need(n); err != nil {
			return 0, err
		}
		e = table[d.bits&(1<<indexBits-1)]
		first := uint(0)
		if e&(literalFlag|otherFlag|tableFlag) == otherFlag|tableFlag {
			first = indexBits
			e = table[uint64(e>>16&0xfff)+d.bits>>indexBits&(1<<(e>>8&15)-1)]
		}
		if e&literalFlag != 0 && e>>24&3 == 2 {
			e = literalFlag | 1<<24 | e&0xff00 | e>>26&15 // one at a time
		}
		if n = first + uint(e&bitsMask); n <= d.nbits {
			d.drop(first)
			return e, nil
		}
	}
}

// careful decodes one symbol, reading no byte before it has to.
func (d *decoder) careful() error {
	e, err := d.look(d.literals[:], literalBits, d.literalMin)
	if err != nil {
		return err
	}
	d.drop(uint(e & bitsMask))
	switch {
	case e&literalFlag != 0:
		d.out[d.op] = byte(e >> 8)
		d.op++
		return nil
	case e&(otherFlag|endFlag) == otherFlag|endFlag:
		d.endBlock()
		return nil
	case e&otherFlag != 0:
		return d.corrupt()
	}
	length := int(e >> 16 & 0x1ff)
	if e&extraFlag != 0 {
		extra, err := d.take(uint(e >> 8 & 7))
		if err != nil {
			return err
		}
		length += int(extra)
	}
	if e, err = d.look(d.distances[:], distanceBits, d.distanceMin); err != nil {
		return err
	}
	if e&otherFlag != 0 {
		return d.corrupt()
	}
	distance := int(e>>15&0x7fff) + int(d.bits&(1<<(e&bitsMask)-1)>>(e>>8&15))
	d.drop(uint(e & bitsMask))
	if distance > d.op-d.start {
		return d.corrupt()
	}
	for range length {
		d.out[d.op] = d.out[d.op-distance]
		d.op++
	}
	return nil
}
