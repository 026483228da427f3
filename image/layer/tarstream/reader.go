package tarstream

import (
	"fmt"
	"io"
	"strings"
)

// Source is where an archive comes from, piece by piece.
type Source interface {
	// Next returns the next piece of the stream, which is not empty and stays as it is until the following call; at the
	// end it returns io.EOF. After an error it is not called again.
	Next() ([]byte, error)
}

// Limits bound what headers may make the reader hold in memory. A zero field stands for the default.
type Limits struct {
	MetaBytes int // one extended header, long name or sparse map as stored; default 1 MiB
}

const defaultMetaBytes = 1 << 20

// Reader reads one archive.
type Reader struct {
	src    Source
	limits Limits

	piece []byte // what is left of the last piece
	pos   int64  // how many bytes of the stream lie before piece
	err   error  // what ended the stream or the archive, for good

	hdr     Header
	stored  int64  // bytes of the entry's data still to come
	pad     int64  // bytes that fill its last block
	offset  int64  // where in the file the next data goes
	extent  int    // and in which extent, if it is sparse
	scratch []byte // for what spans two pieces
	ext     extended
}

// NewReader starts reading an archive.
func NewReader(src Source, limits Limits) *Reader {
	if limits.MetaBytes <= 0 {
		limits.MetaBytes = defaultMetaBytes
	}
	return &Reader{src: src, limits: limits}
}

// Next goes to the next entry, past what has not been read of the last one. After the last entry, once all of the stream
// has been read and found to be in order, it returns io.EOF. Errors last.
func (r *Reader) Next() (*Header, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.hdr, nil
}

// Pos is how many bytes of the stream have been read.
func (r *Reader) Pos() int64 { return r.pos }

// Data returns the next piece of the entry's data and where in the file it goes. The piece stays as it is until the next
// call of Data or Next. At the end of the entry it returns io.EOF.
func (r *Reader) Data() (offset int64, piece []byte, err error) {
	if r.err != nil {
		return 0, nil, r.err
	}
	if r.stored == 0 {
		return 0, nil, io.EOF
	}
	if err := r.fill(); err != nil {
		r.err = cut(err)
		return 0, nil, r.err
	}
	n := min(int64(len(r.piece)), r.stored)
	if r.hdr.Sparse {
		e := r.hdr.Extents[r.extent]
		r.offset = max(r.offset, e.Offset)
		end := e.Offset + e.Length
		if n >= end-r.offset {
			n = end - r.offset
			r.extent++
		}
	}
	offset, piece = r.offset, r.piece[:n]
	r.offset += n
	r.stored -= n
	r.drop(int(n))
	return offset, piece, nil
}

// fill makes sure that there is at least one byte in piece.
func (r *Reader) fill() error {
	for len(r.piece) == 0 {
		p, err := r.src.Next()
		if err != nil {
			return err
		}
		r.piece = p
	}
	return nil
}

func (r *Reader) drop(n int) {
	r.piece = r.piece[n:]
	r.pos += int64(n)
}

// take returns the next n bytes, which stay as they are until the next call of anything. io.EOF means that there was not
// one byte left, io.ErrUnexpectedEOF that there were too few.
func (r *Reader) take(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if err := r.fill(); err != nil {
		return nil, err
	}
	if len(r.piece) >= n {
		b := r.piece[:n]
		r.drop(n)
		return b, nil
	}
	// Grown as it comes in: n is the archive's word, and only what is there costs memory.
	r.scratch = r.scratch[:0]
	for len(r.scratch) < n {
		if err := r.fill(); err != nil {
			return nil, cut(err)
		}
		m := min(len(r.piece), n-len(r.scratch))
		r.scratch = append(r.scratch, r.piece[:m]...)
		r.drop(m)
	}
	return r.scratch, nil
}

func (r *Reader) skip(n int64) error {
	for n > 0 {
		if err := r.fill(); err != nil {
			return cut(err)
		}
		m := min(int64(len(r.piece)), n)
		r.drop(int(m))
		n -= m
	}
	return nil
}

// cut turns the end of the stream into an error, where it must not end.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) bad(what string) error {
	return fmt.Errorf("%w: %s (before byte %d of the archive)", ErrHeader, what, r.pos)
}

// next reads headers up to and including that of the next entry.
func (r *Reader) next() error {
	if err := r.skip(r.stored + r.pad); err != nil {
		return err
	}
	r.stored, r.pad = 0, 0
	r.ext.reset()
	for {
		b, err := r.header()
		if err != nil {
			return err
		}
		if err := r.basics(b); err != nil {
			return err
		}
		size, err := parseNumber(b.size())
		if err != nil || size < 0 || padded(size) < 0 {
			return r.bad("size")
		}
		switch b.typeflag() {
		case typePAX:
			r.ext.resetPAX()
			err = r.meta(size, r.ext.parsePAX)
		case typeLongName:
			err = r.meta(size, func(v []byte) error { r.ext.longName = cString(v); return nil })
		case typeLongLink:
			err = r.meta(size, func(v []byte) error { r.ext.longLink = cString(v); return nil })
		case typePAXGlobal, typeVolume:
			// Container tools do not apply global headers; they carry git's commit id or a comment. As with those tools,
			// whatever came before is not for the entry after it.
			r.ext.reset()
			err = r.skip(padded(size))
		default:
			return r.entry(b, size)
		}
		if err != nil {
			return err
		}
	}
}

// header reads a header block whose checksum is right. At the archive's end mark it reads all the rest of the stream, and
// returns io.EOF if that is in order.
func (r *Reader) header() (block, error) {
	b, err := r.take(blockBytes)
	if err == io.EOF {
		return nil, ErrNoTrailer
	}
	if err != nil {
		return nil, err
	}
	if block(b).isZero() {
		return nil, r.trailer()
	}
	if err := block(b).checkSum(); err != nil {
		return nil, fmt.Errorf("%w (before byte %d of the archive)", err, r.pos)
	}
	return b, nil
}

func (r *Reader) trailer() error {
	b, err := r.take(blockBytes)
	if err == io.EOF {
		return ErrNoTrailer
	}
	if err != nil {
		return err
	}
	if !block(b).isZero() {
		return r.bad("one block of zeros between entries")
	}
	for {
		if err := r.fill(); err != nil {
			return err // io.EOF, where all is well
		}
		if !isZero(r.piece) {
			return ErrTrailing
		}
		r.drop(len(r.piece))
	}
}

// meta reads the data of an entry that describes the one after it.
func (r *Reader) meta(size int64, use func([]byte) error) error {
	if size > int64(r.limits.MetaBytes) {
		return fmt.Errorf("%w: extended header of %d bytes", ErrTooLarge, size)
	}
	b, err := r.take(int(size))
	if err != nil {
		return cut(err)
	}
	if err := use(b); err != nil {
		return fmt.Errorf("%w (before byte %d of the archive)", err, r.pos)
	}
	return r.skip(padded(size) - size)
}

// padded rounds up to whole blocks. It overflows into the negative for sizes that no stream can hold.
func padded(size int64) int64 { return (size + blockBytes - 1) &^ (blockBytes - 1) }

// entry completes r.hdr, which has what its header block says, with what came before that.
func (r *Reader) entry(b block, size int64) error {
	h := &r.hdr
	h.Xattrs = r.ext.allXattrs()
	if err := r.ext.apply(h, &size); err != nil {
		return fmt.Errorf("%w (before byte %d of the archive)", err, r.pos)
	}
	if h.UID < 0 || h.GID < 0 {
		return r.bad("negative owner")
	}
	if size < 0 || padded(size) < 0 {
		return r.bad("size")
	}
	hasData := true
	switch h.Type {
	case typeRegOld:
		h.Type = TypeReg
		if strings.HasSuffix(h.Name, "/") {
			h.Type, hasData = TypeDir, false // how archives older than ustar mark a directory
		}
	case TypeReg, typeReserved, typeGNUSparse:
		// The last is told from the header block, below.
	case TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo:
		hasData = false // whatever the size field says
	default:
		return r.bad(fmt.Sprintf("unknown entry type %q", h.Type))
	}
	if !hasData {
		size = 0
	}
	h.Size, r.stored, r.pad = size, size, padded(size)-size
	r.offset, r.extent = 0, 0
	if err := r.sparse(b, hasData); err != nil {
		return err
	}
	if h.Type == typeReserved || h.Type == typeGNUSparse {
		h.Type = TypeReg
	}
	return nil
}

// basics starts r.hdr with the fields that every header block has, and those of its format.
func (r *Reader) basics(b block) error {
	h := &r.hdr
	*h = Header{Type: b.typeflag(), Extents: h.Extents[:0]}
	var mode int64
	numbers := []struct {
		field []byte
		to    *int64
		what  string
	}{
		{b.mode(), &mode, "mode"}, {b.uid(), &h.UID, "uid"}, {b.gid(), &h.GID, "gid"}, {b.mtime(), &h.ModTime.Sec, "mtime"},
		{b.major(), &h.Major, "device major"}, {b.minor(), &h.Minor, "device minor"},
	}
	format := b.format()
	if format == formatV7 {
		numbers = numbers[:4]
	}
	for _, n := range numbers {
		var err error
		if *n.to, err = parseNumber(n.field); err != nil {
			return r.bad(n.what)
		}
	}
	h.Mode = uint32(mode) & 0o7777
	h.AccessTime = h.ModTime
	h.Name, h.Linkname = cString(b.name()), cString(b.linkname())
	prefix := ""
	switch format {
	case formatUSTAR:
		prefix = cString(b.ustarPrefix())
	case formatSTAR:
		prefix = cString(b.starPrefix())
		sec, err := parseNumber(b.starAtime())
		if err != nil {
			return r.bad("atime")
		}
		h.AccessTime = Time{Sec: sec}
	case formatGNU:
		prefix = r.gnuTimes(b)
	}
	if prefix != "" {
		h.Name = prefix + "/" + h.Name
	}
	return nil
}

// gnuTimes reads the access time of a GNU header. Docker's layers made with Go before 1.8 have a name prefix in its place,
// which GNU archives do not know (golang.org/issue/12594): that is returned if the fields are not numbers.
func (r *Reader) gnuTimes(b block) (prefix string) {
	var atime int64
	var aerr, cerr error
	hasAtime := b.gnuAtime()[0] != 0
	if hasAtime {
		atime, aerr = parseNumber(b.gnuAtime())
	}
	if b.gnuCtime()[0] != 0 {
		_, cerr = parseNumber(b.gnuCtime())
	}
	if aerr == nil && cerr == nil {
		if hasAtime {
			r.hdr.AccessTime = Time{Sec: atime}
		}
		return ""
	}
	prefix = cString(b.ustarPrefix())
	for i := range len(prefix) {
		if prefix[i] >= 0x80 {
			return ""
		}
	}
	return prefix
}
