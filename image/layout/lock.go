package layout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock takes a lock file shared (LOCK_SH) or exclusively (LOCK_EX) and returns
// what gives it back. Every call opens the file anew, and flock(2) belongs to
// the open file, so goroutines exclude one another as processes do.
func (s *Store) lock(ctx context.Context, name string, how int) (unlock func(), err error) {
	if s.opts.ReadOnly {
		return nil, ErrReadOnly
	}
	f, err := s.openPrivate(name, os.O_RDONLY|os.O_CREATE, 0o600) // who can read a lock file can hold it
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, plain(err))
	}
	if err := flock(ctx, f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

// openPrivate opens a file of ours, and makes its directory when it is the
// first one. In a layout from elsewhere its name may be that of anything: of a
// FIFO, which must not make us wait, or one more of a file that lies elsewhere,
// which must not be written to.
func (s *Store) openPrivate(name string, flag int, perm os.FileMode) (*os.File, error) {
	flag |= syscall.O_NONBLOCK
	f, err := s.root.OpenFile(name, flag, perm)
	if errors.Is(err, os.ErrNotExist) && flag&os.O_CREATE != 0 {
		if err := s.root.MkdirAll(partialDir, 0o755); err != nil {
			return nil, err
		}
		f, err = s.root.OpenFile(name, flag, perm)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); ok && own.Nlink > 1 && flag&os.O_RDWR != 0 {
		f.Close()
		if err := s.remove(name); err != nil {
			return nil, err
		}
		return s.openPrivate(name, flag, perm)
	}
	return f, nil
}

// flock waits by asking again, because a thread blocked in flock(2) could not
// be told that ctx has ended.
func flock(ctx context.Context, f *os.File, how int) error {
	const longest = 10 * time.Millisecond
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, longest) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == syscall.EINTR:
			continue
		case err != syscall.EWOULDBLOCK:
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("held by another process: %w", ctx.Err())
		case <-time.After(delay):
		}
	}
}
