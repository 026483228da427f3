package fs

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"sync"
)

// place gives a whole file its name, by os.Rename or os.Link, and notes in dirs the directories
// that have a new name in them. The directory may be taken away between its
// making and that, by a Delete that found it empty.
func (o *Objects) place(by func(from, to string) error, from, to string, dirs map[string]bool) error {
	dir := filepath.Dir(to)
	for range 100 {
		err := o.makeDir(dir, dirs)
		if err == nil {
			err = by(from, to)
		}
		if err == nil {
			dirs[dir] = true
			return nil
		}
		if !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
	}
	return &os.PathError{Op: "rename", Path: to, Err: iofs.ErrNotExist}
}

// makeDir is os.MkdirAll that notes the directories it adds a name to.
func (o *Objects) makeDir(dir string, dirs map[string]bool) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, iofs.ErrNotExist) && dir != o.root {
		if err := o.makeDir(filepath.Dir(dir), dirs); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		dirs[filepath.Dir(dir)] = true
	}
	if errors.Is(err, iofs.ErrExist) {
		return nil
	}
	return err
}

// syncDirs puts new names on the disk.
func (o *Objects) syncDirs(dirs map[string]bool) error {
	if o.opts.NoSync {
		return nil
	}
	for dir := range dirs {
		if err := o.syncs.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncs lets those who wait for the same directory share one fsync(2): what
// begins after a change covers it, whoever asked.
type syncs struct {
	mu      sync.Mutex
	waiting map[string]*batch // not begun
	running map[string]*batch
}

type batch struct {
	done chan struct{}
	err  error
}

func (s *syncs) syncDir(dir string) error {
	s.mu.Lock()
	if b := s.waiting[dir]; b != nil {
		s.mu.Unlock()
		<-b.done
		return b.err
	}
	b := &batch{done: make(chan struct{})}
	if s.waiting == nil {
		s.waiting, s.running = map[string]*batch{}, map[string]*batch{}
	}
	before := s.running[dir]
	s.waiting[dir] = b
	s.mu.Unlock()
	if before != nil {
		<-before.done // meanwhile others join
	}
	s.mu.Lock()
	delete(s.waiting, dir)
	s.running[dir] = b
	s.mu.Unlock()
	b.err = fsync(dir)
	s.mu.Lock()
	if s.running[dir] == b {
		delete(s.running, dir)
	}
	s.mu.Unlock()
	close(b.done)
	return b.err
}

func fsync(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil // emptied and removed in the meantime
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
