package plan

import (
	"fmt"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// pivotRoot makes a mount the process's root and lets go of the old one, with
// nothing in between: both lie on "/" for a moment, the old one on top.
type pivotRoot struct {
	Root FD
	// Shared says that the old root's mounts are peers of the host's, which
	// must not be unmounted with them.
	Shared bool
}

func (o pivotRoot) String() string { return fmt.Sprintf("pivot_root %v", o.Root) }

func (o pivotRoot) lower(l *lowering) {
	l.b.Call("fchdir", l.fd(o.Root))
	l.b.Call("pivot_root", l.str("."), l.str("."))
	if o.Shared {
		// The way to what is mounted on the root itself (fs/namei.c, follow_dotdot).
		mountSetattr{Path: "/..", Recursive: true, Propagation: linux.MS_SLAVE}.lower(l)
	}
	l.b.Call("umount2", l.str("."), program.Const(linux.MNT_DETACH))
	l.b.Call("chdir", l.str("/"))
}

// changeRoot makes a mount the process's root and leaves the old one beneath
// it: in the host's mount namespace, and with --no-pivot, for hosts whose root
// is the initial ramdisk, which cannot be pivoted.
type changeRoot struct{ Root FD }

func (o changeRoot) String() string { return fmt.Sprintf("chroot %v", o.Root) }

func (o changeRoot) lower(l *lowering) {
	l.b.Call("fchdir", l.fd(o.Root))
	l.b.Call("chroot", l.str("."))
	l.b.Call("chdir", l.str("/"))
}

// hideMount takes a mount of the host away, or covers it where that is
// forbidden: under a root that is not pivoted, a proc or sysfs of the host
// entitles the container to mount others (fs/namespace.c, mount_too_revealing).
type hideMount struct{ Path string }

func (o hideMount) String() string { return fmt.Sprintf("hide %q", o.Path) }

func (o hideMount) lower(l *lowering) {
	cover, done := l.b.NewLabel(), l.b.NewLabel()
	l.b.Call("umount2", l.str(o.Path), program.Const(linux.MNT_DETACH|linux.UMOUNT_NOFOLLOW)).
		OnErrno(cover, linux.EINVAL, linux.EPERM, linux.ENOENT)
	l.b.Bind(done)
	l.later(func() {
		l.b.Bind(cover)
		// It may have gone with the one that it lay on.
		l.b.Call("faccessat2", l.fd(cwd), l.str(o.Path), program.Const(0), program.Const(0)).OnErrno(done, linux.ENOENT)
		empty := mountFS{Type: "tmpfs", Source: "tmpfs", Data: []string{"nr_inodes=1"}, Attr: linux.MOUNT_ATTR_RDONLY,
			Out: l.temporary("cover")}
		empty.lower(l)
		l.b.Call("move_mount", l.fd(empty.Out), l.str(""), l.fd(cwd), l.str(o.Path), program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH))
		l.b.Call("close", l.fd(empty.Out)).OnZero(done)
	})
}
