package changeset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

// A record says what a tree looked like, so that what has changed since can be told without reading files. It is a stream:
//
//	"tare record 1\n"
//	seconds, nanoseconds                 when the scan began
//	entry "." children                   children: entries sorted by name, a directory followed by its own, and a 0 byte
//	CRC-32C of all this, 4 bytes
//
//	entry: length and bytes of the name; mode, uid, gid, size, inode, device number, links; modification and change time
//
// Numbers are varints (encoding/binary). A name has a byte at least, which is why a 0 ends a directory.
const recordMagic = "tare record 1\n"

// errRecord says that a record is not well formed.
var errRecord = errors.New("not a record of a tree")

// castagnoli is the polynomial that processors have an instruction for.
func castagnoli() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// recordWriter writes a record.
type recordWriter struct {
	w   *bufio.Writer
	sum hash.Hash32
	buf []byte
	err error
}

func newRecordWriter(to io.Writer, began tarstream.Time) *recordWriter {
	r := &recordWriter{sum: castagnoli()}
	r.w = bufio.NewWriterSize(io.MultiWriter(to, r.sum), 64<<10)
	r.buf = append(r.buf, recordMagic...)
	r.time(began)
	r.flush()
	return r
}

func (r *recordWriter) time(t tarstream.Time) {
	r.buf = binary.AppendVarint(r.buf, t.Sec)
	r.buf = binary.AppendUvarint(r.buf, uint64(t.Nsec))
}

func (r *recordWriter) flush() {
	if r.err == nil {
		_, r.err = r.w.Write(r.buf)
	}
	r.buf = r.buf[:0]
}

func (r *recordWriter) entry(base string, s *state) {
	r.buf = binary.AppendUvarint(r.buf, uint64(len(base)))
	r.buf = append(r.buf, base...)
	for _, n := range []uint64{uint64(s.mode), uint64(s.uid), uint64(s.gid), uint64(s.size), s.ino, s.rdev, uint64(s.nlink)} {
		r.buf = binary.AppendUvarint(r.buf, n)
	}
	r.time(s.mtime)
	r.time(s.ctime)
	r.flush()
}

func (r *recordWriter) endDir() {
	r.buf = append(r.buf, 0)
	r.flush()
}

func (r *recordWriter) close(to io.Writer) error {
	if r.err == nil {
		r.err = r.w.Flush()
	}
	if r.err == nil {
		_, r.err = to.Write(r.sum.Sum(nil))
	}
	return r.err
}

// recordReader reads one, entry by entry.
type recordReader struct {
	r     *bufio.Reader
	began tarstream.Time
	next  recordEntry
	err   error
}

// recordEntry is an entry, or the end of a directory: then it has no name.
type recordEntry struct {
	base string
	was  state
}

// newRecordReader begins to read a record whose checksum is right, and stops at the root's entry.
func newRecordReader(from io.ReadSeeker) (*recordReader, error) {
	size, err := checkRecord(from)
	if err != nil {
		return nil, err
	}
	r := &recordReader{r: bufio.NewReaderSize(io.LimitReader(from, size), 64<<10)}
	if _, err := r.r.Discard(len(recordMagic)); err != nil {
		return nil, err
	}
	r.began = r.time()
	r.advance()
	if r.err == nil && (r.next.base != "." || !r.next.was.isDir()) {
		r.fail(errRecord)
	}
	return r, r.err
}

// checkRecord verifies magic and checksum. It returns where the checksum begins, and leaves from at its start.
func checkRecord(from io.ReadSeeker) (size int64, err error) {
	size, err = from.Seek(0, io.SeekEnd)
	sum := castagnoli()
	size -= int64(sum.Size())
	if err == nil && size < int64(len(recordMagic)) {
		err = errRecord
	}
	if err == nil {
		_, err = from.Seek(0, io.SeekStart)
	}
	if err != nil {
		return 0, err
	}
	magic := make([]byte, len(recordMagic))
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != recordMagic {
		return 0, errRecord
	}
	sum.Write(magic)
	if _, err := io.CopyN(sum, from, size-int64(len(magic))); err != nil {
		return 0, err
	}
	got := make([]byte, sum.Size())
	if _, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, sum.Sum(nil)) {
		return 0, fmt.Errorf("%w: its checksum is wrong", errRecord)
	}
	_, err = from.Seek(0, io.SeekStart)
	return size, err
}

func (r *recordReader) fail(err error) {
	if r.err == nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		r.err = fmt.Errorf("record: %w", err)
	}
}

func (r *recordReader) number(most uint64) uint64 {
	n, err := binary.ReadUvarint(r.r)
	if err == nil && n > most {
		err = errRecord
	}
	if err != nil {
		r.fail(err)
		return 0
	}
	return n
}

func (r *recordReader) time() tarstream.Time {
	sec, err := binary.ReadVarint(r.r)
	if err != nil {
		r.fail(err)
	}
	return tarstream.Time{Sec: sec, Nsec: int64(r.number(999_999_999))}
}

// advance reads the next entry or end of a directory.
func (r *recordReader) advance() {
	const maxBaseBytes = 255 << 4 // what file systems have, and some more
	r.next = recordEntry{}
	n := r.number(maxBaseBytes)
	if r.err != nil || n == 0 {
		return
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(r.r, name); err != nil {
		r.fail(err)
		return
	}
	const most32, most64 = 1<<32 - 1, 1<<64 - 1
	s := state{mode: uint32(r.number(most32)), uid: uint32(r.number(most32)), gid: uint32(r.number(most32)), size: int64(r.number(1<<63 - 1)),
		ino: r.number(most64), rdev: r.number(most64), nlink: uint32(r.number(most32))}
	s.mtime, s.ctime = r.time(), r.time()
	if r.err == nil {
		r.next = recordEntry{string(name), s}
	}
}

// atEnd says whether the directory has no more entries, or the record cannot be read.
func (r *recordReader) atEnd() bool { return r.next.base == "" }

// skip goes over an entry and all that is below it.
func (r *recordReader) skip() {
	for depth := 0; ; {
		switch {
		case r.atEnd():
			depth--
		case r.next.was.isDir():
			depth++
		}
		r.advance()
		if r.err != nil || depth <= 0 {
			return
		}
	}
}

// finish checks that with the root's end the record has ended, too.
func (r *recordReader) finish() error {
	if r.err == nil {
		if _, err := r.r.ReadByte(); err != io.EOF || !r.atEnd() {
			r.fail(errRecord)
		}
	}
	return r.err
}

// clock is the time as file systems see it when they note a change: that of the last tick.
func clock() tarstream.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		now := time.Now()
		return tarstream.Time{Sec: now.Unix(), Nsec: int64(now.Nanosecond())}
	}
	return tarstream.Time{Sec: ts.Sec, Nsec: ts.Nsec}
}

func before(a, b tarstream.Time) bool { return a.Sec < b.Sec || a.Sec == b.Sec && a.Nsec < b.Nsec }
