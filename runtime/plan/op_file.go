package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// openTarget opens the place in the container's root that something will be
// mounted on, and makes it first where it is missing: directories component by
// component, each relative to the descriptor of the one above.
type openTarget struct {
	Root FD
	Path string // clean, absolute in the container
	Dir  bool   // a directory is wanted; else a file
	Out  FD
	// NoLinks refuses a symbolic link anywhere on the way.
	NoLinks bool
}

func (o openTarget) String() string {
	return fmt.Sprintf("open %q %s%s = %v", o.Path, map[bool]string{true: "directory", false: "file"}[o.Dir],
		flag(o.NoLinks, ", no link"), o.Out)
}

func (o openTarget) lower(l *lowering) {
	missing, done := l.b.NewLabel(), l.b.NewLabel()
	root, out := l.fd(o.Root), l.fd(o.Out)
	flags := uint64(linux.O_PATH)
	if o.Dir {
		flags |= l.open.Directory
	}
	var resolve uint64
	if o.NoLinks {
		resolve = linux.RESOLVE_NO_SYMLINKS
	}
	open := func(path string, flags uint64) program.Call {
		h := openHow{flags | linux.O_CLOEXEC, 0, linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS | resolve}
		return l.b.Call("openat2", root, l.str(path), l.how(h), program.Const(linux.OpenHowSizeBytes))
	}
	open(rel(o.Path), flags).OnErrno(missing, linux.ENOENT).Into(out)
	l.b.Bind(done)
	l.later(func() {
		l.b.Bind(missing)
		dir, components := root, strings.Split(strings.Trim(o.Path, "/"), "/")
		for i, name := range components {
			prefix := path.Join(components[:i+1]...)
			if i == len(components)-1 && !o.Dir {
				// Unlike open(2), this follows no link that somebody else has put there.
				l.b.Call("mknodat", dir, l.str(name), program.Const(linux.S_IFREG|0o644), program.Const(0)).Tolerate(linux.EEXIST)
			} else {
				l.b.Call("mkdirat", dir, l.str(name), program.Const(0o755)).Tolerate(linux.EEXIST)
			}
			above := dir
			dir = out
			if i < len(components)-1 {
				dir = l.b.Var()
				open(prefix, linux.O_PATH|l.open.Directory).Into(dir)
			} else {
				open(prefix, flags).Into(out)
			}
			if i > 0 {
				l.close(above)
			}
		}
		l.jump(done)
	})
}

// openIn opens the mount that lies at a path of the container.
type openIn struct {
	Root FD
	Path string
	Out  FD
}

func (o openIn) String() string { return fmt.Sprintf("open %q = %v", o.Path, o.Out) }

func (o openIn) lower(l *lowering) {
	l.openIn(l.fd(o.Root), rel(o.Path), linux.O_PATH, 0).Into(l.fd(o.Out))
}

// openPath opens what lies at a path of the process's own root, only as a
// place: nothing is read from it.
type openPath struct {
	Path string
	Out  FD
}

func (o openPath) String() string { return fmt.Sprintf("open %q = %v", o.Path, o.Out) }

func (o openPath) lower(l *lowering) {
	h := openHow{linux.O_PATH | linux.O_CLOEXEC, 0, linux.RESOLVE_NO_MAGICLINKS}
	l.b.Call("openat2", l.fd(cwd), l.str(o.Path), l.how(h), program.Const(linux.OpenHowSizeBytes)).Into(l.fd(o.Out))
}

// closeFD closes a descriptor that no later step uses.
type closeFD struct{ FD FD }

func (o closeFD) String() string    { return fmt.Sprintf("close %v", o.FD) }
func (o closeFD) lower(l *lowering) { l.close(l.fd(o.FD)) }

// mknod makes a device node, or leaves what is there. Modes are exact: the
// process's umask is 0 while the root is made.
type mknod struct {
	Root         FD
	Path         string // below Root
	Type         byte   // c, b or p
	Mode         uint32
	Major, Minor int64
	UID, GID     uint32
}

func (o mknod) String() string {
	return fmt.Sprintf("mknod %v %q %c %#o %d:%d owner %d:%d", o.Root, o.Path, o.Type, o.Mode, o.Major, o.Minor, o.UID, o.GID)
}

func (o mknod) lower(l *lowering) {
	exists := l.b.NewLabel()
	dir, base := l.parent(o.Root, o.Path)
	kind := map[byte]uint32{'c': linux.S_IFCHR, 'b': linux.S_IFBLK, 'p': linux.S_IFIFO}[o.Type]
	l.b.Call("mknodat", dir, l.str(base), program.Const(kind|o.Mode), program.Const(deviceNumber(o.Major, o.Minor))).
		OnErrno(exists, linux.EEXIST)
	if o.UID != 0 || o.GID != 0 {
		l.b.Call("fchownat", dir, l.str(base), program.Const(o.UID), program.Const(o.GID), program.Const(linux.AT_SYMLINK_NOFOLLOW))
	}
	l.b.Bind(exists)
	l.closeParent(dir, o.Path)
}

// deviceNumber is the kernel's encoding of a device number in system calls:
// new_encode_dev in include/linux/kdev_t.h.
func deviceNumber(major, minor int64) uint64 {
	return uint64(minor&0xff | major<<8 | (minor&^0xff)<<12)
}

// symlink makes a symbolic link, or leaves what is there.
type symlink struct {
	Root   FD
	Path   string
	Target string
	// Replace removes a file that is there.
	Replace bool
}

func (o symlink) String() string {
	return fmt.Sprintf("symlink %v %q -> %q%s", o.Root, o.Path, o.Target, flag(o.Replace, ", replace"))
}

func (o symlink) lower(l *lowering) {
	dir, base := l.parent(o.Root, o.Path)
	link := func() program.Call { return l.b.Call("symlinkat", l.str(o.Target), dir, l.str(base)) }
	if !o.Replace {
		link().Tolerate(linux.EEXIST)
		l.closeParent(dir, o.Path)
		return
	}
	exists, done := l.b.NewLabel(), l.b.NewLabel()
	link().OnErrno(exists, linux.EEXIST)
	l.b.Bind(done)
	l.closeParent(dir, o.Path)
	l.later(func() {
		l.b.Bind(exists)
		l.b.Call("unlinkat", dir, l.str(base), program.Const(0))
		link().OnZero(done)
	})
}

// parent opens the directory that path lies in and makes what is missing of
// it. Paths in the root itself need no other descriptor.
func (l *lowering) parent(root FD, p string) (dir program.Arg, base string) {
	up, base := path.Split(path.Clean("/" + p))
	if up == "/" {
		return l.fd(root), base
	}
	out := l.temporary("parent")
	openTarget{Root: root, Path: path.Clean(up), Dir: true, Out: out}.lower(l)
	return l.fd(out), base
}

func (l *lowering) closeParent(dir program.Arg, p string) {
	if strings.Count(path.Clean("/"+p), "/") > 1 {
		l.close(dir)
	}
}

// changeDir makes an open directory of the container the working directory. It
// was opened like the target of a mount, which passes no magic link: through
// /proc/self/fd a path could lead out (CVE-2024-21626).
type changeDir struct{ Dir FD }

func (o changeDir) String() string { return fmt.Sprintf("chdir %v", o.Dir) }

func (o changeDir) lower(l *lowering) {
	l.b.Call("fchdir", l.fd(o.Dir))
	l.close(l.fd(o.Dir))
}
