package plan

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// copyFiles copies what was found in one directory into another, which nobody
// else can reach yet: what tmpcopyup needs where the parent may not mount. What
// has been put in the place of a file since is not followed.
type copyFiles struct {
	From, To FD
	Files    []CopyFile
}

func (o copyFiles) String() string {
	return fmt.Sprintf("copy %d files from %v to %v", len(o.Files), o.From, o.To)
}

func (o copyFiles) lower(l *lowering) {
	to := l.fd(o.To)
	in, out := l.b.Var(), l.b.Var()
	for _, f := range o.Files {
		switch f.Mode & linux.S_IFMT {
		case linux.S_IFDIR:
			l.b.Call("mkdirat", to, l.str(f.Name), program.Const(0o700))
		case linux.S_IFLNK:
			l.b.Call("symlinkat", l.str(f.Target), to, l.str(f.Name))
			l.ownCopy(to, f)
		case linux.S_IFIFO:
			l.b.Call("mknodat", to, l.str(f.Name), program.Const(linux.S_IFIFO|0o600), program.Const(0))
			l.ownCopy(to, f)
		default:
			flags := linux.O_RDONLY | linux.O_NONBLOCK | linux.O_NOCTTY | l.open.NoFollow
			l.openBeneath(l.fd(o.From), f.Name, flags, 0).Into(in)
			l.openBeneath(to, f.Name, linux.O_WRONLY|linux.O_CREAT|linux.O_EXCL, 0o600).Into(out)
			if f.SizeBytes > 0 {
				// A full file system cuts the first short, without an error, which is the second's.
				for range 2 {
					l.b.Call("sendfile", out, in, program.Const(0), program.Const(f.SizeBytes))
				}
			}
			l.close(out)
			l.close(in)
			l.ownCopy(to, f)
		}
	}
	// Last, as they may forbid what has been done in them.
	for i := len(o.Files) - 1; i >= 0; i-- {
		if o.Files[i].Mode&linux.S_IFMT == linux.S_IFDIR {
			l.ownCopy(to, o.Files[i])
		}
	}
}

func (l *lowering) openBeneath(dir program.Arg, name string, flags, mode uint64) program.Call {
	h := openHow{flags | linux.O_CLOEXEC, mode, linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS}
	return l.b.Call("openat2", dir, l.str(name), l.how(h), program.Const(linux.OpenHowSizeBytes))
}

// ownCopy gives a copy its owner and its permissions. The owner comes first: a
// change of it takes set-user-ID bits away.
func (l *lowering) ownCopy(dir program.Arg, f CopyFile) {
	l.b.Call("fchownat", dir, l.str(f.Name), program.Const(f.UID), program.Const(f.GID), program.Const(linux.AT_SYMLINK_NOFOLLOW))
	if f.Mode&linux.S_IFMT != linux.S_IFLNK {
		l.b.Call("fchmodat", dir, l.str(f.Name), program.Const(f.Mode&0o7777))
	}
}

// explainFailure names the file, unless the call that failed knew it by its
// descriptor.
func (o copyFiles) explainFailure(f program.Failure) string {
	text := strings.TrimSuffix(o.String(), " to "+o.To.String())
	if len(f.Strings) > 0 {
		text += fmt.Sprintf(": %q", f.Strings[len(f.Strings)-1])
	}
	return fmt.Sprintf("%s: %s: %s", text, f.Call, linux.ErrnoText(f.Errno))
}
