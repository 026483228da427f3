package fs

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/tare-oci/tare/distribution/server/storage"
)

const lockDir = "locks"

// Lock implements storage.Objects with flock(2), which also works between
// machines where the file system does (NFS version 4). The kernel releases it
// when the process ends, however it does.
func (o *Objects) Lock(_ context.Context, name string) (release func(), err error) {
	path, err := o.path(lockDir + "/" + name)
	if err != nil {
		return nil, err
	}
	for range 100 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, translate(err)
		}
		if _, err := retryInterrupted(func() (int, error) { return 0, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
			f.Close()
			if err == syscall.EWOULDBLOCK {
				return nil, fmt.Errorf("lock %s: %w", name, storage.ErrBusy)
			}
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
		if same(f, path) {
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close() // its last holder has removed the file since it was opened
	}
	return nil, fmt.Errorf("lock %s: %w", name, storage.ErrBusy)
}

func same(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}
