package lifecycle

import (
	"errors"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/quickjson"
)

// A lock is one container's directory, open and locked against all other
// operations that change the container. It lasts until it is released, or the
// process ends.
type lock struct{ dir int }

// openState opens the directory of a container.
func openState(dir, id string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("container %q: %w", id, ErrNotExist)
	}
	if err != nil {
		return -1, fmt.Errorf("container %q: lock: %w", id, err)
	}
	return fd, nil
}

func (l *lock) release() {
	if l != nil && l.dir >= 0 {
		unix.Close(l.dir)
		l.dir = -1
	}
}

// unlock lets others change the container, and relock ends that; it reports
// whether the container is still there.
func (l *lock) unlock() error { return flock(l.dir, unix.LOCK_UN) }

func (l *lock) relock() (there bool, err error) {
	if err := flock(l.dir, unix.LOCK_EX); err != nil {
		return false, err
	}
	return l.there()
}

// there says whether the directory still has its name.
func (l *lock) there() (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(l.dir, &st)
	return st.Nlink > 0, err
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lockNew locks a container's directory that has just been made.
func lockNew(dir, id string) (*lock, error) {
	fd, err := openState(dir, id)
	if err != nil {
		return nil, err
	}
	if err := flock(fd, unix.LOCK_EX); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("container %q: lock: %w", id, err)
	}
	return &lock{fd}, nil
}

// hold locks a container and reads its record. A container that is being created,
// and runs hooks, is locked for long: with patient it is waited for, else it is
// returned without a lock. With ErrNotExist, a lock means that there is a directory
// and no record in it.
func (s Store) hold(id string, patient bool) (*Container, *lock, error) {
	if err := checkID(id); err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(s.Root, id)
	fd, err := openState(dir, id)
	if err != nil {
		return nil, nil, err
	}
	l := &lock{fd}
	err = flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if c, err := load(fd, recordName, dir, id); err == nil && !patient && c.Status() == specs.StateCreating {
			l.release()
			return c, nil, nil
		}
		err = flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		l.release()
		return nil, nil, fmt.Errorf("container %q: lock: %w", id, err)
	}
	// The name may belong to another container by now; the directory does not.
	c, err := load(fd, recordName, dir, id)
	if errors.Is(err, ErrNotExist) {
		if there, serr := l.there(); serr != nil || !there {
			l.release()
			return nil, nil, errors.Join(err, serr)
		}
		return nil, l, err
	}
	if err != nil {
		l.release()
		return nil, nil, err
	}
	return c, l, nil
}

// load reads the record of a container, whose name is relative to an open
// directory.
func load(fd int, name, dir, id string) (*Container, error) {
	path := filepath.Join(dir, recordName)
	data, err := readRecord(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("container %q: %w", id, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	record, err := quickjson.Decode(path, data, decodeRecord)
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	c := &Container{Record: *record, dir: dir}
	if c.Version != recordVersion || c.ID != id {
		return nil, fmt.Errorf("container %q: %s: version %d of container %q, want version %d of this one",
			id, path, c.Version, c.ID, recordVersion)
	}
	for _, group := range c.Cgroups {
		if !filepath.IsAbs(group) || filepath.Clean(group) != group {
			return nil, fmt.Errorf("container %q: %s: cgroups: %q is not a clean absolute path", id, path, group)
		}
	}
	return c, nil
}
