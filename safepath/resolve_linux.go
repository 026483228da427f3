package safepath

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	// maxLinks is how many symbolic links one resolution follows, as many as the kernel (MAXSYMLINKS).
	maxLinks = 40
	// maxParts bounds what long link targets can pile up in front of each other.
	maxParts = maxLinks * maxNameBytes
)

// Resolve finds the name inside the root that name stands for once all symbolic links are followed, also where they lead to
// something that does not exist (yet): with /etc/resolv.conf a link to ../run/systemd/resolve/stub-resolv.conf and nothing
// in /run, "/etc/resolv.conf" gives "run/systemd/resolve/stub-resolv.conf". The result has no symbolic link in it, no ".."
// and no leading slash, so that it fits MkdirAll, OpenParent and OpenBeneath; they refuse it if somebody has put a link in
// the way since.
func (r *Root) Resolve(name string) (string, error) {
	rest, err := split(name)
	if err != nil {
		return "", r.fail("resolve", name, err)
	}
	if clean := join(rest); clean == "." || r.isPlain(clean) {
		return clean, nil
	}
	var done []string
	missing := -1 // from this many components on, nothing exists
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			done = done[:max(0, len(done)-1)]
			if len(done) <= missing {
				missing = -1
			}
			continue
		}
		done = append(done, part)
		if missing >= 0 {
			continue
		}
		target, err := r.readlink(join(done))
		switch {
		case err == unix.ENOENT:
			missing = len(done) - 1
		case err == errNotLink:
		case err != nil:
			return "", r.fail("resolve", name, err)
		default:
			if links++; links > maxLinks {
				return "", r.fail("resolve", name, unix.ELOOP)
			}
			parts, err := split(target)
			if err != nil || len(parts)+len(rest) > maxParts {
				return "", r.fail("resolve", name, unix.ENAMETOOLONG)
			}
			done = done[:len(done)-1]
			if target[0] == '/' {
				done = nil
			}
			rest = append(parts, rest...)
		}
	}
	if clean := join(done); len(clean) <= maxNameBytes {
		return clean, nil
	}
	return "", r.fail("resolve", name, unix.ENAMETOOLONG)
}

// isPlain says whether name exists and no part of it is a symbolic link: then it is its own resolution, and two system
// calls have shown it.
func (r *Root) isPlain(name string) bool {
	_, err := r.readlink(name)
	return err == errNotLink
}

// errNotLink is readlink's EINVAL, "not a symbolic link". Its one other meaning, a bad buffer size, cannot happen here.
const errNotLink = unix.EINVAL

// readlink reads the symbolic link at name, with no other link allowed on the way.
func (r *Root) readlink(name string) (string, error) {
	fd, err := OpenAt(r.FD(), name, unix.O_PATH|unix.O_NOFOLLOW, 0, Beneath)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", errNotLink
	}
	buf := make([]byte, maxNameBytes+1)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	if n == 0 || n == len(buf) {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// MkdirAll makes the directory name and those above it that are missing, and returns it opened with O_PATH. Symbolic links
// that are there are followed inside the root, dangling ones too. perm is that of mkdir(2), less the umask.
func (r *Root) MkdirAll(name string, perm uint32) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	if f, err := r.Open(name, flags, 0); err == nil {
		return f, nil
	}
	clean, err := r.Resolve(name)
	if err != nil {
		return nil, err
	}
	parts, err := split(clean)
	if err != nil {
		return nil, r.fail("make directory", name, err)
	}
	dirfd, err := OpenAt(r.FD(), ".", flags, 0, Beneath)
	if err != nil {
		return nil, r.fail("make directory", name, err)
	}
	for _, part := range parts {
		next, err := mkdirAt(dirfd, part, perm)
		unix.Close(dirfd)
		if err != nil {
			return nil, r.fail("make directory", name, err)
		}
		dirfd = next
	}
	return os.NewFile(uintptr(dirfd), r.Name()+"/"+clean), nil
}

// mkdirAt opens the directory base in dirfd, making it if it is not there.
func mkdirAt(dirfd int, base string, perm uint32) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	fd, err := OpenAt(dirfd, base, flags, 0, Beneath)
	if err != unix.ENOENT {
		return fd, err
	}
	if err := unix.Mkdirat(dirfd, base, perm); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return OpenAt(dirfd, base, flags, 0, Beneath)
}
