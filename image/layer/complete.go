package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// Complete adds to a layer that was applied alone what only the layers below it can tell: the attributes of directories
// that it has entries in but does not describe, without which overlayfs would show made-up ones; files that it only has a
// hard link to; and which whiteouts have nothing to hide. Those have to go, because overlayfs lists them in a directory
// that only one layer has. lowers are the directories of the layers below, the topmost first, themselves complete; none if
// the layer's Result has OpaqueRoot.
func Complete(ctx context.Context, root *safepath.Root, lowers []*safepath.Root, pending Pending, options Options) error {
	c := completer{root: root, lowers: lowers, opaque: options.Form.opaque(), implicit: map[string]bool{}, copied: map[string]string{}}
	if err := c.complete(ctx, pending); err != nil {
		return fmt.Errorf("complete layer %s: %w", options.Name, err)
	}
	return nil
}

func sortLinks(links []HardLink) {
	slices.SortFunc(links, func(a, b HardLink) int { return strings.Compare(a.Name, b.Name) })
}

type completer struct {
	root     *safepath.Root
	lowers   []*safepath.Root
	opaque   string
	implicit map[string]bool   // the directories that the layer does not describe
	copied   map[string]string // the name in this layer of each link target that has been copied
}

func (c *completer) complete(ctx context.Context, pending Pending) error {
	for _, name := range pending.Dirs {
		c.implicit[name] = true
	}
	for _, name := range pending.Whiteouts {
		if err := c.prune(name); err != nil {
			return fmt.Errorf("whiteout of %s: %w", quote(name), err)
		}
	}
	for _, name := range pending.Dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !c.implicit[name] {
			continue
		}
		if err := c.describe(name); err != nil {
			return fmt.Errorf("directory %s: %w", quote(name), err)
		}
	}
	for _, l := range pending.Links {
		if err := c.link(ctx, l); err != nil {
			return fmt.Errorf("hard link %s to %s: %w", quote(l.Name), quote(l.Target), err)
		}
	}
	return nil
}

// prune removes a whiteout from a directory that no lower layer shows in, and then the directory, if the layer only has it
// for its whiteouts.
func (c *completer) prune(name string) error {
	dirName, base := safepath.SplitBase(name)
	hides, err := c.hides(c.root, dirName)
	if err != nil {
		return err
	}
	if !hides {
		lower, err := c.showing(dirName)
		if lower != nil {
			lower.Close()
		}
		if lower != nil || err != nil {
			return err
		}
	}
	err = c.in(dirName, func(dirfd int) error {
		var st unix.Stat_t
		err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || !isWhiteoutNode(&st) {
			return err // the layer has put something else there
		}
		return unix.Unlinkat(dirfd, base, 0)
	})
	for c.implicit[dirName] && dirName != "." && err == nil {
		above, base := safepath.SplitBase(dirName)
		err = c.in(above, func(dirfd int) error { return unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR) })
		if err == nil {
			delete(c.implicit, dirName)
		}
		dirName = above
	}
	if isMissing(err) || err == unix.ENOTEMPTY {
		return nil
	}
	return err
}

// in has do change something in a directory of the layer, whose times stay as they are.
func (c *completer) in(name string, do func(dirfd int) error) error {
	fd, err := safepath.OpenAt(c.root.FD(), name, unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := do(fd); err != nil {
		return err
	}
	return setTimes(fd, [2]unix.Timespec{st.Atim, st.Mtim})
}

// describe copies a directory's attributes from the topmost layer that shows through.
func (c *completer) describe(name string) error {
	// What is in a directory that this layer made opaque is hidden, but not the directory's own attributes.
	above, _ := safepath.SplitBase(name)
	if hides, err := c.hides(c.root, above); hides || err != nil {
		return err
	}
	from, err := c.showing(name)
	if from == nil || err != nil {
		return err
	}
	defer from.Close()
	to, err := c.root.OpenBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyAttributes(int(to.Fd()), int(from.Fd()))
}

// showing opens the directory that the topmost of the lower layers shows at name; nil if there is none.
func (c *completer) showing(name string) (*os.File, error) {
	for _, lower := range c.lowers {
		from, err := lower.OpenBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			return from, nil
		}
		if !isMissing(err) && !errors.Is(err, unix.ELOOP) {
			return nil, err
		}
		if hides, err := c.hides(lower, name); hides || err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// hides says whether a layer keeps those below it from showing at name: by an opaque directory on the way, or by
// something, a whiteout for one, that is not a directory.
func (c *completer) hides(layer *safepath.Root, name string) (bool, error) {
	for i := 0; i <= len(name) && name != "."; i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		d, err := layer.OpenBeneath(name[:i], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			return true, nil
		case err != nil:
			return false, err
		}
		_, err = unix.Fgetxattr(int(d.Fd()), c.opaque, nil)
		d.Close()
		if err == nil {
			return true, nil
		}
	}
	return false, nil
}

// copyAttributes gives one file or directory another's owner, mode, extended attributes and times.
func copyAttributes(to, from int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names, err := listXattrs(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if refusedXattr(name) != nil {
			continue
		}
		const maxValueBytes = 64 << 10 // the kernel's XATTR_SIZE_MAX
		value := make([]byte, maxValueBytes)
		n, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(to, name, value[:n], 0); err != nil {
			return err
		}
	}
	return setTimes(to, [2]unix.Timespec{st.Atim, st.Mtim})
}

// link makes a name for the file that a hard link needs, and leaves the times of the directory as they are.
func (c *completer) link(ctx context.Context, l HardLink) error {
	dir, base := safepath.SplitBase(l.Name)
	return c.in(dir, func(dirfd int) error {
		if first, ok := c.copied[l.Target]; ok {
			return c.linkAgain(dirfd, base, first)
		}
		c.copied[l.Target] = l.Name
		return c.copyUp(ctx, dirfd, base, l.Target)
	})
}

func (c *completer) linkAgain(dirfd int, base, first string) error {
	firstDir, firstBase, err := c.root.OpenParent(first)
	if err != nil {
		return err
	}
	defer firstDir.Close()
	return unix.Linkat(int(firstDir.Fd()), firstBase, dirfd, base, 0)
}

// copyUp copies what is no directory from the topmost layer that has it, as overlayfs would before a change.
func (c *completer) copyUp(ctx context.Context, dirfd int, base, target string) error {
	for _, lower := range c.lowers {
		from, err := lower.Open(target, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err == nil {
			defer from.Close()
			return copyAny(ctx, dirfd, base, from)
		}
		if !isMissing(err) {
			return err
		}
		if hides, err := c.hides(lower, target); hides || err != nil {
			return errors.Join(unix.ENOENT, err)
		}
	}
	return unix.ENOENT
}

// copyAny copies what from, opened with O_PATH, stands for to the new name base: a file, or a symbolic link, device or FIFO.
func copyAny(ctx context.Context, dirfd int, base string, from *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if isWhiteoutNode(&st) {
		return unix.ENOENT
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.EPERM // as link(2) has it
	case unix.S_IFREG:
		content, err := os.Open(descriptorPath(int(from.Fd())))
		if err != nil {
			return err
		}
		defer content.Close()
		return copyFile(ctx, dirfd, base, content)
	}
	return copyNode(dirfd, base, int(from.Fd()), &st)
}

// copyNode copies what cannot be opened: a symbolic link, device or FIFO.
func copyNode(dirfd int, base string, from int, st *unix.Stat_t) error {
	isLink := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if isLink {
		text := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, "", text)
		if err == nil {
			err = unix.Symlinkat(string(text[:n]), dirfd, base)
		}
		if err != nil {
			return err
		}
	} else if err := unix.Mknodat(dirfd, base, st.Mode&(unix.S_IFMT|0o777), int(st.Rdev)); err != nil {
		return err
	}
	to, err := unix.Openat(dirfd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if !isLink {
		if err := chmodPath(to, st.Mode&0o7777); err != nil {
			return err
		}
	}
	if err := copyNodeXattrs(to, from); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dirfd, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyNodeXattrs copies extended attributes between O_PATH descriptors, which /proc's links lead to: to a symbolic link
// itself, too.
func copyNodeXattrs(to, from int) error {
	const maxBytes = 64 << 10 // the kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX
	buf := make([]byte, maxBytes)
	n, err := unix.Listxattr(descriptorPath(from), buf)
	if n == 0 || err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if refusedXattr(name) != nil {
			continue
		}
		n, err := unix.Getxattr(descriptorPath(from), name, buf)
		if err == nil {
			err = unix.Setxattr(descriptorPath(to), name, buf[:n], 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// copyFile copies a file with its attributes to the new name base.
func copyFile(ctx context.Context, dirfd int, base string, from *os.File) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, base, flags, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), base)
	defer to.Close()
	if err := copyContent(ctx, to, from); err != nil {
		return err
	}
	if err := copyAttributes(fd, int(from.Fd())); err != nil {
		return err
	}
	return to.Close()
}

// copyContent copies in steps between which ctx is asked. Each lets the kernel do the copying (copy_file_range).
func copyContent(ctx context.Context, to, from *os.File) error {
	const stepBytes = 64 << 20
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(to, from, stepBytes)
		if n == 0 && err == io.EOF || err == nil && n < stepBytes {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
}
