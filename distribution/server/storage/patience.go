package storage

import (
	"context"
	"errors"
	"time"
)

// busyPause is how long to wait before one tries again what others were in the way of.
const busyPause = 30 * time.Millisecond

// patiently does again what is ErrBusy, for as long as requests wait for each other.
func (s *Store) patiently(ctx context.Context, do func() error) error {
	for end := time.Now().Add(s.opts.Patience); ; {
		err := do()
		if !errors.Is(err, ErrBusy) || !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyPause):
		}
	}
}
