package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// An owned directory is locked by its maker for as long as that lives, and is
// anybody's to remove after that. It may be renamed meanwhile: the lock is on
// the directory, not on its name.
type owned struct {
	path string
	lock *os.File
}

// errTaken says that somebody else owns the directory.
var errTaken = errors.New("in use by another process")

// makeOwned makes a new directory and takes it.
func makeOwned(path string, perm os.FileMode) (*owned, error) {
	for {
		if err := os.Mkdir(path, perm); err != nil {
			return nil, err
		}
		o, err := takeOwned(path)
		// Before the lock was on it, a cleaner may have taken the directory for a
		// dead one's: then it is removed, or about to be.
		if err == nil || !errors.Is(err, errTaken) && !errors.Is(err, fs.ErrNotExist) {
			return o, err
		}
		time.Sleep(time.Millisecond)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// takeOwned takes a directory that is there, unless somebody owns it.
func takeOwned(path string) (*owned, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	o := &owned{path: path, lock: os.NewFile(uintptr(fd), path)}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		o.lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errTaken
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	var mine, named unix.Stat_t
	err = unix.Fstat(fd, &mine)
	if err == nil {
		err = unix.Lstat(path, &named)
	}
	if err == nil && (mine.Ino != named.Ino || mine.Dev != named.Dev) {
		err = unix.ENOENT
	}
	if err != nil {
		o.lock.Close()
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return o, nil
}

// rename gives the directory another name, and takes the place of an empty
// directory that has it.
func (o *owned) rename(path string) error {
	if err := unix.Rename(o.path, path); err != nil {
		return &os.LinkError{Op: "rename", Old: o.path, New: path, Err: err}
	}
	o.path = path
	return nil
}

// release gives the directory up and leaves it as it is.
func (o *owned) release() { o.lock.Close() }

// remove removes the directory with all that is in it, and gives it up.
func (o *owned) remove() error {
	defer o.lock.Close()
	return removeTree(o.path)
}

// removeTree removes a directory that holds files of an image or a container.
func removeTree(path string) error {
	root, err := safepath.OpenRoot(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(filepath.Base(path))
}

// randomID is a name nobody has: 64 hexadecimal digits, as docker's containers
// have.
func randomID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand
	return hex.EncodeToString(b[:])
}

// eachDead visits the directories in dir whose names have the prefix and whose
// makers are gone, taken. What can't be looked at is somebody else's affair.
func eachDead(ctx context.Context, dir, prefix string, visit func(*owned) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		o, err := takeOwned(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue
		}
		if err := visit(o); err != nil {
			errs = append(errs, fmt.Errorf("remove leftover %s: %w", o.path, err))
		}
		o.release()
	}
	return errors.Join(errs...)
}

// flock waits for a lock by asking again: a thread blocked in flock(2) could
// not be told that ctx has ended.
func flock(ctx context.Context, f *os.File, how int) error {
	const longest = 10 * time.Millisecond
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, longest) {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
	}
}
