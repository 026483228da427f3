package layer

import "io"

const blobPieces = 2

// ahead reads a blob in a goroutine of its own, some pieces before they are wanted: a reader that vouches for the blob
// hashes all that it reads, for which who decompresses need not wait.
type ahead struct {
	free, filled chan *piece
	done         chan struct{} // closed to end it all

	current *piece // what is being read from, up to next
	next    int
	n       int64 // how much has been read
}

func newAhead(done chan struct{}) *ahead {
	return &ahead{free: newPieces(blobPieces), filled: make(chan *piece, blobPieces), done: done}
}

// fill fills pieces from the blob. The last one has the error that ended it.
func (a *ahead) fill(blob io.Reader) {
	for {
		p, ok := receive(a.free, a.done)
		if !ok {
			return
		}
		p.n, p.err = readSome(blob, p.space(readAheadBytes))
		ended := p.err != nil
		a.filled <- p
		if ended {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(b []byte) (int, error) {
	for a.current == nil || a.next == a.current.n {
		if a.current != nil {
			if a.current.err != nil {
				return 0, a.current.err
			}
			a.free <- a.current // has room for all there are
		}
		p, ok := receive(a.filled, a.done)
		if !ok {
			a.current = nil
			return 0, io.ErrClosedPipe // which nobody will hear of
		}
		a.current, a.next = p, 0
	}
	n := copy(b, a.current.buf[a.next:a.current.n])
	a.next += n
	a.n += int64(n)
	return n, nil
}
