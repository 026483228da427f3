package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// MountFresh mounts a new, empty file system on the directory target: tmpfs, or ext4 in file, which is made. It should be in a
// mount namespace of the caller's own.
func MountFresh(ctx context.Context, fsType, file, target string) error {
	const sizeBytes = 64 << 30 // sparse; more than all runs write
	if fsType == "tmpfs" {
		return unix.Mount("bench", target, "tmpfs", 0, "")
	}
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(sizeBytes), f.Close())
	}
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", "4000000", file},
		{"mount", "-o", "loop", file, target},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	return nil
}
