package service

import (
	"io"
	"sync"
	"time"
)

// lines writes a log. Lines about requests are collected for a moment, and go out
// in one write; any other line goes at once, after those that came before it.
type lines struct {
	mu      sync.Mutex
	out     io.Writer
	pending []byte
	timer   *time.Timer // nil until there was a first pending line
}

const (
	maxPendingBytes = 32 << 10
	maxPendingTime  = 200 * time.Millisecond
)

// Write implements io.Writer.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, line...)
	return len(line), l.flush()
}

// flush writes what is pending. The caller holds the lock.
func (l *lines) flush() error {
	if len(l.pending) == 0 {
		return nil
	}
	_, err := l.out.Write(l.pending)
	l.pending = l.pending[:0]
	return err
}

// requestLines is lines for those about requests.
type requestLines struct{ *lines }

// Write implements io.Writer.
func (r requestLines) Write(line []byte) (int, error) {
	l := r.lines
	l.mu.Lock()
	defer l.mu.Unlock()
	first := len(l.pending) == 0
	l.pending = append(l.pending, line...)
	switch {
	case len(l.pending) >= maxPendingBytes:
		return len(line), l.flush()
	case l.timer == nil:
		l.timer = time.AfterFunc(maxPendingTime, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flush() // there is nobody to tell
		})
	case first:
		l.timer.Reset(maxPendingTime)
	}
	return len(line), nil
}
