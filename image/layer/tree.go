package layer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// tree is the directory tree that a layer is applied to. It keeps the directories that were used last open, so that an
// entry costs no look-up of its path: entries come directory by directory.
//
// A change in a directory changes its times, so these are set when it is closed.
type tree struct {
	root    *safepath.Root
	open    map[string]*dir    // by name as entries have it, which may lead through symbolic links
	records map[string]*record // by the name it resolves to
	retired []*dir             // no longer found by name, but perhaps in use until the entry is done
	named   int                // bytes of the names that are remembered
	clock   uint64
	last    *dir // the one found last, and the name it was found by
	lastKey string
}

// maxOpenDirs bounds the descriptors that one tree holds, maxNamesBytes the names that it remembers for one layer: those of the
// directories that were used, and of what waits for lower layers.
const (
	maxOpenDirs   = 64
	maxNamesBytes = 256 << 20
)

// name counts a name that is going to be remembered.
func (t *tree) name(name string) error {
	if t.named += len(name); t.named > maxNamesBytes {
		return fmt.Errorf("%w: names of directories, whiteouts and links of more than %d bytes", ErrLimit, maxNamesBytes)
	}
	return nil
}

// remember keeps what is known of a directory.
func (t *tree) remember(rec *record) error {
	t.records[rec.name] = rec
	return t.name(rec.name)
}

// dir is an open directory.
type dir struct {
	*record
	fd   int
	used uint64 // the clock when it was last found
}

// record is what is remembered of a directory also while it is not open.
type record struct {
	name     string // "." for the root
	times    [2]unix.Timespec
	dirty    bool // times are to be set again
	implicit bool // the layer has not described it
	inherits bool // what is made in it gets its group or an ACL from it
	lateMode bool // mode is to be set at the end, because nothing could be made in the directory with it
	mode     uint32
}

func newTree(root *safepath.Root) *tree {
	return &tree{root: root, open: map[string]*dir{}, records: map[string]*record{}}
}

// find opens the directory that name, in the form of safepath.Clean, leads to inside the root.
func (t *tree) find(name string) (*dir, error) {
	if t.last != nil && t.lastKey == name {
		return t.last, nil
	}
	d := t.open[name]
	if d == nil {
		fd, resolved, err := t.openDir(name)
		if err != nil {
			return nil, err
		}
		if d, err = t.adopt(name, resolved, fd); err != nil {
			return nil, err
		}
	}
	t.clock++
	d.used = t.clock
	t.last, t.lastKey = d, name
	return d, nil
}

// openDir opens a directory and says what it is called when no symbolic link is on the way.
func (t *tree) openDir(name string) (fd int, resolved string, err error) {
	fd, resolved, err = t.tryOpenDir(name)
	if !errors.Is(err, unix.EACCES) {
		return fd, resolved, err
	}
	if unlocked, uerr := t.unlock(name); !unlocked || uerr != nil {
		return fd, resolved, errors.Join(err, uerr)
	}
	return t.tryOpenDir(name)
}

func (t *tree) tryOpenDir(name string) (fd int, resolved string, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	fd, err = safepath.OpenAt(t.root.FD(), name, flags, 0, safepath.Beneath)
	if err != unix.ELOOP {
		return fd, name, err
	}
	if resolved, err = t.root.Resolve(name); err != nil {
		return -1, "", err
	}
	fd, err = safepath.OpenAt(t.root.FD(), resolved, flags, 0, safepath.Beneath)
	return fd, resolved, err
}

// adopt keeps an open directory under the name key.
func (t *tree) adopt(key, resolved string, fd int) (*dir, error) {
	rec := t.records[resolved]
	if rec == nil {
		var err error
		if rec, err = recordOf(fd, resolved); err != nil {
			unix.Close(fd)
			return nil, err
		}
		if err := t.remember(rec); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	d := &dir{record: rec, fd: fd}
	if err := t.keep(key, d); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

// keep has d found by the name key from now on. If there are too many, the one not used for longest is closed.
func (t *tree) keep(key string, d *dir) error {
	t.clock++
	d.used = t.clock
	if len(t.open) >= maxOpenDirs {
		oldest := ""
		for k, o := range t.open {
			if oldest == "" || o.used < t.open[oldest].used {
				oldest = k
			}
		}
		victim := t.open[oldest]
		delete(t.open, oldest)
		if t.last == victim {
			t.last = nil
		}
		if err := victim.close(); err != nil {
			return err
		}
	}
	t.open[key] = d
	return nil
}

// recordOf describes a directory that was there before: its times are put back after changes, as long as the layer does
// not say otherwise.
func recordOf(fd int, name string) (*record, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	rec := &record{name: name, implicit: true, mode: st.Mode & 0o7777, times: [2]unix.Timespec{st.Atim, st.Mtim}}
	rec.inherits = st.Mode&unix.S_ISGID != 0
	if !rec.inherits {
		_, err := unix.Fgetxattr(fd, defaultACL, nil)
		rec.inherits = err == nil
	}
	if isClosed(&st) {
		if err := unix.Fchmod(fd, rec.mode|ownerAll); err != nil {
			return nil, err
		}
		rec.lateMode = true
	}
	return rec, nil
}

// close closes the descriptor, and sets the times if something in the directory was changed.
func (d *dir) close() error {
	err := d.settle()
	return errors.Join(err, unix.Close(d.fd))
}

func (d *dir) settle() error {
	if !d.dirty {
		return nil
	}
	d.dirty = false
	return setTimes(d.fd, d.times)
}

// child is the name of an entry of the directory.
func (r *record) child(base string) string {
	if r.name == "." {
		return base
	}
	return r.name + "/" + base
}

// retire forgets which directory is found by which name, because removed, a directory or symbolic link, may have been on
// the way; and what is known of directories at or below it. Descriptors stay open until the entry is done.
func (t *tree) retire(removed string) {
	t.retireAll()
	for name := range t.records {
		if name == removed || strings.HasPrefix(name, removed+"/") {
			delete(t.records, name)
			t.named -= len(name)
		}
	}
}

// retireAll forgets which directory is found by which name.
func (t *tree) retireAll() {
	t.retired = slices.AppendSeq(t.retired, maps.Values(t.open))
	clear(t.open)
	t.last = nil
}

// release closes what was retired.
func (t *tree) release() error {
	var errs []error
	for _, d := range t.retired {
		errs = append(errs, d.close())
	}
	t.retired = t.retired[:0]
	return errors.Join(errs...)
}

// closeAll closes all directories.
func (t *tree) closeAll() error {
	t.retireAll()
	return t.release()
}

// finish closes all directories and sets the modes that had to wait.
func (t *tree) finish() error {
	if err := t.closeAll(); err != nil {
		return err
	}
	// Children first: their parents' modes may lock us out.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(t.records))) {
		rec := t.records[name]
		if !rec.lateMode {
			continue
		}
		fd, err := safepath.OpenAt(t.root.FD(), rec.name, unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
		if err != nil {
			return err
		}
		err = unix.Fchmod(fd, rec.mode)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// implicit lists the directories that have been written to without having been described, parents first.
func (t *tree) implicit() []string {
	var names []string
	for name, rec := range t.records {
		if rec.implicit {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func setTimes(fd int, times [2]unix.Timespec) error {
	// AT_EMPTY_PATH for utimensat: Linux 5.8.
	return unix.UtimesNanoAt(fd, "", times[:], unix.AT_EMPTY_PATH)
}
