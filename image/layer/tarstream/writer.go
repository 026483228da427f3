package tarstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// errEntrySize says that a file's content is not as long as its header says.
var errEntrySize = errors.New("content is not of the size that its header has")

// A Writer writes a tar archive: ustar headers, with PAX records before those entries that ustar cannot say, and for no
// others. The same headers and contents give the same bytes on every machine and with every version of Go: nothing of the
// clock, the users or the host goes in.
type Writer struct {
	w       io.Writer
	left    int64 // of the entry's content
	padding int64 // after it
	head    []byte
	pax     []byte
}

// NewWriter returns a writer of an archive to w. It does not buffer content.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteHeader begins an entry. A directory's name may have its slash or not. AccessTime, Sparse and Extents are not looked
// at: the Image Spec (layer.md) advises against sparse entries, so the content is the whole file with its holes as zeros.
// Only a regular file has content: h.Size bytes of it, by Write, before the next header.
func (w *Writer) WriteHeader(h *Header) error {
	if err := w.finishEntry(); err != nil {
		return err
	}
	size := int64(0)
	if h.Type == TypeReg {
		size = h.Size
	}
	b := make(block, blockBytes)
	records, err := w.fill(b, h, size)
	if err != nil {
		return fmt.Errorf("entry %.300q: %w", h.Name, err)
	}
	w.head = w.head[:0]
	if len(records) > 0 {
		w.pax = encodeRecords(w.pax[:0], records)
		w.head = append(w.head, paxBlock(h.Name, len(w.pax))...)
		w.head = append(w.head, w.pax...)
		w.head = append(w.head, zeros[:padBytes(int64(len(w.pax)))]...)
	}
	b.seal()
	w.head = append(w.head, b...)
	w.left, w.padding = size, padBytes(size)
	_, err = w.w.Write(w.head)
	return err
}

var zeros [2 * blockBytes]byte

// padBytes is how much is missing to the next whole block.
func padBytes(n int64) int64 { return -n & (blockBytes - 1) }

// Write writes content of the entry.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, errEntrySize
	}
	n, err := w.w.Write(p)
	w.left -= int64(n)
	return n, err
}

func (w *Writer) finishEntry() error {
	if w.left > 0 {
		return errEntrySize
	}
	if w.padding == 0 {
		return nil
	}
	_, err := w.w.Write(zeros[:w.padding])
	w.padding = 0
	return err
}

// Close ends the archive. It does not close what it is written to.
func (w *Writer) Close() error {
	if err := w.finishEntry(); err != nil {
		return err
	}
	_, err := w.w.Write(zeros[:])
	return err
}

// record is one PAX record.
type paxRecord struct{ key, value string }

// fill writes the header block and returns the records for what has no place in it.
func (w *Writer) fill(b block, h *Header, size int64) ([]paxRecord, error) {
	if err := checkHeader(h, size); err != nil {
		return nil, err
	}
	var records []paxRecord
	name := h.Name
	if h.Type == TypeDir {
		name = strings.TrimRight(name, "/") + "/"
	}
	if prefix, base, ok := splitUSTAR(name); ok {
		copy(b.ustarPrefix(), prefix)
		copy(b.name(), base)
	} else {
		records = append(records, paxRecord{"path", name})
		copy(b.name(), asciiTail(name, h.Type == TypeDir))
	}
	if h.Type == TypeLink || h.Type == TypeSymlink {
		copy(b.linkname(), h.Linkname)
		if len(h.Linkname) > len(b.linkname()) || !isASCII(h.Linkname) {
			records = append(records, paxRecord{"linkpath", h.Linkname})
			clear(b.linkname())
		}
	}
	number := func(field []byte, key string, value int64) {
		if !putOctal(field, value) {
			records = append(records, paxRecord{key, strconv.FormatInt(value, 10)})
			putOctal(field, 0)
		}
	}
	putOctal(b.mode(), int64(h.Mode&0o7777))
	number(b.uid(), "uid", h.UID)
	number(b.gid(), "gid", h.GID)
	number(b.size(), "size", size)
	if h.ModTime.Nsec != 0 || !putOctal(b.mtime(), h.ModTime.Sec) {
		records = append(records, paxRecord{"mtime", h.ModTime.String()})
		if !putOctal(b.mtime(), h.ModTime.Sec) {
			putOctal(b.mtime(), 0)
		}
	}
	b[156] = h.Type
	copy(b[257:265], "ustar\x0000")
	if h.Type == TypeChar || h.Type == TypeBlock {
		if !putOctal(b.major(), h.Major) || !putOctal(b.minor(), h.Minor) {
			return nil, fmt.Errorf("device number %d:%d has no place in a header", h.Major, h.Minor)
		}
	} else {
		putOctal(b.major(), 0)
		putOctal(b.minor(), 0)
	}
	for _, x := range h.Xattrs {
		records = append(records, paxRecord{paxXattr + x.Name, string(x.Value)})
	}
	slices.SortFunc(records, func(a, b paxRecord) int { return strings.Compare(a.key, b.key) })
	return records, nil
}

// paxXattr begins the keys of extended attributes, since star.
const paxXattr = "SCHILY.xattr."

// checkHeader refuses what a reader would take for something else.
func checkHeader(h *Header, size int64) error {
	switch {
	case h.Name == "":
		return errors.New("name is empty")
	case strings.IndexByte(h.Name, 0) >= 0, strings.IndexByte(h.Linkname, 0) >= 0:
		return errors.New("name contains a NUL byte")
	case h.Type < TypeReg || h.Type > TypeFifo:
		return fmt.Errorf("unknown type %q", h.Type)
	case size < 0, h.UID < 0, h.GID < 0:
		return errors.New("negative size or owner")
	case h.ModTime.Nsec < 0 || h.ModTime.Nsec >= 1e9:
		return fmt.Errorf("modification time has %d nanoseconds", h.ModTime.Nsec)
	}
	for _, x := range h.Xattrs {
		if x.Name == "" || strings.ContainsAny(x.Name, "=\x00") {
			return fmt.Errorf("extended attribute %.300q has a name that an archive cannot have", x.Name)
		}
		if x.Err != nil {
			return fmt.Errorf("extended attribute %.300q: %w", x.Name, x.Err)
		}
	}
	return nil
}

// splitUSTAR finds the directory and the rest of a name that fit ustar's two fields.
func splitUSTAR(name string) (prefix, base string, ok bool) {
	const nameBytes, prefixBytes = 100, 155
	if !isASCII(name) {
		return "", "", false
	}
	if len(name) <= nameBytes {
		return "", name, true
	}
	if len(name) > nameBytes+1+prefixBytes {
		return "", "", false
	}
	// The first slash that leaves little enough behind it; what follows must not be empty.
	i := strings.IndexByte(name[len(name)-nameBytes-1:], '/')
	if i < 0 {
		return "", "", false
	}
	i += len(name) - nameBytes - 1
	if i == 0 || i > prefixBytes || i == len(name)-1 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// asciiTail is what a reader that does not know PAX is told of a name: the end of it.
func asciiTail(name string, isDir bool) string {
	const nameBytes = 100
	tail := strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return -1
		}
		return r
	}, name)
	if len(tail) > nameBytes {
		tail = tail[len(tail)-nameBytes:]
	}
	if tail = strings.TrimLeft(tail, "/"); tail == "" {
		tail = "_"
		if isDir {
			tail = "_/"
		}
	}
	return tail
}

// putOctal writes a number with leading zeros and a NUL, if it fits.
func putOctal(field []byte, value int64) bool {
	digits := len(field) - 1
	if value < 0 || digits < 21 && value>>(3*digits) != 0 {
		return false
	}
	for i := digits - 1; i >= 0; i-- {
		field[i] = byte('0' + value&7)
		value >>= 3
	}
	field[digits] = 0
	return true
}

// seal writes the checksum: six digits, a NUL and a space.
func (b block) seal() {
	sum := int64(0)
	copy(b.checksum(), "        ")
	for _, c := range b {
		sum += int64(c)
	}
	putOctal(b.checksum()[:7], sum)
}

// paxBlock is the header of n bytes of records for the entry with this name.
func paxBlock(name string, n int) block {
	b := make(block, blockBytes)
	copy(b.name(), asciiTail("PaxHeaders.0/"+asciiTail(strings.TrimRight(name, "/"), false), false))
	for _, field := range [][]byte{b.uid(), b.gid(), b.mtime(), b.major(), b.minor()} {
		putOctal(field, 0)
	}
	putOctal(b.mode(), 0o644)
	putOctal(b.size(), int64(n))
	b[156] = typePAX
	copy(b[257:265], "ustar\x0000")
	b.seal()
	return b
}

// encodeRecords appends records in PAX's form: the length of the whole, itself included, key and value.
func encodeRecords(to []byte, records []paxRecord) []byte {
	for _, r := range records {
		size := len(r.key) + len(r.value) + len(" =\n")
		total := size + len(strconv.Itoa(size))
		if total = size + len(strconv.Itoa(total)); size+len(strconv.Itoa(total)) != total {
			total++
		}
		to = strconv.AppendInt(to, int64(total), 10)
		to = append(to, ' ')
		to = append(to, r.key...)
		to = append(to, '=')
		to = append(to, r.value...)
		to = append(to, '\n')
	}
	return to
}

// String is the time as PAX writes it: decimal seconds, with as many digits of a fraction as there are.
func (t Time) String() string {
	if t.Nsec == 0 {
		return strconv.FormatInt(t.Sec, 10)
	}
	sec, nsec, sign := t.Sec, t.Nsec, ""
	if sec < 0 {
		sec, nsec, sign = -(sec + 1), 1e9-nsec, "-"
	}
	return string(bytes.TrimRight(fmt.Appendf(nil, "%s%d.%09d", sign, sec, nsec), "0"))
}
