package testenv

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// MemoryDir is t.TempDir in memory, for trees of many files that a test makes only to look at them: a disk takes most of
// such a test's time. Where there is no file system in memory that has room and everything a disk's has, it is t.TempDir.
func MemoryDir(t testing.TB) string {
	t.Helper()
	const memory, neededBytes = "/dev/shm", 3 << 30
	var st unix.Statfs_t
	if unix.Statfs(memory, &st) != nil || st.Type != unix.TMPFS_MAGIC || st.Bavail*uint64(st.Bsize) < neededBytes {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "tare-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // as t.TempDir
		t.Fatal(err)
	}
	for _, name := range []string{"user.tare", "trusted.tare"} { // tmpfs has the former since Linux 6.6
		if unix.Setxattr(dir, name, nil, 0) != nil || unix.Removexattr(dir, name) != nil {
			return t.TempDir()
		}
	}
	return dir
}
