package tarstream

import (
	"bytes"
	"fmt"
	"strings"
)

// sparse reads the map of a sparse file, if the entry is one, and checks it.
func (r *Reader) sparse(b block, hasData bool) error {
	h := &r.hdr
	var err error
	if h.Type == typeGNUSparse {
		h.Sparse = true
		err = r.sparseGNU(b)
	} else if h.Sparse = r.ext.sparse.present(); h.Sparse {
		err = r.sparsePAX()
	}
	if err != nil || !h.Sparse {
		return err
	}
	if !hasData {
		return r.bad("sparse map of something that is not a file")
	}
	return r.checkSparse()
}

// checkSparse makes sure that the extents ascend, do not overlap, lie in the file and need exactly the data that is
// stored. Empty ones, with which GNU tar marks the end of a file, are left out.
func (r *Reader) checkSparse() error {
	h := &r.hdr
	if h.Size < 0 {
		return r.bad("size of a sparse file")
	}
	kept := h.Extents[:0]
	var end, sum int64
	for _, e := range h.Extents {
		if e.Offset < end || e.Length < 0 || e.Length > h.Size-e.Offset {
			return r.bad("sparse map: extents overlap or lie outside the file")
		}
		end = e.Offset + e.Length
		sum += e.Length
		if e.Length > 0 {
			kept = append(kept, e)
		}
	}
	if sum != r.stored {
		return r.bad(fmt.Sprintf("sparse map: describes %d bytes of data, %d are stored", sum, r.stored))
	}
	h.Extents = kept
	return nil
}

// sparseGNU reads the map of the old GNU format, in the header block and in extension blocks after it.
func (r *Reader) sparseGNU(b block) error {
	if b.format() != formatGNU {
		return r.bad("sparse file of an unknown format")
	}
	var err error
	if r.hdr.Size, err = parseNumber(b.gnuRealSize()); err != nil {
		return r.bad("size of a sparse file")
	}
	pairs, more := b.gnuSparse(), b.gnuExtended()
	for total := blockBytes; ; total += blockBytes {
		if err := r.sparsePairs(pairs); err != nil {
			return err
		}
		if !more {
			return nil
		}
		if total >= r.limits.MetaBytes {
			return fmt.Errorf("%w: sparse map", ErrTooLarge)
		}
		next, err := r.take(blockBytes)
		if err != nil {
			return cut(err)
		}
		pairs, more = block(next).moreSparse(), block(next).moreExtended()
	}
}

// sparsePairs reads 12-byte offsets and lengths, up to the first that is not used.
func (r *Reader) sparsePairs(b []byte) error {
	const width = 12
	for ; len(b) >= 2*width && b[0] != 0; b = b[2*width:] {
		offset, err1 := parseNumber(b[:width])
		length, err2 := parseNumber(b[width : 2*width])
		if err1 != nil || err2 != nil {
			return r.bad("sparse map")
		}
		r.hdr.Extents = append(r.hdr.Extents, Extent{Offset: offset, Length: length})
	}
	return nil
}

// version is 0 for formats 0.0 and 0.1 (which at first had no version records), 1 for 1.0, and -1 for none that is known.
func (s *paxSparse) version() int {
	switch {
	case s.major == "0" && (s.minor == "0" || s.minor == "1"):
		return 0
	case s.major == "1" && s.minor == "0":
		return 1
	case s.major == "" && s.minor == "" && s.maps != "":
		return 0
	}
	return -1
}

func (s *paxSparse) present() bool { return s.version() >= 0 }

func (r *Reader) sparsePAX() error {
	s, h := &r.ext.sparse, &r.hdr
	if s.name != "" {
		h.Name = s.name
	}
	size := s.size
	if size == "" {
		size = s.realSize
	}
	var err error
	if size != "" {
		if h.Size, err = parseDecimal(size); err != nil {
			return r.bad("size of a sparse file")
		}
	}
	if s.version() == 1 {
		return r.sparse1x0()
	}
	n, err := parseDecimal(s.blocks)
	if err != nil || n < 0 {
		return r.bad("sparse map: number of extents")
	}
	tokens := strings.Split(s.maps, ",")
	if s.maps == "" {
		tokens = nil
	}
	if len(tokens)%2 != 0 || int64(len(tokens)/2) != n {
		return r.bad("sparse map: number of extents")
	}
	for ; len(tokens) > 0; tokens = tokens[2:] {
		if err := r.extentOf(tokens[0], tokens[1]); err != nil {
			return err
		}
	}
	return nil
}

// sparse1x0 reads the map from the first blocks of the data: decimal numbers, each with a newline after it.
func (r *Reader) sparse1x0() error {
	var text []byte // what has been read and not used yet
	var read int
	line := func() (string, error) {
		for {
			if i := bytes.IndexByte(text, '\n'); i >= 0 {
				s := string(text[:i])
				text = text[i+1:]
				return s, nil
			}
			if read += blockBytes; read > r.limits.MetaBytes {
				return "", fmt.Errorf("%w: sparse map", ErrTooLarge)
			}
			if r.stored < blockBytes {
				return "", r.bad("sparse map: longer than the data")
			}
			b, err := r.take(blockBytes)
			if err != nil {
				return "", cut(err)
			}
			r.stored -= blockBytes
			text = append(text, b...)
		}
	}
	first, err := line()
	if err != nil {
		return err
	}
	n, err := parseDecimal(first)
	if err != nil || n < 0 {
		return r.bad("sparse map: number of extents")
	}
	for range n {
		offset, err := line()
		if err != nil {
			return err
		}
		length, err := line()
		if err != nil {
			return err
		}
		if err := r.extentOf(offset, length); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) extentOf(offset, length string) error {
	o, err1 := parseDecimal(offset)
	l, err2 := parseDecimal(length)
	if err1 != nil || err2 != nil {
		return r.bad("sparse map")
	}
	r.hdr.Extents = append(r.hdr.Extents, Extent{Offset: o, Length: l})
	return nil
}
