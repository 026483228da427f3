package inflate

import "io"

// fill reads more input, so that there are at least want bytes of it unless src has ended.
func (d *decoder) fill(want int) {
	if d.pos > 0 {
		copy(d.in[:], d.in[d.pos:d.end])
		d.offset += int64(d.pos)
		d.end -= d.pos
		d.pos = 0
	}
	const maxEmptyReads = 100
	for empty := 0; d.end < want && d.srcErr == nil; {
		n, err := d.src.Read(d.in[d.end:inBytes])
		d.end += n
		d.srcErr = err
		if n > 0 {
			empty = 0
		} else if empty++; empty > maxEmptyReads && err == nil {
			d.srcErr = io.ErrNoProgress
		}
	}
}

// unread gives back the whole bytes that are in bits.
func (d *decoder) unread() {
	d.pos -= int(d.nbits >> 3)
	d.nbits &= 7
	d.bits &= 1<<d.nbits - 1
}

// need makes sure of n bits, 15 at most.
func (d *decoder) need(n uint) error {
	for d.nbits < n {
		if d.pos == d.end {
			if d.fill(1); d.pos == d.end {
				return cut(d.srcErr)
			}
		}
		d.bits |= uint64(d.in[d.pos]) << d.nbits
		d.pos++
		d.nbits += 8
	}
	return nil
}

func (d *decoder) drop(n uint) {
	d.bits >>= n
	d.nbits -= n
}

func (d *decoder) take(n uint) (uint, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := uint(d.bits) & (1<<n - 1)
	d.drop(n)
	return v, nil
}

// readFull reads whole bytes, from the next one on. io.EOF means that there was none, io.ErrUnexpectedEOF too few.
func (d *decoder) readFull(b []byte) (n int, err error) {
	d.bits, d.nbits = 0, 0
	for n < len(b) {
		if d.pos == d.end {
			if d.fill(1); d.pos == d.end {
				if n > 0 {
					return n, cut(d.srcErr)
				}
				return 0, d.srcErr
			}
		}
		m := copy(b[n:], d.in[d.pos:d.end])
		d.pos += m
		n += m
	}
	return n, nil
}
