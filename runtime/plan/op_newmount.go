package plan

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// mountFS makes a new file system and a detached mount of it.
type mountFS struct {
	Type   string
	Source string
	Flags  []string // superblock flags
	Data   []string // "key=value" or "key"
	Label  string   // SELinux label of its files, or none
	Attr   uint64   // MOUNT_ATTR_*
	Out    FD
}

func (o mountFS) String() string {
	options := append(o.Flags[:len(o.Flags):len(o.Flags)], o.Data...)
	if o.Label != "" {
		options = append(options, "context="+o.Label)
	}
	return fmt.Sprintf("fsmount %s %q [%s] %s = %v", o.Type, o.Source, strings.Join(options, " "), attrNames(o.Attr), o.Out)
}

func (o mountFS) lower(l *lowering) {
	fs := l.b.Call("fsopen", l.str(o.Type), program.Const(linux.FSOPEN_CLOEXEC)).Result()
	if o.Source != "" {
		l.fsconfig(fs, linux.FSCONFIG_SET_STRING, l.str("source"), l.str(o.Source))
	}
	l.fsOptions(fs, o.Flags, o.Data)
	if o.Label != "" {
		l.fsconfig(fs, linux.FSCONFIG_SET_STRING, l.str("context"), l.str(o.Label))
	}
	l.fsconfig(fs, linux.FSCONFIG_CMD_CREATE, program.Const(0), program.Const(0))
	l.b.Call("fsmount", fs, program.Const(linux.FSMOUNT_CLOEXEC), program.Const(o.Attr)).Into(l.fd(o.Out))
	l.close(fs)
}

func (l *lowering) fsconfig(fs program.Arg, command int, key, value program.Arg) {
	l.b.Call("fsconfig", fs, program.Const(command), key, value, program.Const(0))
}

func (l *lowering) fsOptions(fs program.Arg, flags, data []string) {
	for _, f := range flags {
		l.fsconfig(fs, linux.FSCONFIG_SET_FLAG, l.str(f), program.Const(0))
	}
	for _, d := range data {
		if key, value, ok := strings.Cut(d, "="); ok {
			l.fsconfig(fs, linux.FSCONFIG_SET_STRING, l.str(key), l.str(value))
		} else {
			l.fsconfig(fs, linux.FSCONFIG_SET_FLAG, l.str(d), program.Const(0))
		}
	}
}

// maxStringBytes bounds the strings that fsconfig(2) takes (fs/fsopen.c): a
// list of an overlay's layers may be longer.
const maxStringBytes = 255

// classic says that only mount(2) can make the file system: for a string that
// is too long, or one with quotes or escapes, which mount(2) alone reads.
func (o mountFS) classic() bool {
	if len(o.Source) > maxStringBytes {
		return true
	}
	for _, d := range o.Data {
		key, value, _ := strings.Cut(d, "=")
		if len(key) > maxStringBytes || len(value) > maxStringBytes || strings.ContainsAny(d, `"\\`) {
			return true
		}
	}
	return false
}

// mountClassic makes a file system with mount(2) and moves its mount to where
// To points. mount(2) has to be given a place: it is a tmpfs on top of "/", which
// no path leads to but "/..", and which goes with the step.
type mountClassic struct {
	FS mountFS
	To FD
}

func (o mountClassic) String() string {
	return "mount(2) " + strings.TrimPrefix(o.FS.String(), "fsmount ") + fmt.Sprintf(" to %v", o.To)
}

func (o mountClassic) lower(l *lowering) {
	scratch, out := l.temporary("scratch"), l.fd(o.FS.Out)
	mountFS{Type: "tmpfs", Source: "tmpfs", Data: []string{"nr_inodes=1"}, Out: scratch}.lower(l)
	l.b.Call("move_mount", l.fd(scratch), l.str(""), l.fd(cwd), l.str("/"), program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH))
	l.b.Call("fchdir", l.fd(scratch))
	data := o.FS.Data
	if o.FS.Label != "" {
		data = append(data[:len(data):len(data)], fmt.Sprintf("context=%q", o.FS.Label))
	}
	l.b.Call("mount", l.str(o.FS.Source), l.str("."), l.str(o.FS.Type), program.Const(linux.SuperFlags(o.FS.Flags)),
		l.str(strings.Join(data, ",")))
	l.b.Call("open_tree", l.fd(cwd), l.str("/.."), program.Const(linux.OPEN_TREE_CLOEXEC)).Into(out)
	if o.FS.Attr != 0 {
		attr := l.b.Words(program.Const(o.FS.Attr), program.Const(uint64(linux.MOUNT_ATTR__ATIME)), program.Const(0), program.Const(0))
		l.b.Call("mount_setattr", out, l.str(""), program.Const(linux.AT_EMPTY_PATH), attr, program.Const(linux.MountAttrSizeBytes))
	}
	l.b.Call("move_mount", out, l.str(""), l.fd(o.To), l.str(""),
		program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH|linux.MOVE_MOUNT_T_EMPTY_PATH))
	l.b.Call("umount2", l.str("."), program.Const(linux.MNT_DETACH))
	l.b.Call("chdir", l.str("/"))
	l.close(l.fd(scratch))
	l.close(l.fd(o.To))
}

// reconfigure changes the superblock behind a mount.
type reconfigure struct {
	Mount FD
	Flags []string
	Data  []string
}

func (o reconfigure) String() string {
	return fmt.Sprintf("reconfigure %v [%s]", o.Mount, strings.Join(append(o.Flags[:len(o.Flags):len(o.Flags)], o.Data...), " "))
}

func (o reconfigure) lower(l *lowering) {
	fs := l.b.Call("fspick", l.fd(o.Mount), l.str(""), program.Const(linux.FSPICK_CLOEXEC|linux.FSPICK_EMPTY_PATH)).Result()
	l.fsOptions(fs, o.Flags, o.Data)
	l.fsconfig(fs, linux.FSCONFIG_CMD_RECONFIGURE, program.Const(0), program.Const(0))
	l.close(fs)
}

// labelRoot gives the root directory of a mount an SELinux label, where the file
// system takes none for all its files.
type labelRoot struct {
	Mount FD
	Label string
}

func (o labelRoot) String() string { return fmt.Sprintf("label %v %q", o.Mount, o.Label) }

func (o labelRoot) lower(l *lowering) {
	dir := l.openIn(l.fd(o.Mount), ".", l.open.Directory, 0).Result()
	l.b.Call("fsetxattr", dir, l.str("security.selinux"), l.str(o.Label), program.Const(len(o.Label)), program.Const(0))
	l.close(dir)
}
