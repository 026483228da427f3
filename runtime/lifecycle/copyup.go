package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// What a copy into memory may amount to. An image decides on it, and the memory
// is ours.
const (
	maxCopyBytes = 1 << 30
	maxCopyFiles = 1 << 18
	maxCopyDepth = 128
)

// copyUp makes a tmpfs that is mounted nowhere, with a copy of what it is to
// hide.
func copyUp(c *plan.CopyUp, dir string) (*os.File, error) {
	from, err := place{c.Source.Root, c.Source.Name}.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("tmpcopyup: %w", err)
	}
	defer from.Close()
	data, err := hostOwner(c, dir)
	if err != nil {
		return nil, fmt.Errorf("tmpcopyup: %w", err)
	}
	mount, err := newTmpfs(c, data)
	if err != nil {
		return nil, fmt.Errorf("tmpcopyup: %w", err)
	}
	to, err := openAt(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		cp := copier{bytes: maxCopyBytes, files: maxCopyFiles}
		err = cp.content(from, to, maxCopyDepth)
		to.Close()
	}
	if err != nil {
		mount.Close()
		return nil, fmt.Errorf("tmpcopyup: copy /%s: %w", strings.TrimPrefix(c.Source.Name, "."), err)
	}
	return mount, nil
}

// hostOwner puts the owner into the options of a tmpfs as we know it, who make the
// file system outside of the container's user namespace.
func hostOwner(c *plan.CopyUp, dir string) ([]string, error) {
	if c.IDs == nil {
		return c.Data, nil
	}
	uid, gid := c.IDs.UID, c.IDs.GID
	if c.IDs.Namespace != "" {
		var err error
		if uid, gid, err = idMaps(c.IDs.Namespace, dir); err != nil {
			return nil, err
		}
	}
	ids := map[string]uint32{"uid": 0, "gid": 0}
	var data []string
	for _, d := range c.Data {
		key, value, _ := strings.Cut(d, "=")
		if _, ok := ids[key]; !ok {
			data = append(data, d)
			continue
		}
		id, err := strconv.ParseUint(value, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("option %q: %w", d, err)
		}
		ids[key] = uint32(id)
	}
	for key, maps := range map[string][]specs.LinuxIDMapping{"uid": uid, "gid": gid} {
		id, ok := mappedID(ids[key], maps)
		if !ok {
			return nil, fmt.Errorf("%s %d is not mapped in the user namespace", key, ids[key])
		}
		data = append(data, fmt.Sprintf("%s=%d", key, id))
	}
	return data, nil
}

func newTmpfs(c *plan.CopyUp, data []string) (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if c.Device != "" {
		data = append(data[:len(data):len(data)], "source="+c.Device)
	}
	if c.Label != "" {
		data = append(data[:len(data):len(data)], "context="+c.Label)
	}
	for _, f := range c.Flags {
		if err := unix.FsconfigSetFlag(fs, f); err != nil {
			return nil, fmt.Errorf("option %q: %w", f, err)
		}
	}
	for _, d := range data {
		key, value, ok := strings.Cut(d, "=")
		if ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, d)
		}
		if err != nil {
			return nil, fmt.Errorf("option %q: %w", d, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(c.Attr))
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), "tmpfs"), nil
}

// A copier counts down what may still be copied.
type copier struct {
	bytes int64
	files int
}

var errCopyTooLarge = errors.New("too much for a copy in memory")

// content copies what is in a directory, through descriptors: no name is
// followed anywhere.
func (c *copier) content(from, to *os.File, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: more than %d directories deep", errCopyTooLarge, maxCopyDepth)
	}
	for {
		names, err := from.Readdirnames(256)
		for _, name := range names {
			if err := c.entry(from, to, name, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
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

func (c *copier) entry(from, to *os.File, name string, depth int) error {
	if c.files--; c.files < 0 {
		return fmt.Errorf("%w: more than %d files", errCopyTooLarge, maxCopyFiles)
	}
	var st unix.Stat_t
	src, dst := int(from.Fd()), int(to.Fd())
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.file(from, to, name, &st)
	case unix.S_IFDIR:
		return c.directory(from, to, name, &st, depth)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), dst, name)
		}
		if err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil // nobody listens on a copy
	default:
		// A device or a pipe: made, never opened.
		if err := unix.Mknodat(dst, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
			return err
		}
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

func (c *copier) directory(from, to *os.File, name string, st *unix.Stat_t, depth int) error {
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	dst, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := c.content(src, dst, depth-1); err != nil {
		return err
	}
	return own(dst, st)
}

func (c *copier) file(from, to *os.File, name string, st *unix.Stat_t) error {
	// Whatever has taken its place meanwhile: a pipe must not hold us.
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	var now unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &now); err != nil {
		return err
	}
	if now.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("is no longer a regular file")
	}
	dst, err := openAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	n, err := io.Copy(dst, io.LimitReader(src, c.bytes+1))
	if err != nil {
		return err
	}
	if c.bytes -= n; c.bytes < 0 {
		return fmt.Errorf("%w: more than %d bytes", errCopyTooLarge, maxCopyBytes)
	}
	return own(dst, st)
}

// own gives a file the owner and the permissions of another. The owner comes
// first: a change of it takes set-user-ID bits away.
func own(f *os.File, st *unix.Stat_t) error {
	if err := unix.Fchown(int(f.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), st.Mode&0o7777)
}

func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
