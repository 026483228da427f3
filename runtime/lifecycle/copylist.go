package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// maxListedFiles bounds what a container's program copies by itself: each file
// is half a dozen of its system calls.
const maxListedFiles = 1 << 12

// filesToCopy lists what is in a directory, for a program that is to copy it:
// each file behind the directory it is in. Owners are the container's ids.
func filesToCopy(at place, s *specs.Spec) ([]plan.CopyFile, error) {
	if s.Linux == nil {
		return nil, nil // there will be no right to mount either
	}
	uid, gid, err := containerMaps(s, "/")
	if err != nil {
		return nil, err
	}
	dir, err := at.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l := copyList{uid: uid, gid: gid, bytes: maxCopyBytes}
	if err := l.content(dir, "", maxCopyDepth); err != nil {
		return nil, err
	}
	return l.files, nil
}

// A copyList grows by what it finds.
type copyList struct {
	files    []plan.CopyFile
	bytes    int64
	uid, gid []specs.LinuxIDMapping
}

func (l *copyList) content(dir *os.File, name string, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: more than %d directories deep", errCopyTooLarge, maxCopyDepth)
	}
	for {
		entries, err := dir.Readdirnames(256)
		for _, entry := range entries {
			if err := l.entry(dir, entry, path.Join(name, entry), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l *copyList) entry(dir *os.File, entry, name string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), entry, &st, unix.AT_SYMLINK_NOFOLLOW)
	f := plan.CopyFile{Name: name, Mode: st.Mode}
	kind := st.Mode & unix.S_IFMT
	switch {
	case err != nil:
	case kind == unix.S_IFSOCK:
		return nil // nobody listens on a copy
	case kind == unix.S_IFCHR || kind == unix.S_IFBLK:
		err = errors.New("is a device, which an ordinary user cannot make")
	case kind == unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		var n int
		n, err = unix.Readlinkat(int(dir.Fd()), entry, target)
		f.Target = string(target[:max(n, 0)])
	case kind == unix.S_IFREG:
		f.SizeBytes = st.Size
		if l.bytes -= st.Size; l.bytes < 0 {
			err = fmt.Errorf("%w: more than %d bytes", errCopyTooLarge, maxCopyBytes)
		}
	}
	if err == nil {
		err = l.owner(&f, &st)
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	if l.files = append(l.files, f); len(l.files) > maxListedFiles {
		return fmt.Errorf("%w: more than %d files", errCopyTooLarge, maxListedFiles)
	}
	if kind != unix.S_IFDIR {
		return nil
	}
	below, err := openAt(dir, entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	defer below.Close()
	return l.content(below, name, depth-1)
}

// owner translates the host's ids.
func (l *copyList) owner(f *plan.CopyFile, st *unix.Stat_t) error {
	for _, id := range []struct {
		what string
		host uint32
		maps []specs.LinuxIDMapping
		to   *uint32
	}{{"user", st.Uid, l.uid, &f.UID}, {"group", st.Gid, l.gid, &f.GID}} {
		inverse := make([]specs.LinuxIDMapping, len(id.maps))
		for i, m := range id.maps {
			inverse[i] = specs.LinuxIDMapping{ContainerID: m.HostID, HostID: m.ContainerID, Size: m.Size}
		}
		var ok bool
		if *id.to, ok = mappedID(id.host, inverse); !ok {
			return fmt.Errorf("its %s %d is not mapped in the container's user namespace", id.what, id.host)
		}
	}
	return nil
}
