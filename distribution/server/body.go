package server

import (
	"io"
	"net/http"
	"os"
	"time"
)

// body bounds how long a connection may stand still, not how long a transfer
// may take: a slow upload that moves lives on.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	rw      http.ResponseWriter
	idle    time.Duration
	set     time.Time // when the read deadline was last moved
	unread  bool      // there may be more to come
	failed  bool      // the client did not send what it had announced

	readBytes int64

	// pace, if not nil, is told of bytes that have come or gone, and returns when
	// there may be more; pieceBytes is how many to send at a time then.
	pace       func(n int64)
	pieceBytes int64
}

func newBody(w http.ResponseWriter, r *http.Request, idle time.Duration) *body {
	b := &body{ReadCloser: r.Body, control: http.NewResponseController(w), rw: w, idle: idle}
	if r.ContentLength != 0 {
		// The connection still has the deadline of the answer before this one, and
		// net/http may write something ("100 Continue") before we do.
		b.control.SetWriteDeadline(time.Time{})
		// Who is refused before his body was read may not send it ever, and
		// net/http waits for it.
		b.unread = true
		b.extend(time.Now())
	}
	return b
}

// Read moves the deadline on, but not for every few bytes. A ResponseWriter
// without deadlines (a test's recorder) has none to move.
func (b *body) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.set) > b.idle/8 {
		b.extend(now)
	}
	n, err := b.ReadCloser.Read(p)
	b.readBytes += int64(n)
	if b.pace != nil && n > 0 {
		b.pace(int64(n))
	}
	switch {
	case err == io.EOF:
		b.unread = false
		// From here on net/http reads to see whether the client is still there;
		// a deadline would tell it that it is not.
		b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.failed = true
	}
	return n, err
}

func (b *body) extend(now time.Time) {
	b.set = now
	b.control.SetReadDeadline(now.Add(b.idle))
}

func (b *body) writer() *writer { return &writer{ResponseWriter: b.rw, body: b} }

// writer does the same for what is sent, and keeps account of it.
type writer struct {
	http.ResponseWriter
	body      *body
	status    int
	sentBytes int64
	set       time.Time // when the deadline was last moved
}

func (w *writer) WriteHeader(status int) {
	w.extend()
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// sendBytes is what has to be through within the idle time.
const sendBytes = 4 << 20

func (w *writer) Write(p []byte) (int, error) {
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.sentBytes += int64(n)
	if w.body.pace != nil {
		w.body.pace(int64(n))
	}
	return n, err
}

// extend gives the next piece its time: after that of the rest of a body that
// nobody wants, for which net/http waits before it answers.
func (w *writer) extend() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	wait := w.body.idle
	if w.body.unread {
		wait *= 2
	}
	if now := time.Now(); now.Sub(w.set) > wait/8 {
		w.set = now
		w.body.control.SetWriteDeadline(now.Add(wait))
	}
}

// ReadFrom sends a file piece by piece. Each piece is a LimitedReader of the
// file itself, the form in which net/http uses sendfile(2).
func (w *writer) ReadFrom(r io.Reader) (sent int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	if !ok { // what may come slowly goes on slowly
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	for limited.N > 0 {
		size := min(limited.N, sendBytes)
		if w.body.pace != nil {
			size = min(size, w.body.pieceBytes)
		}
		piece := &io.LimitedReader{R: limited.R, N: size}
		want := piece.N
		w.extend()
		n, err := io.Copy(w.ResponseWriter, piece)
		sent += n
		w.sentBytes += n
		limited.N -= n
		if w.body.pace != nil {
			w.body.pace(n)
		}
		if err != nil || n < want {
			return sent, err
		}
	}
	return sent, nil
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
