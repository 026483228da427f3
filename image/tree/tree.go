package tree

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// ErrLimit says that an image has more files, or longer names, than Limits allow.
var ErrLimit = errors.New("image exceeds a limit")

// Limits bound what a tree may hold. A zero field stands for its default.
type Limits struct {
	Files int // names at one time; default 1 Mi
	Bytes int // of names, link targets and extended attributes, of all layers; also of the paths that one layer changes; default 256 MiB
	// HolesBytes is how many zeros that are in no archive are summed (Options.Sums), of all layers: a header of some bytes can
	// promise exabytes of them. A file with more is left without a sum. Default 8 GiB.
	HolesBytes int64
}

// Tree is the merged files of some layers. Reading it may be done concurrently.
type Tree struct {
	root   *Node
	limits Limits
	layers int
	files  int
	bytes  int
	holes  int64
}

// Node is a name in a tree.
type Node struct {
	base     string
	parent   *Node
	children map[string]*Node // of a directory
	file     *File
	brought  int // the last layer, counted from 1, that has brought it or something in it
	emptied  int // of a directory: the last layer that has hidden all that lower ones had in it
}

// File is what one name, or several, stand for. Nothing of it changes once the
// layer it came with has ended.
type File struct {
	Type         byte   // one of tarstream's; never TypeLink
	Mode         uint32 // permission, setuid, setgid and sticky bits
	UID, GID     uint32
	SizeBytes    int64 // of a regular file
	ModTime      tarstream.Time
	Linkname     string // of a symbolic link
	Major, Minor uint32 // of a device
	Xattrs       []tarstream.Xattr
	Implied      bool // a directory that no layer describes

	Layer int       // which has brought it, counted from 0
	Entry int       // of that layer, counted from 0
	Sum   *[32]byte // SHA-256 of a regular file's content; nil if nobody has computed it
}

// New makes a tree with nothing in it but the root.
func New(limits Limits) *Tree {
	if limits.Files <= 0 {
		limits.Files = 1 << 20
	}
	if limits.Bytes <= 0 {
		limits.Bytes = 256 << 20
	}
	if limits.HolesBytes <= 0 {
		limits.HolesBytes = 8 << 30
	}
	root := &File{Type: tarstream.TypeDir, Mode: 0o755, Implied: true}
	return &Tree{root: &Node{children: map[string]*Node{}, file: root}, limits: limits}
}

// Layers is how many layers have been merged.
func (t *Tree) Layers() int { return t.layers }

// Clone makes a tree that can be changed by itself.
func (t *Tree) Clone() *Tree {
	c := *t
	c.root = t.root.clone(nil)
	return &c
}

func (n *Node) clone(parent *Node) *Node {
	c := *n
	c.parent = parent
	if n.children != nil {
		c.children = make(map[string]*Node, len(n.children))
		for base, child := range n.children {
			c.children[base] = child.clone(&c)
		}
	}
	return &c
}

// File is what the name stands for. Names of one File are hard links.
func (n *Node) File() *File { return n.file }

// IsDir says whether it is a directory.
func (n *Node) IsDir() bool { return n.children != nil }

// Name is the path from the root, in the form of safepath.Clean: "." for the
// root itself.
func (n *Node) Name() string {
	if n.parent == nil {
		return "."
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.base)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// Base is the last component of the name.
func (n *Node) Base() string {
	if n.parent == nil {
		return "."
	}
	return n.base
}

// Children are the entries of a directory, sorted by name.
func (n *Node) Children() []*Node {
	all := make([]*Node, 0, len(n.children))
	for _, base := range slices.Sorted(maps.Keys(n.children)) {
		all = append(all, n.children[base])
	}
	return all
}

// All are the node and all below it, each directory before what is in it.
func (n *Node) All() iter.Seq[*Node] {
	return func(yield func(*Node) bool) { n.all(yield) }
}

func (n *Node) all(yield func(*Node) bool) bool {
	if !yield(n) {
		return false
	}
	for _, child := range n.Children() {
		if !child.all(yield) {
			return false
		}
	}
	return true
}

// Root is the root directory.
func (t *Tree) Root() *Node { return t.root }

// Lookup finds what a process whose root directory the tree is would find at a
// path. Symbolic links are followed inside the tree; one that the path ends with
// only if follow says so. Errors are those of the system calls: ENOENT, ENOTDIR,
// ELOOP.
func (t *Tree) Lookup(path string, follow bool) (*Node, error) {
	if !follow {
		dir, base := safepath.SplitBase(strings.TrimRight(path, "/"))
		if !strings.HasSuffix(path, "/") && base != "" && base != "." && base != ".." {
			parent, err := t.Lookup("/"+dir, true)
			if err != nil {
				return nil, err
			}
			return parent.child(base)
		}
	}
	resolved, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	n, err := t.walk(resolved)
	if err == nil && strings.HasSuffix(path, "/") && !n.IsDir() {
		err = syscall.ENOTDIR
	}
	return n, err
}

func (n *Node) child(base string) (*Node, error) {
	if !n.IsDir() {
		return nil, syscall.ENOTDIR
	}
	c := n.children[base]
	if c == nil {
		return nil, syscall.ENOENT
	}
	return c, nil
}

// walk goes to a name, as safepath.Clean returns them. A symbolic link on the
// way is ELOOP, as it is for openat2 with RESOLVE_NO_SYMLINKS.
func (t *Tree) walk(name string) (*Node, error) {
	n := t.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if n.file.Type == tarstream.TypeSymlink {
			return nil, syscall.ELOOP
		}
		next, err := n.child(part)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// dir finds the directory that a name leads to, as layer.Apply does.
func (t *Tree) dir(name string) (*Node, error) {
	n, err := t.walk(name)
	if err == nil && n.file.Type == tarstream.TypeSymlink {
		err = syscall.ELOOP
	}
	if err == syscall.ELOOP {
		if name, err = t.resolve(name); err == nil {
			n, err = t.walk(name)
		}
	}
	if err == nil && !n.IsDir() {
		err = syscall.ENOTDIR
	}
	return n, err
}

const (
	maxLinks     = 40 // as the kernel, and safepath, have it
	maxNameBytes = 4095
	maxBaseBytes = 255 // NAME_MAX of the file systems of Linux
)

// resolve is safepath.Root.Resolve for a tree: the name that a path stands for
// once all symbolic links are followed, also where that does not exist.
func (t *Tree) resolve(path string) (string, error) {
	rest := strings.Split(path, "/")
	if len(path) > maxNameBytes {
		return "", syscall.ENAMETOOLONG
	}
	var done []string
	nodes := []*Node{t.root} // of done's prefixes, as far as they exist
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			done = done[:max(0, len(done)-1)]
			nodes = nodes[:min(len(nodes), len(done)+1)]
			continue
		}
		done = append(done, part)
		if len(nodes) < len(done) {
			continue // below what does not exist
		}
		n, err := nodes[len(nodes)-1].child(part)
		if err == syscall.ENOENT {
			continue
		}
		if err != nil {
			return "", err
		}
		if n.file.Type != tarstream.TypeSymlink {
			nodes = append(nodes, n)
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		target := strings.Split(n.file.Linkname, "/")
		if len(target)+len(rest) > maxLinks*maxNameBytes {
			return "", syscall.ENAMETOOLONG
		}
		done = done[:len(done)-1]
		if strings.HasPrefix(n.file.Linkname, "/") {
			done, nodes = nil, nodes[:1]
		}
		rest = append(target, rest...)
	}
	name := strings.Join(done, "/")
	if name == "" {
		name = "."
	}
	if len(name) > maxNameBytes {
		return "", syscall.ENAMETOOLONG
	}
	return name, nil
}
