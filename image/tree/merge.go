package tree

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Layer is a layer that is being merged into a tree.
type Layer struct {
	tree    *Tree
	number  int // counted from 1
	entries int
	before  map[string]*File // of the names that were touched; nil where there was nothing
	bytes   int              // of these names
	hidden  int
}

// AddLayer begins to merge a layer on top of those that are there. Until all of
// its entries are added the tree is neither the old one nor the new one.
func (t *Tree) AddLayer() *Layer {
	t.layers++
	return &Layer{tree: t, number: t.layers, before: map[string]*File{}}
}

// Whiteouts is how many of the layer's entries are whiteouts.
func (l *Layer) Whiteouts() int { return l.hidden }

// Add merges the next entry. It returns the new file, whose Sum may be set
// before the layer ends; nil for a whiteout, a hard link and what is passed over.
func (l *Layer) Add(h *tarstream.Header) (*File, error) {
	l.entries++
	name, err := safepath.Clean(h.Name)
	if err != nil {
		return nil, err
	}
	dirName, base := safepath.SplitBase(name)
	mark, hidden, err := layer.MarkOf(name)
	switch {
	case err != nil || mark == layer.AUFSEntry:
		return nil, err
	case mark != layer.NoMark:
		l.hidden++
		return nil, l.whiteout(dirName, mark, hidden)
	case name == ".":
		if h.Type != tarstream.TypeDir {
			return nil, errors.New("the root must be a directory")
		}
		return l.describe(l.tree.root, h)
	}
	p, err := l.parent(dirName, h)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dirName, err)
	}
	if h.Type == tarstream.TypeLink {
		return nil, l.link(p, base, h)
	}
	if old := p.children[base]; old != nil && old.IsDir() && h.Type == tarstream.TypeDir {
		return l.describe(old, h)
	}
	f, err := l.file(h)
	if err != nil {
		return nil, err
	}
	return f, l.place(p, base, f)
}

// file is what an entry describes.
func (l *Layer) file(h *tarstream.Header) (*File, error) {
	const maxID = 1<<32 - 1 // which chown(2) takes for "leave it"
	if h.UID >= maxID || h.GID >= maxID {
		return nil, fmt.Errorf("owner %d:%d does not exist", h.UID, h.GID)
	}
	f := &File{Type: h.Type, Mode: h.Mode, UID: uint32(h.UID), GID: uint32(h.GID), ModTime: h.ModTime, Layer: l.number - 1, Entry: l.entries - 1}
	switch h.Type {
	case tarstream.TypeReg:
		f.SizeBytes = h.Size
	case tarstream.TypeSymlink:
		f.Linkname, f.Mode = strings.Clone(h.Linkname), 0o777
		if f.Linkname == "" {
			return nil, syscall.ENOENT
		}
		if len(f.Linkname) > maxNameBytes {
			return nil, syscall.ENAMETOOLONG
		}
		if strings.IndexByte(f.Linkname, 0) >= 0 {
			return nil, syscall.EINVAL
		}
	case tarstream.TypeChar, tarstream.TypeBlock:
		if h.Major < 0 || h.Major >= 1<<12 || h.Minor < 0 || h.Minor >= 1<<20 {
			return nil, fmt.Errorf("device number %d:%d does not exist", h.Major, h.Minor)
		}
		f.Major, f.Minor = uint32(h.Major), uint32(h.Minor)
	}
	size := len(f.Linkname)
	for _, x := range h.Xattrs {
		if x.Err != nil {
			continue // as where it is unpacked
		}
		f.Xattrs = append(f.Xattrs, tarstream.Xattr{Name: strings.Clone(x.Name), Value: slices.Clone(x.Value)})
		size += len(x.Name) + len(x.Value)
	}
	return f, l.tree.take(size)
}

// take counts what is kept in memory.
func (t *Tree) take(bytes int) error {
	if t.bytes += bytes; t.bytes > t.limits.Bytes {
		return fmt.Errorf("%w: more than %d bytes of names and attributes", ErrLimit, t.limits.Bytes)
	}
	return nil
}

// parent finds the directory that an entry goes to, following symbolic links.
// What is missing is made.
func (l *Layer) parent(name string, h *tarstream.Header) (*Node, error) {
	d, err := l.tree.dir(name)
	if err == nil || !isMissing(err) {
		return d, err
	}
	if resolved, err := l.tree.resolve(name); err == nil {
		name = resolved
	}
	return l.makeParent(name, h)
}

func isMissing(err error) bool { return err == syscall.ENOENT || err == syscall.ENOTDIR }

func (l *Layer) makeParent(name string, h *tarstream.Header) (*Node, error) {
	above, base := safepath.SplitBase(name)
	p, err := l.tree.dir(above)
	if err != nil && isMissing(err) && above != "." {
		p, err = l.makeParent(above, h)
	}
	if err != nil {
		return nil, err
	}
	if p.children[base] != nil {
		return nil, syscall.ENOTDIR
	}
	// Nobody knows its time; the entry's is at least the same every time.
	f := &File{Type: tarstream.TypeDir, Mode: 0o755, ModTime: h.ModTime, Implied: true, Layer: l.number - 1, Entry: l.entries - 1}
	if err := l.place(p, base, f); err != nil {
		return nil, err
	}
	return p.children[base], nil
}

// place gives f a name, in place of all that is there.
func (l *Layer) place(p *Node, base string, f *File) error {
	if len(base) > maxBaseBytes {
		return syscall.ENAMETOOLONG
	}
	if old := p.children[base]; old != nil {
		if err := l.remove(old); err != nil {
			return err
		}
	}
	if l.tree.files++; l.tree.files > l.tree.limits.Files {
		return fmt.Errorf("%w: more than %d files", ErrLimit, l.tree.limits.Files)
	}
	if err := l.tree.take(len(base)); err != nil {
		return err
	}
	n := &Node{base: strings.Clone(base), parent: p, file: f}
	if f.Type == tarstream.TypeDir {
		n.children = map[string]*Node{}
	}
	if err := l.touch(n, nil); err != nil {
		return err
	}
	p.children[n.base] = n
	l.bring(n)
	return nil
}

// touch notes what there was at a name before the layer came. Paths are counted: in deep directories many short names make long ones.
func (l *Layer) touch(n *Node, was *File) error {
	name := n.Name()
	if _, known := l.before[name]; known {
		return nil
	}
	if l.bytes += len(name); l.bytes > l.tree.limits.Bytes {
		return fmt.Errorf("%w: paths of more than %d bytes changed by one layer", ErrLimit, l.tree.limits.Bytes)
	}
	l.before[name] = was
	return nil
}

// bring notes that the layer has brought something, so that its whiteouts do not
// remove it, nor the directories above it.
func (l *Layer) bring(n *Node) {
	for ; n.parent != nil && n.brought != l.number; n = n.parent {
		n.brought = l.number
	}
}

// remove takes a name away, with all below it.
func (l *Layer) remove(n *Node) error {
	for c := range n.All() {
		if err := l.touch(c, c.file); err != nil {
			return err
		}
		l.tree.files--
	}
	delete(n.parent.children, n.base)
	return nil
}

// describe gives a directory that is there the entry's attributes.
func (l *Layer) describe(n *Node, h *tarstream.Header) (*File, error) {
	f, err := l.file(h)
	if err != nil {
		return nil, err
	}
	if err := l.touch(n, n.file); err != nil {
		return nil, err
	}
	n.file = f
	l.bring(n)
	return f, nil
}

// link makes a hard link. Its last component is not followed.
func (l *Layer) link(p *Node, base string, h *tarstream.Header) error {
	err := l.linkTo(p, base, h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	return nil
}

func (l *Layer) linkTo(p *Node, base, linkname string) error {
	name, err := safepath.Clean(linkname)
	if err != nil {
		return err
	}
	if name == "." {
		return syscall.EPERM
	}
	dirName, targetBase := safepath.SplitBase(name)
	d, err := l.tree.dir(dirName)
	if err != nil {
		return err
	}
	target, err := d.child(targetBase)
	if err != nil {
		return err
	}
	if target.IsDir() {
		return syscall.EPERM
	}
	if old := p.children[base]; old != nil && old.file == target.file {
		l.bring(old)
		return nil
	}
	if old := p.children[base]; old != nil && old.holds(target) {
		return syscall.ENOENT // it went with what was in the way
	}
	return l.place(p, base, target.file)
}

// holds says whether other is below n.
func (n *Node) holds(other *Node) bool {
	for ; other != nil; other = other.parent {
		if other == n {
			return true
		}
	}
	return false
}

// whiteout removes what lower layers have at a name, or in a directory.
func (l *Layer) whiteout(dirName string, mark layer.Mark, hidden string) error {
	d, err := l.tree.dir(dirName)
	if err != nil && isMissing(err) {
		return nil // nothing there to hide
	}
	if err != nil {
		return err
	}
	if mark == layer.Opaque {
		return l.removeLower(d)
	}
	n := d.children[hidden]
	switch {
	case n == nil:
	case n.brought != l.number:
		return l.remove(n)
	case n.IsDir():
		return l.removeLower(n)
	}
	return nil
}

// removeLower empties a directory of all that this layer has not brought: once, as what comes to be in it later the layer has
// brought.
func (l *Layer) removeLower(d *Node) error {
	if d.emptied == l.number {
		return nil
	}
	d.emptied = l.number
	for _, c := range d.children {
		var err error
		switch {
		case c.brought != l.number:
			err = l.remove(c)
		case c.IsDir():
			err = l.removeLower(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
