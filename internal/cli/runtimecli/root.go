package runtimecli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/tare-oci/tare/runtime/host"
)

const systemRoot = "/run/tare-runtime"

// defaultRoot is where state lies without --root: the system's place for root,
// the user's otherwise. Root of a user namespace is a user (rootless Podman
// calls us as such), unless it says that it is root, which is runc's rule. A
// user's directory is made here, so that it is nobody else's.
func defaultRoot() (dir string, err error) {
	uid, xdg := os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR")
	if uid == 0 {
		if user := os.Getenv("USER"); xdg == "" || user == "root" {
			return systemRoot, nil
		}
		if inside, err := host.InUserNamespace(); err != nil || !inside {
			return systemRoot, err
		}
	}
	if xdg == "" {
		dir = filepath.Join(os.TempDir(), "tare-runtime-"+strconv.Itoa(uid))
		return dir, privateDir(dir, uid)
	}
	dir = filepath.Join(xdg, "tare-runtime")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("the path in $XDG_RUNTIME_DIR must be writable by the user: %w", err)
	}
	// With the sticky bit it is not cleaned up for its age (XDG Base Directory Specification).
	if err := os.Chmod(dir, 0o700|fs.ModeSticky); err != nil {
		return "", fmt.Errorf("you should check permission of the path in $XDG_RUNTIME_DIR: %w", err)
	}
	return dir, nil
}

// privateDir makes a directory in a place where all users may write. What is
// there already has to be a directory of ours that nobody else gets into. No
// other user can replace it after that: such places are sticky.
func privateDir(dir string, uid int) error {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state directory: %w (set XDG_RUNTIME_DIR, or use --root)", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != uid || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("state directory %s: it is not a directory of ours with mode 0700: %v (set XDG_RUNTIME_DIR, or use --root)", dir, info.Mode())
	}
	return nil
}
