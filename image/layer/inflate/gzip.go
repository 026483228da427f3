package inflate

import (
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// How RFC 1952, section 2.3, spells a member's header and trailer.
const (
	headerBytes  = 10
	trailerBytes = 8
	deflateName  = "\x1f\x8b\x08" // what a file begins with whose method is DEFLATE

	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4

	maxTextBytes = 512 // of a name or a comment, with its zero
)

// member is what is known of a gzip file's current member.
type member struct {
	crc   uint32            // of the header, then of the contents
	size  uint32            // of the contents
	bytes [headerBytes]byte // just read
}

// add counts contents.
func (m *member) add(b []byte) {
	m.crc = crc32.Update(m.crc, crc32.IEEETable, b)
	m.size += uint32(len(b))
}

// trailer checks a member that is over.
func (m *member) trailer(d *decoder) error {
	b := m.bytes[:trailerBytes]
	if _, err := d.readFull(b); err != nil {
		return cut(err)
	}
	if binary.LittleEndian.Uint32(b) != m.crc || binary.LittleEndian.Uint32(b[4:]) != m.size {
		return gzip.ErrChecksum
	}
	return nil
}

// header begins a member. Where there is none it returns io.EOF.
func (m *member) header(d *decoder) error {
	b := m.bytes[:]
	if _, err := d.readFull(b); err != nil {
		return err
	}
	if string(b[:3]) != deflateName {
		return gzip.ErrHeader
	}
	flags := b[3]
	m.crc = crc32.ChecksumIEEE(b)
	if flags&flagExtra != 0 {
		if err := m.skipExtra(d); err != nil {
			return cut(err)
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag != 0 {
			if err := m.skipText(d); err != nil {
				return cut(err)
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		if _, err := d.readFull(b[:2]); err != nil {
			return cut(err)
		}
		if binary.LittleEndian.Uint16(b) != uint16(m.crc) {
			return gzip.ErrHeader
		}
	}
	m.crc, m.size = 0, 0
	d.restart()
	return nil
}

func (m *member) skipExtra(d *decoder) error {
	b := m.bytes[:2]
	if _, err := d.readFull(b); err != nil {
		return err
	}
	m.crc = crc32.Update(m.crc, crc32.IEEETable, b)
	for left := int(binary.LittleEndian.Uint16(b)); left > 0; {
		part := m.bytes[:min(left, len(m.bytes))]
		if _, err := d.readFull(part); err != nil {
			return cut(err)
		}
		m.crc = crc32.Update(m.crc, crc32.IEEETable, part)
		left -= len(part)
	}
	return nil
}

// skipText reads past a name or a comment and the zero that ends it.
func (m *member) skipText(d *decoder) error {
	for range maxTextBytes {
		b := m.bytes[:1]
		if _, err := d.readFull(b); err != nil {
			return err
		}
		m.crc = crc32.Update(m.crc, crc32.IEEETable, b)
		if b[0] == 0 {
			return nil
		}
	}
	return gzip.ErrHeader
}

// cut turns the end of the source into an error, where it must not end.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
