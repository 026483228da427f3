package safepath

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveAllStopsAtMounts: a host directory that is still bound into a tree must survive the tree's removal.
func TestRemoveAllStopsAtMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	_, dir, outside := sandbox(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread, and its mount namespace, end with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		inner := filepath.Join(dir, "tree/mnt")
		for _, err := range []error{
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			os.MkdirAll(inner, 0o755),
			unix.Mount(outside, inner, "", unix.MS_BIND, ""),
		} {
			if err != nil {
				t.Errorf("set up: %v", err)
				return
			}
		}
		root, err := OpenRoot(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer root.Close()
		if err := root.RemoveAll("tree"); !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
			t.Errorf("RemoveAll over a mount: %v", err)
		}
		if err := root.RemoveAll("tree/mnt/secret"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("RemoveAll through a mount: %v", err)
		}
	}()
	<-done
}
