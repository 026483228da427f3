package inflate

func (d *decoder) fixedCodes() {
	if d.fixed {
		return
	}
	d.fixed = true
	lengths := d.lengths[:288]
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	d.setLiterals(lengths)
	for i := range 32 {
		lengths[i] = 5
	}
	d.setDistances(lengths[:32])
}

func (d *decoder) setLiterals(lengths []uint8) bool {
	if !d.code.sort(lengths) {
		return false
	}
	d.literalMin = max(d.code.min, uint(lengths[endOfBlock]))
	d.code.fill(d.literals[:], literalSymbols[:], literalBits, 1)
	combine(&d.literals)
	return true
}

func (d *decoder) setDistances(lengths []uint8) bool {
	if !d.code.sort(lengths) {
		return false
	}
	d.distanceMin = d.code.min
	d.code.fill(d.distances[:], distanceSymbols[:], distanceBits, 0x101)
	return true
}

func (d *decoder) dynamicCodes() error {
	d.fixed = false
	head, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances, order := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if literals > maxLiterals || distances > maxDistances {
		return d.corrupt()
	}
	lengths := d.lengths[:literals+distances]
	if err := d.readLengths(lengths, order); err != nil {
		return err
	}
	if !d.setLiterals(lengths[:literals]) || !d.setDistances(lengths[literals:]) {
		return d.corrupt()
	}
	return nil
}

// readLengths reads the lengths of a block's two codes, which are compressed themselves.
func (d *decoder) readLengths(lengths []uint8, order int) error {
	const indexBits = 7
	var own [len(lengthOrder)]uint8
	for _, s := range lengthOrder[:order] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		own[s] = uint8(n)
	}
	if !d.code.sort(own[:]) {
		return d.corrupt()
	}
	var table [1 << indexBits]uint32
	d.code.fill(table[:], lengthSymbols[:], indexBits, 1)
	for i := 0; i < len(lengths); {
		e, err := d.look(table[:], indexBits, d.code.min)
		if err != nil {
			return err
		}
		if e&otherFlag != 0 {
			return d.corrupt()
		}
		d.drop(uint(e & bitsMask))
		value, count := uint8(e>>16), uint(1)
		if value >= 16 {
			var previous uint8
			if i > 0 {
				previous = lengths[i-1]
			} else if value == 16 {
				return d.corrupt()
			}
			if value, count, err = d.repeat(value, previous); err != nil {
				return err
			}
		}
		if int(count) > len(lengths)-i {
			return d.corrupt()
		}
		for range count {
			lengths[i] = value
			i++
		}
	}
	return nil
}

// repeat reads how often a length occurs: the previous one, or 0.
func (d *decoder) repeat(symbol, previous uint8) (length uint8, count uint, err error) {
	switch symbol {
	case 16:
		count, err = d.take(2)
		return previous, count + 3, err
	case 17:
		count, err = d.take(3)
		return 0, count + 3, err
	}
	count, err = d.take(7)
	return 0, count + 11, err
}
