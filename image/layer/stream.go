package layer

import (
	"bufio"
	"context"
	"crypto/sha256" // linked in for go-digest
	_ "crypto/sha512"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

const (
	pieceBytes = 256 << 10 // a multiple of tar's 512, so that headers are hardly ever cut
	pieces     = 8
)

// piece is one buffer on its way from the decompressor over the hash to the tar reader, and back.
type piece struct {
	buf []byte
	n   int   // how much of buf is filled
	err error // what ended the stream, after these n bytes
}

// newPieces makes a channel with n pieces.
func newPieces(n int) chan *piece {
	c := make(chan *piece, n)
	for range n {
		c <- &piece{}
	}
	return c
}

// space is the buffer, which is made when it is first needed.
func (p *piece) space(bytes int) []byte {
	if p.buf == nil {
		p.buf = make([]byte, bytes)
	}
	return p.buf
}

// stream reads, decompresses and hashes a blob beside its reader. It is a tarstream.Source.
type stream struct {
	blob    *ahead
	options Options
	hash    hash.Hash

	free, filled, hashed chan *piece
	done                 chan struct{}
	running              sync.WaitGroup

	current *piece // what the reader has
	size    int64  // of all pieces handed out
	err     error  // what ended the stream
}

// startStream starts the goroutines; stop ends them.
func startStream(ctx context.Context, blob io.Reader, options Options) (*stream, error) {
	done := make(chan struct{})
	s := &stream{
		blob:    newAhead(done),
		options: options,
		hash:    sha256.New(),
		free:    newPieces(pieces),
		filled:  make(chan *piece, pieces),
		hashed:  make(chan *piece, pieces),
		done:    done,
	}
	if id := options.DiffID; id != "" {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("diffID %q: %w", id, err)
		}
		s.hash = id.Algorithm().Hash()
	}
	s.running.Go(func() { s.blob.fill(blob) })
	s.running.Go(func() { s.inflate(ctx) })
	s.running.Go(s.sum)
	return s, nil
}

// stop ends the goroutines and waits for them: nothing reads from the blob afterwards.
func (s *stream) stop() {
	close(s.done)
	s.running.Wait()
}

// Next implements tarstream.Source.
func (s *stream) Next() ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.current != nil {
		s.free <- s.current // has room for all there are
		s.current = nil
	}
	p := <-s.hashed
	s.current, s.err = p, p.err
	s.size += int64(p.n)
	if p.n == 0 {
		return nil, s.err
	}
	return p.buf[:p.n], nil
}

// digest is that of the whole stream, once Next has returned io.EOF.
func (s *stream) digest() digest.Digest {
	algorithm := digest.Canonical
	if s.options.DiffID != "" {
		algorithm = s.options.DiffID.Algorithm()
	}
	return digest.NewDigest(algorithm, s.hash)
}

// inflate fills pieces. The last one has the error that ended the stream.
func (s *stream) inflate(ctx context.Context) {
	// The buffer is for headers: with more, what is ahead already would be copied once more.
	r, err := decompress(bufio.NewReaderSize(s.blob, headBytes), s.options.MediaType)
	if err == nil {
		defer r.Close()
	}
	limits := s.options.Limits
	for total := int64(0); ; {
		p, ok := receive(s.free, s.done)
		if !ok {
			return
		}
		p.n, p.err = 0, err
		if err == nil {
			p.n, p.err = readFull(r, p.space(pieceBytes))
			total += int64(p.n)
		}
		switch in := s.blob.n; {
		case p.err != nil && p.err != io.EOF:
		case ctx.Err() != nil:
			p.err = ctx.Err()
		case total > limits.SizeBytes:
			p.err = fmt.Errorf("%w: more than %d bytes uncompressed", ErrLimit, limits.SizeBytes)
		case total > ratioFloorBytes && total/limits.Ratio > in:
			p.err = fmt.Errorf("%w: %d bytes uncompressed from %d, more than %d times as much", ErrLimit, total, in, limits.Ratio)
		}
		ended := p.err != nil
		s.filled <- p
		if ended {
			return
		}
	}
}

// sum hashes pieces and passes them on.
func (s *stream) sum() {
	for {
		p, ok := receive(s.filled, s.done)
		if !ok {
			return
		}
		s.hash.Write(p.buf[:p.n])
		ended := p.err != nil
		s.hashed <- p
		if ended {
			return
		}
	}
}

func receive(from chan *piece, done chan struct{}) (*piece, bool) {
	select {
	case p := <-from:
		return p, true
	case <-done:
		return nil, false
	}
}

// readFull fills b unless the stream ends, with the very error that ended it: io.ReadFull would make a good end and a
// truncated stream look the same.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = readSome(r, b[n:])
		n += m
	}
	return n, err
}

// readSome reads at least one byte, or what ended the stream.
func readSome(r io.Reader, b []byte) (n int, err error) {
	const maxEmptyReads = 100
	for range maxEmptyReads {
		if n, err = r.Read(b); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}
