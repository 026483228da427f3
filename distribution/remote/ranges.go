package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// A large blob is read over several connections where that is quicker: where a
// server, or something on the way, gives each connection only so much, or the way
// is too long for one connection to fill it. Nobody can know that before, so it is
// measured. A reader begins with one connection. If that is slow, and it is the
// connection that is waited for and not who reads, the blob goes on in pieces, some
// of them on their way at a time; and if that is not clearly quicker, back to one.
//
// Pieces are handed on in their order, so whoever reads, hashes and writes as with
// one connection, and can take up a blob again anywhere. Whatever goes wrong with a
// piece, the reader goes on by one connection from where it is.

// pacing is when and how a blob is read in pieces.
type pacing struct {
	pieceBytes  int64         // of one request
	pieces      int           // on their way at a time
	windowBytes int64         // over which one connection is measured
	slow        time.Duration // that is slow, for that much
	least       int64         // what must be left
}

// usualPacing takes less than 40 MB/s for slow, and 16 MiB of memory.
var usualPacing = pacing{pieceBytes: 4 << 20, pieces: 4, windowBytes: 8 << 20, slow: 200 * time.Millisecond, least: 32 << 20}

// maxPacedReaders is how many of a client's blobs are read in pieces at a time.
const maxPacedReaders = 2

// meter tells how quick a stretch of a blob was.
type meter struct {
	began  time.Time
	waited time.Duration // in reading from the network
	bytes  int64
}

func (m *meter) add(n int, since time.Time) {
	if m.bytes == 0 {
		m.began = since
	}
	m.bytes += int64(n)
	m.waited += time.Since(since)
}

// bytesPerSecond is what the network gave, whatever else the reader did.
func (m *meter) bytesPerSecond() float64 {
	return float64(m.bytes) / max(m.waited, time.Microsecond).Seconds()
}

// wantsPieces decides, after each window, whether to try pieces.
func (r *blobReader) wantsPieces() bool {
	p := r.client.pacing
	if r.paced || r.meter.bytes < p.windowBytes {
		return false
	}
	m := r.meter
	r.meter = meter{}
	left := r.desc.Size - r.pos
	if left < p.least || m.waited < p.slow || m.waited < time.Since(m.began)*7/10 {
		return false
	}
	select {
	case r.client.paced <- struct{}{}:
	default:
		return false
	}
	r.paced = true // once
	r.alone = m.bytesPerSecond()
	return true
}

// piece is a part of a blob on its way.
type piece struct {
	content []byte
	done    chan error // gets one value
}

// pieces are those that a reader has asked for.
type pieces struct {
	reader *blobReader
	ctx    context.Context
	cancel context.CancelFunc
	from   int64 // where they began
	next   int64 // where the next to be asked for begins
	queue  []*piece
	spare  [][]byte
	head   []byte // what is left of the piece at hand
	buffer []byte // the whole of that
	meter  meter
	last   bool // ask for no more
}

// inPieces goes on in pieces, in the place of the connection at hand.
func (r *blobReader) inPieces() {
	r.body.Close()
	r.body = nil
	s := &pieces{reader: r, from: r.pos, next: r.pos}
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	r.pieces = s
	s.ask()
}

// ask keeps pieces on their way.
func (s *pieces) ask() {
	p := s.reader.client.pacing
	for !s.last && len(s.queue) < p.pieces && s.next < s.reader.desc.Size {
		n := min(p.pieceBytes, s.reader.desc.Size-s.next)
		var buffer []byte
		if k := len(s.spare); k > 0 {
			buffer, s.spare = s.spare[k-1], s.spare[:k-1]
		} else {
			buffer = make([]byte, p.pieceBytes)
		}
		one := &piece{buffer[:n], make(chan error, 1)}
		first := s.next
		go func() { one.done <- s.reader.fetch(s.ctx, first, one.content) }()
		s.queue = append(s.queue, one)
		s.next += n
	}
}

// read hands on what comes next. io.EOF says that there is no more, and that the
// reader has to see how it goes on.
func (s *pieces) read(b []byte) (int, error) {
	if len(s.head) == 0 {
		if s.buffer != nil {
			s.spare, s.buffer = append(s.spare, s.buffer[:cap(s.buffer)]), nil
			s.judge()
			s.ask()
		}
		if len(s.queue) == 0 {
			return 0, io.EOF
		}
		since := time.Now()
		one := s.queue[0]
		s.queue = s.queue[1:]
		if err := <-one.done; err != nil {
			return 0, err
		}
		s.head, s.buffer = one.content, one.content
		s.meter.add(len(one.content), since)
	}
	n := copy(b, s.head)
	s.head = s.head[n:]
	return n, nil
}

// judge ends the pieces when they are not much quicker than one connection was. The
// first round does not count, in which connections are made.
func (s *pieces) judge() {
	p := s.reader.client.pacing
	round := p.pieceBytes * int64(p.pieces)
	switch before := s.reader.pos - s.from; {
	case before == round:
		s.meter = meter{}
	case before == 3*round:
		s.last = s.meter.bytesPerSecond() < 1.25*s.reader.alone
	}
}

// endPieces ends what is on its way, waits until it has, and leaves the reader
// without a connection.
func (r *blobReader) endPieces() {
	s := r.pieces
	if s == nil {
		return
	}
	s.cancel()
	for _, one := range s.queue {
		<-one.done
	}
	r.pieces = nil
	<-r.client.paced
}

// fetch reads a piece. A registry that does not answer with just that gives an error,
// and is asked once: one that has too many requests is to have fewer.
func (r *blobReader) fetch(ctx context.Context, first int64, content []byte) error {
	call := r.client.newCall(r.repo, http.MethodGet, pull, blobEndpoint(r.repo, r.desc.Digest), http.StatusPartialContent)
	last := first + int64(len(content)) - 1
	call.header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
	resp, err := r.client.attempt(ctx, call)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := distribution.ParseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return err
	}
	if got.First != first || got.Last != last || got.Size >= 0 && got.Size != r.desc.Size {
		return fmt.Errorf("asked for bytes %d-%d of %d, registry sends %q: %w", first, last, r.desc.Size, got, distribution.ErrSizeMismatch)
	}
	if _, err := io.ReadFull(resp.Body, content); err != nil {
		return fmt.Errorf("bytes %d-%d: %w", first, last, err)
	}
	return nil
}
