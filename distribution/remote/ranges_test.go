package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// small pieces, so that a test of them does not take long.
var testPacing = pacing{pieceBytes: 64 << 10, pieces: 4, windowBytes: 128 << 10, slow: 50 * time.Millisecond, least: 256 << 10}

// narrow is a server with so many bytes a second for each request, or for all of them
// together.
type narrow struct {
	content []byte
	rate    int // bytes in a millisecond
	shared  bool

	line     sync.Mutex
	running  atomic.Int32
	most     atomic.Int32 // requests at a time
	requests atomic.Int32
}

func (s *narrow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	n := s.running.Add(1)
	defer s.running.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	http.ServeContent(&narrowWriter{w, s}, r, "", time.Time{}, bytes.NewReader(s.content))
}

type narrowWriter struct {
	http.ResponseWriter
	server *narrow
}

func (w *narrowWriter) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), 8<<10)]
		wait := time.Duration(len(part)) * time.Millisecond / time.Duration(w.server.rate)
		if w.server.shared {
			w.server.line.Lock()
			time.Sleep(wait)
			w.server.line.Unlock()
		} else {
			time.Sleep(wait)
		}
		var n int
		n, err = w.ResponseWriter.Write(part)
		sent += n
		p = p[len(part):]
	}
	return sent, err
}

func pacedClient(t *testing.T) *Client {
	c := newClient(t, quick())
	c.pacing = testPacing
	return c
}

// Where each connection is narrow, some of them are quicker, and never more than
// allowed; where they share what there is, it is one again.
func TestPieces(t *testing.T) {
	content, desc := blob(2 << 20)
	for name, s := range map[string]*narrow{
		"each is narrow": {content: content, rate: 1 << 10},
		"all are":        {content: content, rate: 2 << 10, shared: true},
		"none is":        {content: content, rate: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := pacedClient(t), newFaulty(t, s.ServeHTTP)
			if name == "none is" {
				c.pacing.slow = time.Minute // that is more than a busy machine adds
			}
			got, err := pullBlob(c, f, desc, 0)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if most := s.most.Load(); most > int32(testPacing.pieces)+1 || len(c.paced) > 0 {
				t.Errorf("%d requests at a time, %d readers", most, len(c.paced))
			}
			requests := s.requests.Load()
			switch name {
			case "each is narrow":
				if most := s.most.Load(); most < 3 {
					t.Errorf("%d requests at a time", most)
				}
			case "all are":
				if requests > 25 { // of 30 in all
					t.Errorf("%d requests, though more connections were no quicker", requests)
				}
			case "none is":
				if requests > 3 {
					t.Errorf("%d requests", requests)
				}
			}
			// Also from somewhere in the middle.
			if got, err := pullBlob(c, f, desc, 12345); err != nil || !bytes.Equal(got, content[12345:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// What goes wrong with a piece is made good by one connection.
func TestPiecesThatFail(t *testing.T) {
	content, desc := blob(1 << 20)
	wide := &narrow{content: content, rate: 1 << 20}
	part := func(answer http.HandlerFunc) http.HandlerFunc {
		slow := &narrow{content: content, rate: 1 << 10}
		return func(w http.ResponseWriter, r *http.Request) {
			if span := r.Header.Get("Range"); span != "" && !strings.HasSuffix(span, "-") {
				answer(w, r)
				return
			}
			slow.ServeHTTP(w, r)
		}
	}
	var n atomic.Int32
	for name, answer := range map[string]http.HandlerFunc{
		"refused":     step(403, ""),
		"no such":     step(404, ""),
		"too many":    step(429, "", "Retry-After: 3600"),
		"the whole":   func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); wide.ServeHTTP(w, r) },
		"another":     step(206, "xxxxx", "Content-Range: bytes 0-4/1048576"),
		"another all": step(206, "xxxxx", "Content-Range: bytes 0-4/5"),
		"no range":    step(206, "xxxxx"),
		"cut":         cutAfter(content, 1000),
		"later": func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 6 {
				panic(http.ErrAbortHandler)
			}
			wide.ServeHTTP(w, r)
		},
		"stands still": stall(content, 100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait
			c := pacedClient(t)
			c.opts.MaxAttempts = 2
			got, err := pullBlob(c, newFaulty(t, part(answer)), desc, 0)
			if err != nil || !bytes.Equal(got, content) || len(c.paced) > 0 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// A reader that is closed, or cancelled, in the middle of its pieces leaves nothing.
func TestPiecesEnd(t *testing.T) {
	content, desc := blob(2 << 20)
	f := newFaulty(t, (&narrow{content: content, rate: 1 << 10}).ServeHTTP)
	why := errors.New("why")
	for name, end := range map[string]func(io.Closer, context.CancelCauseFunc){
		"closed":    func(r io.Closer, _ context.CancelCauseFunc) { r.Close() },
		"cancelled": func(_ io.Closer, cancel context.CancelCauseFunc) { cancel(why) },
	} {
		t.Run(name, func(t *testing.T) {
			c := pacedClient(t)
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			r, err := c.Blob(ctx, f.repo, desc, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for r.(*blobReader).pieces == nil {
				if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
					t.Fatal(err)
				}
			}
			end(r, cancel)
			if n, err := io.Copy(io.Discard, r); err == nil || name == "cancelled" && !errors.Is(err, why) {
				t.Errorf("%d bytes, %v", n, err)
			}
			c.Close()
			for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+8; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) { // the server's own are some of them
					t.Fatalf("%d goroutines, before it were %d", runtime.NumGoroutine(), before)
				}
			}
			if len(c.paced) > 0 {
				t.Error("the reader counts still")
			}
		})
	}
}
