package tarstream

import (
	"errors"
	"fmt"
)

// The errors that a reader's caller may want to tell apart.
var (
	// ErrHeader says that the archive is not well formed.
	ErrHeader = errors.New("invalid tar header")
	// ErrNoTrailer says that the archive stops after a whole entry, but without the two blocks of zeros that mark its end.
	// It may have been cut there, or the tool that made it forgot them.
	ErrNoTrailer = errors.New("tar archive ends without its end mark")
	// ErrTrailing says that something other than zeros follows the end mark.
	ErrTrailing = errors.New("data after the end of the tar archive")
	// ErrTooLarge says that names, extended headers or sparse maps are larger than Limits allow.
	ErrTooLarge = errors.New("tar header is too large")
)

// The types of entry, as the archive has them.
const (
	TypeReg     = '0'
	TypeLink    = '1'
	TypeSymlink = '2'
	TypeChar    = '3'
	TypeBlock   = '4'
	TypeDir     = '5'
	TypeFifo    = '6'
)

// The types that Next deals with itself.
const (
	typeRegOld    = '\x00'
	typeReserved  = '7' // a contiguous file
	typeGNUSparse = 'S'
	typePAX       = 'x'
	typePAXGlobal = 'g'
	typeLongName  = 'L'
	typeLongLink  = 'K'
	typeVolume    = 'V' // a GNU volume label
)

// Time is a point in time as archives and file systems have it, from before 1970 too. Nsec counts forward from Sec.
type Time struct {
	Sec  int64
	Nsec int64
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  string
	Value []byte
	Err   error // why the value that the archive has cannot be had; otherwise nil
}

// Extent is a part of a sparse file that holds data.
type Extent struct {
	Offset, Length int64
}

// Header is one entry. It, and all it points to except the strings, is valid until the next call of Next.
type Header struct {
	Name, Linkname string
	Type           byte   // one of the Type constants
	Mode           uint32 // permission, setuid, setgid and sticky bits
	UID, GID       int64  // not negative
	Size           int64  // of the file as it will be, holes included
	ModTime        Time
	AccessTime     Time // ModTime if the archive has none
	Major, Minor   int64
	Xattrs         []Xattr

	// Sparse says that only Extents hold data: ascending, not overlapping, inside Size.
	Sparse  bool
	Extents []Extent
}

const blockBytes = 512

// block is one header block. The fields' places are those of ustar, and of GNU where it differs.
type block []byte

func (b block) name() []byte     { return b[0:100] }
func (b block) mode() []byte     { return b[100:108] }
func (b block) uid() []byte      { return b[108:116] }
func (b block) gid() []byte      { return b[116:124] }
func (b block) size() []byte     { return b[124:136] }
func (b block) mtime() []byte    { return b[136:148] }
func (b block) checksum() []byte { return b[148:156] }
func (b block) typeflag() byte   { return b[156] }
func (b block) linkname() []byte { return b[157:257] }
func (b block) major() []byte    { return b[329:337] }
func (b block) minor() []byte    { return b[337:345] }

func (b block) ustarPrefix() []byte { return b[345:500] }
func (b block) starPrefix() []byte  { return b[345:476] }
func (b block) starAtime() []byte   { return b[476:488] }

func (b block) gnuAtime() []byte     { return b[345:357] }
func (b block) gnuCtime() []byte     { return b[357:369] }
func (b block) gnuSparse() []byte    { return b[386:482] } // four pairs of offset and length
func (b block) gnuExtended() bool    { return b[482] != 0 }
func (b block) gnuRealSize() []byte  { return b[483:495] }
func (b block) moreSparse() []byte   { return b[0:504] } // in an extension block: 21 pairs
func (b block) moreExtended() bool   { return b[504] != 0 }
func (b block) isZero() bool         { return isZero(b) }
func (b block) magicVersion() string { return string(b[257:265]) }

// format is the dialect of one header block.
type format int

const (
	formatV7 format = iota
	formatUSTAR
	formatSTAR
	formatGNU
)

func (b block) format() format {
	switch {
	case b.magicVersion() == "ustar  \x00":
		return formatGNU
	case b.magicVersion()[:6] == "ustar\x00" && string(b[508:512]) == "tar\x00":
		return formatSTAR
	case b.magicVersion()[:6] == "ustar\x00":
		return formatUSTAR
	}
	return formatV7
}

// checkSum verifies the header's checksum: the sum of its bytes, with the checksum itself taken as spaces. Old Sun tars
// summed signed bytes.
func (b block) checkSum() error {
	want, err := parseNumber(b.checksum())
	if err != nil {
		return fmt.Errorf("%w: checksum field", ErrHeader)
	}
	var unsigned, signed int64
	for i, c := range b {
		if 148 <= i && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if want != unsigned && want != signed {
		return fmt.Errorf("%w: wrong checksum", ErrHeader)
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
