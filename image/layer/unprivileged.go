package layer

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// Who is not root may not enter, list or change a directory whose mode does not allow it to its owner. Lower layers have
// such directories, and upper ones something to put in them; so their modes are opened while a layer is applied, and set
// again at the end like those that a layer itself describes (record.lateMode).

// ownerAll are the permissions that it takes to work in a directory.
const ownerAll = 0o700

// isClosed says whether a directory of ours has to be opened. What is not ours fails where it is used, and says why.
func isClosed(st *unix.Stat_t) bool {
	uid := unix.Geteuid()
	return uid != 0 && int(st.Uid) == uid && st.Mode&ownerAll != ownerAll
}

// unlock opens the modes of the directories on the way to name, and its own. It says whether there were any to open.
func (t *tree) unlock(name string) (unlocked bool, err error) {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		one, err := t.unlockOne(name[:i])
		if err != nil {
			return false, err
		}
		unlocked = unlocked || one
	}
	return unlocked, nil
}

func (t *tree) unlockOne(name string) (bool, error) {
	resolved, err := t.root.Resolve(name)
	if err != nil {
		return false, err
	}
	pathFD := t.root.FD() // for ".", which cannot be looked up in a directory that is closed
	if resolved != "." {
		pathFD, err = safepath.OpenAt(t.root.FD(), resolved, unix.O_PATH|unix.O_DIRECTORY, 0, safepath.Beneath)
		if isMissing(err) || errors.Is(err, unix.ELOOP) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer unix.Close(pathFD)
	}
	var st unix.Stat_t
	if err := unix.Fstat(pathFD, &st); err != nil || !isClosed(&st) {
		return false, err
	}
	if err := chmodPath(pathFD, st.Mode&0o7777|ownerAll); err != nil {
		return false, err
	}
	fd, err := safepath.OpenAt(pathFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	rec, err := recordOf(fd, resolved)
	if err != nil {
		return false, err
	}
	rec.mode, rec.lateMode = st.Mode&0o7777, true
	return true, t.remember(rec)
}
