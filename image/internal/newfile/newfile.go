// Package newfile makes files that appear under their name whole or not at
// all, whatever happens on the way; it implements no part of a specification.
package newfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// File is a file without a name until Commit gives it one. Where that cannot be
// had, on a file system without O_TMPFILE (open(2)), it has a hidden one until
// then, which a killed process leaves.
type File struct {
	*os.File
	path string
	temp string // the hidden name; empty if there is none
	done bool
}

// Create makes a file that is to be called path.
func Create(path string, perm os.FileMode) (*File, error) {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(perm.Perm()))
	if err == nil {
		return &File{File: os.NewFile(uintptr(fd), path), path: path}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, &fs.PathError{Op: "create file in", Path: dir, Err: err}
	}
	temp := hidden(path)
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path, temp: temp}, nil
}

func hidden(path string) string {
	name := "." + filepath.Base(path)
	return filepath.Join(filepath.Dir(path), name[:min(len(name), 200)]+".tare-"+strconv.FormatUint(rand.Uint64(), 36))
}

// Commit syncs the file and gives it its name, which it takes from another
// file that has it.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("commit %s: %w", f.path, fs.ErrClosed)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.name(); err != nil {
		return err
	}
	f.temp, f.done = "", true
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// name gives the file its name: at once where no other file has it, so that
// there is no moment at which a killed process would leave a hidden one.
func (f *File) name() error {
	if f.temp == "" {
		err := f.link(f.path)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		temp := hidden(f.path) // linkat(2) does not replace a file, rename(2) does
		if err := f.link(temp); err != nil {
			return err
		}
		f.temp = temp
	}
	return os.Rename(f.temp, f.path)
}

func (f *File) link(path string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &fs.PathError{Op: "link", Path: f.path, Err: err}
	}
	return nil
}

// Close ends the writing. Without a Commit before it, there was never a file.
func (f *File) Close() error {
	err := f.File.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Unnamed makes a file in a directory that never gets a name, for what has to
// be put aside.
func Unnamed(dir string) (*os.File, error) {
	f, err := Create(filepath.Join(dir, "spool"), 0o600)
	if err != nil {
		return nil, err
	}
	if f.temp != "" {
		if err := os.Remove(f.temp); err != nil {
			return nil, errors.Join(err, f.File.Close())
		}
	}
	return f.File, nil
}
