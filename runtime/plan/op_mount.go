package plan

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// openTree takes a detached copy of the mount at a path.
type openTree struct {
	Path      string
	Recursive bool
	Out       FD
}

func (o openTree) String() string {
	return fmt.Sprintf("open_tree %q%s = %v", o.Path, flag(o.Recursive, " recursive"), o.Out)
}

func (o openTree) lower(l *lowering) {
	flags := uint64(linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
	if o.Recursive {
		flags |= linux.AT_RECURSIVE
	}
	l.b.Call("open_tree", l.fd(cwd), l.str(o.Path), program.Const(flags)).Into(l.fd(o.Out))
}

// mountSetattr changes a mount's attributes or propagation.
type mountSetattr struct {
	Mount       FD
	Path        string // of the mount, where there is no descriptor of it
	Recursive   bool
	Set, Clear  uint64
	Propagation uint64
}

func (o mountSetattr) String() string {
	target := o.Mount.String()
	if o.Path != "" {
		target = fmt.Sprintf("%q", o.Path)
	}
	var what []string
	if o.Set != 0 {
		what = append(what, "+"+attrNames(o.Set))
	}
	if o.Clear&linux.MOUNT_ATTR__ATIME != 0 && o.Set&linux.MOUNT_ATTR__ATIME == 0 {
		what = append(what, "+relatime")
	}
	if c := o.Clear &^ o.Set &^ linux.MOUNT_ATTR__ATIME; c != 0 {
		what = append(what, "-"+attrNames(c))
	}
	if o.Propagation != 0 {
		what = append(what, propagationName(o.Propagation))
	}
	return fmt.Sprintf("mount_setattr %s%s %s", target, flag(o.Recursive, " recursive"), strings.Join(what, " "))
}

func (o mountSetattr) lower(l *lowering) {
	flags, dir, path := uint64(linux.AT_EMPTY_PATH), l.fd(o.Mount), ""
	if o.Path != "" {
		flags, dir, path = 0, l.fd(cwd), o.Path
	}
	if o.Recursive {
		flags |= linux.AT_RECURSIVE
	}
	attr := l.b.Words(program.Const(o.Set), program.Const(o.Clear), program.Const(o.Propagation), program.Const(0))
	l.b.Call("mount_setattr", dir, l.str(path), program.Const(flags), attr, program.Const(linux.MountAttrSizeBytes))
}

// moveMount attaches a detached mount to where another descriptor points.
type moveMount struct {
	Mount FD
	To    FD
	Path  string // the target where there is no descriptor of it
	Keep  bool   // the mount's descriptor stays open
}

func (o moveMount) String() string {
	if o.Path != "" {
		return fmt.Sprintf("move_mount %v to %q", o.Mount, o.Path)
	}
	return fmt.Sprintf("move_mount %v to %v", o.Mount, o.To)
}

func (o moveMount) lower(l *lowering) {
	flags, to, path := uint64(linux.MOVE_MOUNT_F_EMPTY_PATH|linux.MOVE_MOUNT_T_EMPTY_PATH), l.fd(o.To), ""
	if o.Path != "" {
		flags, to, path = linux.MOVE_MOUNT_F_EMPTY_PATH|linux.MOVE_MOUNT_T_SYMLINKS, l.fd(cwd), o.Path
	}
	l.b.Call("move_mount", l.fd(o.Mount), l.str(""), to, l.str(path), program.Const(flags))
	if !o.Keep {
		l.close(l.fd(o.Mount))
	}
	if o.Path == "" {
		l.close(l.fd(o.To))
	}
}

// A maskPath hides a path of the container: a file behind the null device, a
// directory behind an empty read-only file system. The null device is the
// host's, opened before the container's files are reachable (CVE-2025-31133).
type maskPath struct {
	location
	Null  FD   // the host's /dev/null
	Own   bool // Null is a mount for this path alone
	Label string
}

// A location is a path of the container, and where to find it: below an open
// directory.
type location struct {
	Root FD
	Path string // below Root
	Name string // in the container
}

func (o maskPath) String() string { return fmt.Sprintf("mask %q", o.Name) }

func (o maskPath) lower(l *lowering) {
	done, directory := l.b.NewLabel(), l.b.NewLabel()
	target, null := l.b.Var(), l.fd(o.Null)
	l.openIn(l.fd(o.Root), o.Path, linux.O_PATH, 0).OnErrno(done, linux.ENOENT, linux.ENOTDIR).Into(target)
	if !o.Own {
		null = l.b.Var()
		l.b.Call("open_tree", l.fd(o.Null), l.str(""),
			program.Const(linux.OPEN_TREE_CLONE|linux.OPEN_TREE_CLOEXEC|linux.AT_EMPTY_PATH)).Into(null)
	}
	move := program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH)
	l.b.Call("move_mount", null, l.str(""), target, l.str(""), move).OnErrno(directory, linux.EINVAL, linux.ENOTDIR)
	l.close(null)
	l.close(target)
	l.b.Bind(done)
	l.later(func() {
		l.b.Bind(directory)
		empty := mountFS{Type: "tmpfs", Source: "tmpfs", Data: []string{"nr_inodes=1"}, Label: o.Label,
			Attr: linux.MOUNT_ATTR_RDONLY, Out: l.temporary("mask")}
		empty.lower(l)
		l.b.Call("move_mount", l.fd(empty.Out), l.str(""), target, l.str(""), move)
		l.close(l.fd(empty.Out))
		l.close(null)
		l.b.Call("close", target).OnZero(done)
	})
}

// A readonlyPath makes what lies at a path of the container read-only, by a
// read-only copy of its mounts on top of it.
type readonlyPath struct{ location }

func (o readonlyPath) String() string { return fmt.Sprintf("read_only %q", o.Name) }

func (o readonlyPath) lower(l *lowering) {
	done := l.b.NewLabel()
	target := l.b.Var()
	l.openIn(l.fd(o.Root), o.Path, linux.O_PATH, 0).OnErrno(done, linux.ENOENT, linux.ENOTDIR).Into(target)
	tree := l.b.Call("open_tree", target, l.str(""),
		program.Const(linux.OPEN_TREE_CLONE|linux.OPEN_TREE_CLOEXEC|linux.AT_EMPTY_PATH|linux.AT_RECURSIVE)).Result()
	attr := l.b.Words(program.Const(linux.MOUNT_ATTR_RDONLY), program.Const(0), program.Const(0), program.Const(0))
	l.b.Call("mount_setattr", tree, l.str(""), program.Const(linux.AT_EMPTY_PATH|linux.AT_RECURSIVE), attr,
		program.Const(linux.MountAttrSizeBytes))
	l.b.Call("move_mount", tree, l.str(""), target, l.str(""),
		program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH|linux.MOVE_MOUNT_T_EMPTY_PATH))
	l.close(tree)
	l.close(target)
	l.b.Bind(done)
}

func flag(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func attrNames(attr uint64) string {
	var names []string
	for _, a := range []struct {
		bit  uint64
		name string
	}{
		{linux.MOUNT_ATTR_RDONLY, "ro"}, {linux.MOUNT_ATTR_NOSUID, "nosuid"}, {linux.MOUNT_ATTR_NODEV, "nodev"},
		{linux.MOUNT_ATTR_NOEXEC, "noexec"}, {linux.MOUNT_ATTR_NOATIME, "noatime"},
		{linux.MOUNT_ATTR_STRICTATIME, "strictatime"}, {linux.MOUNT_ATTR_NODIRATIME, "nodiratime"},
		{linux.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
	} {
		if attr&a.bit != 0 {
			names = append(names, a.name)
		}
	}
	return strings.Join(names, ",")
}

func propagationName(p uint64) string {
	switch p &^ linux.MS_REC {
	case linux.MS_SHARED:
		return "shared"
	case linux.MS_SLAVE:
		return "slave"
	case linux.MS_PRIVATE:
		return "private"
	case linux.MS_UNBINDABLE:
		return "unbindable"
	}
	return fmt.Sprintf("propagation %#x", p)
}
