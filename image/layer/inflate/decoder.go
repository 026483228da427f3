package inflate

import "io"

const (
	windowBytes = 32 << 10 // how far back a distance may reach

	// The decoder stops where out has no room for what one more round of its loop may write: six literals, a match, and
	// what is copied too much because it is copied in large steps; and for as much as the compiler thinks possible.
	roundBytes = 1024
	outBytes   = windowBytes + 128<<10
	outLimit   = outBytes - roundBytes

	// The loop looks at 8 bytes at once, from any place in the buffer.
	inBytes    = 64 << 10
	inMask     = inBytes - 1
	inSlack    = 8
	roundInput = 24 // bytes that the loop's start and one round may look at
)

// state is what comes next in the stream.
type state int

const (
	atBlock  state = iota // a block's header
	inStored              // bytes of a stored block
	inCodes               // symbols of a compressed block
	atEnd                 // nothing: the last block is over
)

// decoder decodes a DEFLATE stream into out, as far as it has room, again and again.
type decoder struct {
	src    io.Reader
	srcErr error // what ended src
	offset int64 // of in[0] in src

	bits     uint64 // read from in, the next one lowest
	nbits    uint   // how many
	pos, end int    // in[pos:end] has not been read

	state  state
	last   bool // the block is the last one
	fixed  bool // the tables are those of the fixed code
	stored int  // bytes of the block still to come

	start, op int // out[start:op] is there, and what distances may reach

	literalMin, distanceMin uint // no code is shorter
	code                    code
	lengths                 [maxLiterals + maxDistances]uint8
	literals                [literalEntries]uint32
	distances               [distanceEntries]uint32

	in  [inBytes + inSlack]byte
	out [outBytes]byte
}

func (d *decoder) reset(src io.Reader) {
	d.src = src
	d.start, d.op = windowBytes, windowBytes
}

// restart begins another stream of the same source.
func (d *decoder) restart() {
	d.state, d.start = atBlock, d.op
}

// slide makes room in out, and keeps what distances may reach.
func (d *decoder) slide() {
	keep := min(d.op-d.start, windowBytes)
	copy(d.out[windowBytes-keep:], d.out[d.op-keep:d.op])
	d.start, d.op = windowBytes-keep, windowBytes
}

// decode goes on until out is full, the stream ends (io.EOF), or err.
func (d *decoder) decode() (err error) {
	for err == nil && d.op < outLimit {
		switch d.state {
		case atBlock:
			err = d.block()
		case inStored:
			err = d.copyStored()
		case inCodes:
			err = d.symbols()
		case atEnd:
			return io.EOF
		}
	}
	return err
}

// symbols decodes symbols until the block is over or out is full.
func (d *decoder) symbols() error {
	for d.op < outLimit && d.state == inCodes {
		if d.end-d.pos < roundInput && d.srcErr == nil {
			d.fill(roundInput)
		}
		step := d.fast
		if d.end-d.pos < roundInput {
			step = d.careful
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
