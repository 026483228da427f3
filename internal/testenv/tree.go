package testenv

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Tree describes all that is below dir, one line per name: type, mode, owner, size, device, times, link target,
// extended attributes, content, and which names are one file. Directories' sizes and everything's access and change times
// are left out, as they tell how, not what.
func Tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	lines := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line, err := describeFile(path, &st)
		if err != nil {
			return err
		}
		lines[rel] = line
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			inodes[st.Ino] = append(inodes[st.Ino], rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range inodes {
		if len(names) == 1 {
			continue // its other names are elsewhere, or hidden by overlayfs
		}
		slices.Sort(names)
		for _, n := range names {
			lines[n] += fmt.Sprintf(" linked %q", names)
		}
	}
	return lines
}

func describeFile(path string, st *unix.Stat_t) (string, error) {
	kinds := map[uint32]string{unix.S_IFDIR: "dir", unix.S_IFREG: "file", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char",
		unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket"}
	kind := kinds[st.Mode&unix.S_IFMT]
	line := fmt.Sprintf("%s %04o %d:%d mtime %d.%09d", kind, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch kind {
	case "file":
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return "", err
		}
		line += fmt.Sprintf(" size %d sha256 %s", st.Size, hex.EncodeToString(sum.Sum(nil)[:8]))
	case "symlink":
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" -> %q", target)
	case "char", "block":
		line += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return line, nil
}

// SameTree reports what differs between two trees.
func SameTree(t testing.TB, got, want map[string]string, gotName, wantName string) {
	t.Helper()
	names := slices.Sorted(maps.Keys(want))
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	shown := 0
	for _, name := range names {
		if got[name] == want[name] {
			continue
		}
		if shown++; shown > 30 {
			t.Error("… and more")
			return
		}
		t.Errorf("%q:\n  %-8s %s\n  %-8s %s", name, gotName, cmp.Or(got[name], "(none)"), wantName, cmp.Or(want[name], "(none)"))
	}
}
