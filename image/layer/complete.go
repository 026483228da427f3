package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// Complete adds to a layer that was applied alone what only the layers below it can tell: the attributes of directories
// that it has entries in but does not describe, without which overlayfs would show made-up ones, and files that it only
// has a hard link to. lowers are the directories of the layers below, the topmost first, complete themselves.
func Complete(ctx context.Context, root *safepath.Root, lowers []*safepath.Root, pending Pending, options Options) error {
	c := completer{root: root, lowers: lowers, opaque: options.Form.opaque(), copied: map[string]string{}}
	for _, name := range pending.Dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.describe(name); err != nil {
			return fmt.Errorf("complete layer %s: directory %s: %w", options.Name, quote(name), err)
		}
	}
	for _, l := range pending.Links {
		if err := c.link(ctx, l); err != nil {
			return fmt.Errorf("complete layer %s: hard link %s to %s: %w", options.Name, quote(l.Name), quote(l.Target), err)
		}
	}
	return nil
}

func sortLinks(links []HardLink) {
	slices.SortFunc(links, func(a, b HardLink) int { return strings.Compare(a.Name, b.Name) })
}

type completer struct {
	root   *safepath.Root
	lowers []*safepath.Root
	opaque string
	copied map[string]string // the name in this layer of each link target that has been copied
}

// describe copies a directory's attributes from the topmost layer that shows through.
func (c *completer) describe(name string) error {
	to, err := c.root.OpenBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	hides, err := c.hides(c.root, name)
	for _, lower := range c.lowers {
		if hides || err != nil {
			return err
		}
		from, oerr := lower.OpenBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if oerr == nil {
			defer from.Close()
			return copyAttributes(int(to.Fd()), int(from.Fd()))
		}
		if !isMissing(oerr) && !errors.Is(oerr, unix.ELOOP) {
			return oerr
		}
		hides, err = c.hides(lower, name)
	}
	return err
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
	dir, base, err := c.root.OpenParent(l.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	var before unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &before); err != nil {
		return err
	}
	if first, ok := c.copied[l.Target]; ok {
		err = c.linkAgain(dir, base, first)
	} else {
		err = c.copyUp(ctx, dir, base, l.Target)
		c.copied[l.Target] = l.Name
	}
	if err != nil {
		return err
	}
	return setTimes(int(dir.Fd()), [2]unix.Timespec{before.Atim, before.Mtim})
}

func (c *completer) linkAgain(dir *os.File, base, first string) error {
	firstDir, firstBase, err := c.root.OpenParent(first)
	if err != nil {
		return err
	}
	defer firstDir.Close()
	return unix.Linkat(int(firstDir.Fd()), firstBase, int(dir.Fd()), base, 0)
}

// copyUp copies a file from the topmost layer that has it, as overlayfs would before a change.
func (c *completer) copyUp(ctx context.Context, dir *os.File, base, target string) error {
	for _, lower := range c.lowers {
		from, err := lower.OpenRegular(target)
		if err == nil {
			defer from.Close()
			return copyFile(ctx, dir, base, from)
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

// copyFile copies a file with its attributes to the new name base.
func copyFile(ctx context.Context, dir *os.File, base string, from *os.File) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), base, flags, 0o600)
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
