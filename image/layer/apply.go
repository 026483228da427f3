package layer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Apply applies a layer, compressed or not, to the directory root. When it fails it may have applied a part: the caller
// then removes the directory, or never gives it its name. The layer's digest is the caller's to verify (while blob is
// read, or before); that of the uncompressed archive is returned, and verified if Options has it.
//
// blob is not read any more when Apply returns; a Read that hangs must be ended by whoever cancels ctx.
func Apply(ctx context.Context, blob io.Reader, root *safepath.Root, options Options) (Result, error) {
	options.Limits = options.Limits.withDefaults()
	result, err := apply(ctx, blob, root, options)
	if err != nil {
		return Result{}, fmt.Errorf("apply layer %s: %w", options.Name, err)
	}
	return result, nil
}

func apply(ctx context.Context, blob io.Reader, root *safepath.Root, options Options) (_ Result, err error) {
	s, err := startStream(ctx, blob, options)
	if err != nil {
		return Result{}, err
	}
	defer s.stop()
	a := newApplier(root, options)
	a.archive = tarstream.NewReader(s, tarstream.Limits{MetaBytes: options.Limits.MetaBytes})
	err = a.entries(ctx)
	if ferr := a.small.wait(); ferr != nil {
		err = ferr // that of an entry before
	}
	if err != nil {
		return Result{}, errors.Join(err, a.tree.closeAll())
	}
	if err := a.tree.finish(); err != nil {
		return Result{}, fmt.Errorf("set attributes of directories: %w", err)
	}
	r, err := s.result(a.result)
	if err != nil {
		return Result{}, err
	}
	if options.Form != Flat {
		r.Pending = a.pending()
	}
	return r, nil
}

// applier applies one layer's entries to a tree.
type applier struct {
	options Options
	archive *tarstream.Reader
	tree    *tree
	small   finisher
	result  Result

	uid, gid uint32 // whom new files belong to by themselves
	umask    uint32

	brought map[uint64]struct{} // Flat: hashes of the names this layer has brought, with all above them
	seed    maphash.Seed
	emptied map[uint64]struct{} // Flat: hashes of the names of directories in which nothing is left of lower layers
	links   map[string]string   // Overlay: hard links whose targets are not in this layer
	hidden  map[string]struct{} // Overlay: names with whiteouts
}

func newApplier(root *safepath.Root, options Options) *applier {
	return &applier{
		options: options,
		tree:    newTree(root),
		uid:     uint32(os.Geteuid()),
		gid:     uint32(os.Getegid()),
		umask:   umask(),
		brought: map[uint64]struct{}{},
		seed:    maphash.MakeSeed(),
		emptied: map[uint64]struct{}{},
		links:   map[string]string{},
		hidden:  map[string]struct{}{},
	}
}

// entries applies all entries, to the end of the archive.
func (a *applier) entries(ctx context.Context) error {
	return eachEntry(ctx, a.archive, a.options, &a.result.Entries, func(h *tarstream.Header) error {
		err := a.entry(h)
		if rerr := a.tree.release(); err == nil {
			err = rerr
		}
		return err
	})
}

// quote shows a name from outside, which may be long.
func quote(name string) string {
	const maxShownBytes = 300
	if len(name) > maxShownBytes {
		return fmt.Sprintf("%q…", name[:maxShownBytes])
	}
	return fmt.Sprintf("%q", name)
}

func entryError(name string, err error) error { return fmt.Errorf("entry %s: %w", quote(name), err) }

// entry applies one entry.
func (a *applier) entry(h *tarstream.Header) error {
	name, err := safepath.Clean(h.Name)
	if err != nil {
		return err
	}
	dirName, base := safepath.SplitBase(name)
	if isAUFS(name) {
		return nil
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(dirName, base, h)
	}
	if a.options.KeepOwners {
		keepOwner(h)
	}
	if name == "." {
		return a.rootEntry(h)
	}
	d, err := a.parent(dirName, h)
	if err != nil {
		return err
	}
	d.dirty = true
	full := d.child(base)
	if len(a.links) > 0 {
		delete(a.links, full)
	}
	switch h.Type {
	case tarstream.TypeReg:
		err = a.file(d, base, h)
	case tarstream.TypeDir:
		err = a.dir(d, base, name, h)
	case tarstream.TypeLink:
		err = a.link(d, base, h)
	case tarstream.TypeSymlink:
		err = a.symlink(d, base, h)
	default:
		err = a.special(d, base, h)
	}
	if err != nil {
		return err
	}
	a.bring(full)
	return nil
}

// parent finds the directory that an entry goes to, following symbolic links inside the root as a process whose root
// directory that is would. What is missing is made: the layer implies it, without a word about its attributes.
func (a *applier) parent(name string, h *tarstream.Header) (*dir, error) {
	d, err := a.tree.find(name)
	if err == nil {
		return d, nil
	}
	if isMissing(err) {
		// A symbolic link may lead to what is missing.
		resolved, rerr := a.tree.root.Resolve(name)
		if rerr != nil {
			resolved = name
		}
		d, err = a.makeParent(resolved, h)
	}
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", quote(name), err)
	}
	return d, nil
}

// isMissing tells the errors of a path whose end, or a directory on the way, is not there. With overlayfs's whiteouts, a
// directory may be missing where something that is not one can be found.
func isMissing(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// makeParent makes the directory name, with those above it.
func (a *applier) makeParent(name string, h *tarstream.Header) (*dir, error) {
	above, base := safepath.SplitBase(name)
	p, err := a.tree.find(above)
	if isMissing(err) && above != "." {
		p, err = a.makeParent(above, h)
	}
	if err != nil {
		return nil, err
	}
	p.dirty = true
	const mode = 0o755
	err = unix.Mkdirat(p.fd, base, mode)
	hidden := false
	if err == unix.EEXIST && a.options.Form != Flat {
		if hidden, err = a.removeWhiteout(p, base); err == nil {
			err = unix.Mkdirat(p.fd, base, mode)
		}
	}
	if err == unix.EEXIST {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	d, err := a.openNew(p, base, name)
	if err != nil {
		return nil, err
	}
	// Its real times nobody knows; the entry's are at least the same every time. Where the layer removes the directory that
	// was below, that one's attributes are not wanted either.
	d.times, d.dirty, d.implicit = timesOf(h), true, !hidden
	uid, gid, err := a.owner(&tarstream.Header{})
	if err == nil {
		err = a.own(d.fd, p, mode, uid, gid, true)
	}
	if err == nil && hidden {
		err = a.setOpaque(d)
	}
	a.bring(d.name)
	return d, err
}

// openNew opens a directory that was just made.
func (a *applier) openNew(p *dir, base, name string) (*dir, error) {
	fd, err := safepath.OpenAt(p.fd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0, safepath.Beneath)
	if err != nil {
		return nil, err
	}
	rec := &record{name: p.child(base)}
	d := &dir{record: rec, fd: fd}
	err = a.tree.remember(rec)
	if err == nil {
		err = a.tree.keep(name, d)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

// bring notes that the layer has brought something, so that its whiteouts do not remove it, nor the directories above it.
func (a *applier) bring(name string) {
	if a.options.Form != Flat {
		return // what is in the directory is what the layer has brought
	}
	for {
		key := maphash.String(a.seed, name)
		if _, known := a.brought[key]; known {
			return
		}
		a.brought[key] = struct{}{}
		above, base := safepath.SplitBase(name)
		if above == "." || base == name {
			return
		}
		name = above
	}
}

func (a *applier) hasBrought(name string) bool {
	_, ok := a.brought[maphash.String(a.seed, name)]
	return ok
}

func (a *applier) pending() Pending {
	p := Pending{Dirs: a.tree.implicit(), Whiteouts: slices.Sorted(maps.Keys(a.hidden))}
	for name, target := range a.links {
		p.Links = append(p.Links, HardLink{Name: name, Target: target})
	}
	sortLinks(p.Links)
	return p
}
