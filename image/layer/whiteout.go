package layer

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// How layer.md spells whiteouts.
const (
	whiteoutPrefix = ".wh."
	opaqueBase     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // what AUFS keeps in the root for itself
)

var errWhiteout = errors.New("whiteout of nothing that has a name")

// isAUFS tells the bookkeeping of AUFS, which very old layers have in their root: .wh..wh.plnk, .wh..wh.orph, .wh..wh.aufs.
func isAUFS(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return strings.HasPrefix(first, aufsPrefix) && first != opaqueBase
}

// isWhiteoutNode tells overlayfs's form of a whiteout.
func isWhiteoutNode(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// whiteout hides what lower layers have at a name, or in a directory.
func (a *applier) whiteout(dirName, base string, h *tarstream.Header) error {
	a.result.WhiteoutsTaken++
	if base == opaqueBase {
		if a.options.Form == Flat {
			return a.removeLower(dirName)
		}
		d, err := a.parent(dirName, h)
		if err != nil {
			return err
		}
		return a.setOpaque(d)
	}
	hidden := base[len(whiteoutPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return errWhiteout
	}
	if a.options.Form == Flat {
		return a.removeHidden(dirName, hidden)
	}
	return a.markHidden(dirName, hidden, h)
}

// removeHidden removes what lower layers put at a name. If this layer has brought it, only what is left in it of them goes.
func (a *applier) removeHidden(dirName, base string) error {
	d, err := a.tree.find(dirName)
	if isMissing(err) {
		return nil // nothing there to hide
	}
	if err != nil {
		return err
	}
	full := d.child(base)
	if a.hasBrought(full) {
		if isDir, err := a.isDir(d, base); err != nil || !isDir {
			return err
		}
		return a.removeLower(full)
	}
	d.dirty = true
	return a.remove(d, base)
}

// removeLower empties a directory of all that this layer has not brought: once, as what comes to be in it later the layer has
// brought.
func (a *applier) removeLower(name string) error {
	for todo := []string{name}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := a.tree.find(next)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return err
		}
		key := maphash.String(a.seed, d.name)
		if _, done := a.emptied[key]; done {
			continue
		}
		a.emptied[key] = struct{}{}
		bases, err := safepath.List(d.fd)
		if err != nil {
			return err
		}
		for _, base := range bases {
			full := d.child(base)
			if !a.hasBrought(full) {
				d.dirty = true
				err = a.remove(d, base)
			} else if isDir, derr := a.isDir(d, base); isDir {
				todo = append(todo, full)
			} else {
				err = derr
			}
			if err != nil {
				return fmt.Errorf("empty directory %s: %w", quote(next), err)
			}
		}
	}
	return nil
}

// markHidden puts overlayfs's whiteout at a name. If this layer has brought something there, that hides what is below by
// itself, a directory once it is opaque.
func (a *applier) markHidden(dirName, base string, h *tarstream.Header) error {
	d, err := a.parent(dirName, h)
	if err != nil {
		return err
	}
	full := d.child(base)
	if _, ok := a.links[full]; ok {
		return nil
	}
	d.dirty = true
	err = unix.Mknodat(d.fd, base, unix.S_IFCHR, 0) // takes no privilege: Linux 5.8
	if err == nil {
		a.hidden[full] = struct{}{}
		return a.tree.name(full)
	}
	if err != unix.EEXIST {
		return err
	}
	isDir, err := a.isDir(d, base)
	if err != nil || !isDir {
		return err
	}
	if d, err = a.tree.find(full); err != nil {
		return err
	}
	d.implicit = false // what is below, with its attributes, is gone
	return a.setOpaque(d)
}

// setOpaque marks a directory as hiding all that lower layers have in it.
func (a *applier) setOpaque(d *dir) error {
	if d.name == "." {
		a.result.OpaqueRoot = true
		return nil
	}
	if err := unix.Fsetxattr(d.fd, a.options.Form.opaque(), []byte("y"), 0); err != nil {
		return fmt.Errorf("mark directory as opaque: %w", err)
	}
	return nil
}

// removeWhiteout removes overlayfs's whiteout at a name, if there is one, to make place for what the layer has there.
func (a *applier) removeWhiteout(d *dir, base string) (removed bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if !isWhiteoutNode(&st) {
		return false, nil
	}
	return true, unix.Unlinkat(d.fd, base, 0)
}
