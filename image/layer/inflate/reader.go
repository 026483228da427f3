package inflate

import "io"

// Reader reads what is in a DEFLATE stream or a gzip file. Errors are flate.CorruptInputError, gzip.ErrHeader,
// gzip.ErrChecksum, io.ErrUnexpectedEOF and those of the source. What lies before the error can be read.
type Reader struct {
	d    decoder
	gzip *member // nil in a DEFLATE stream
	next int     // d.out[next:d.op] has not been read
	err  error
}

// NewReader starts reading a DEFLATE stream. It may read more of src than the stream has.
func NewReader(src io.Reader) *Reader {
	r := &Reader{next: windowBytes}
	r.d.reset(src)
	return r
}

// NewGzipReader starts reading a gzip file, with the header of its first member; it returns io.EOF if src has not a single
// byte. All members are read, one after the other, and their checksums, sizes and headers' CRCs verified. After the last
// one there may be nothing else.
func NewGzipReader(src io.Reader) (*Reader, error) {
	r := NewReader(src)
	r.gzip = &member{}
	if err := r.gzip.header(&r.d); err != nil {
		return nil, err
	}
	return r, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for r.next == r.d.op {
		if r.err != nil {
			return 0, r.err
		}
		r.more()
	}
	n := copy(p, r.d.out[r.next:r.d.op])
	r.next += n
	return n, nil
}

// more decodes a windowful, or up to the end of a member.
func (r *Reader) more() {
	r.d.slide()
	r.next = r.d.op
	r.err = r.d.decode()
	if r.gzip == nil {
		return
	}
	r.gzip.add(r.d.out[r.next:r.d.op])
	if r.err == io.EOF {
		if r.err = r.gzip.trailer(&r.d); r.err == nil {
			r.err = r.gzip.header(&r.d)
		}
	}
}
