package fs

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution/server/storage/recent"
)

// small remembers small objects that are read again and again: tags and
// manifests. Nobody tells it what changes, as others may serve the same
// directory; each look-up asks the file system whether the file is still the one
// that was read, which is one call where to read it are four. Objects are
// replaced by files of their own, never written in place, so that a file with
// another content is another inode or an inode that changed later.
type small struct{ recent.Cache[remembered] }

type remembered struct {
	file identity
	data []byte
}

// identity is what is equal only if the file is the same and as it was.
type identity struct {
	inode, sizeBytes  uint64
	changed, modified unix.StatxTimestamp // to the nanosecond
}

const (
	maxSmallBytes      = 256 << 10 // of one object
	maxGenerationBytes = 4 << 20

	// settled is how old a file's last change has to be for its identity to
	// stand for its content: a change within the same tick of the clock cannot be
	// seen. File systems count in up to two seconds.
	settled = 3 * time.Second
)

// identify asks for a file's identity. A network file system has to ask its server:
// what another machine has changed is to be seen at once.
func identify(path string) (identity, error) {
	const want = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME | unix.STATX_MTIME
	var st unix.Statx_t
	_, err := retryInterrupted(func() (int, error) {
		return 0, unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, want, &st)
	})
	if err == nil && st.Mask&want != want {
		err = syscall.ENOTSUP
	}
	return identity{st.Ino, st.Size, st.Ctime, st.Mtime}, err
}

// identityOf is the same of a file that is open.
func identityOf(st *syscall.Stat_t) identity {
	stamp := func(t syscall.Timespec) unix.StatxTimestamp {
		sec, nsec := t.Unix()
		return unix.StatxTimestamp{Sec: sec, Nsec: uint32(nsec)}
	}
	return identity{st.Ino, uint64(st.Size), stamp(st.Ctim), stamp(st.Mtim)}
}

// get returns the content of the file, which the caller must not change.
func (s *small) get(path string, file identity) ([]byte, bool) {
	r, ok := s.Get(path)
	return r.data, ok && r.file == file
}

// put remembers what was read from the file at the time now, if that can be known again.
func (s *small) put(path string, file identity, data []byte, now time.Time) {
	if len(data) > maxSmallBytes || now.Sub(time.Unix(file.changed.Sec, int64(file.changed.Nsec))) < settled {
		return
	}
	s.Put(path, remembered{file, data}, len(data))
}
