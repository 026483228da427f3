package tree

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

// Kind is what became of a name.
type Kind byte

// The kinds, as docker diff and podman diff write them.
const (
	Added   Kind = 'A'
	Changed Kind = 'C'
	Deleted Kind = 'D'
)

func (k Kind) String() string { return string(rune(k)) }

// Fields are what differs between two files.
type Fields uint8

const (
	FieldType Fields = 1 << iota
	FieldContent
	FieldTarget // of a symbolic link, or the number of a device
	FieldMode
	FieldOwner
	FieldXattrs
	FieldTime
)

// fieldNames is the one table of their names.
var fieldNames = [...]struct {
	field Fields
	name  string
}{
	{FieldType, "type"}, {FieldContent, "content"}, {FieldTarget, "target"}, {FieldMode, "mode"},
	{FieldOwner, "owner"}, {FieldXattrs, "xattrs"}, {FieldTime, "time"},
}

// Names lists the fields' names.
func (f Fields) Names() []string {
	names := []string{}
	for _, n := range fieldNames {
		if f&n.field != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

func (f Fields) String() string { return strings.Join(f.Names(), ",") }

// Change is one name that differs.
type Change struct {
	Kind   Kind
	Name   string
	Before *File // nil if it is added
	After  *File // nil if it is deleted
	Fields Fields
}

// Differs says what differs between two files. Contents are compared by their
// sums; where one has none, they count as different.
func Differs(a, b *File) (f Fields) {
	if a == b {
		return 0
	}
	set := func(field Fields, differs bool) {
		if differs {
			f |= field
		}
	}
	set(FieldMode, a.Mode != b.Mode)
	set(FieldOwner, a.UID != b.UID || a.GID != b.GID)
	set(FieldTime, a.ModTime != b.ModTime)
	set(FieldXattrs, !sameXattrs(a.Xattrs, b.Xattrs))
	if a.Type != b.Type {
		return f | FieldType
	}
	set(FieldTarget, a.Linkname != b.Linkname || a.Major != b.Major || a.Minor != b.Minor)
	if a.Type == tarstream.TypeReg {
		set(FieldContent, a.SizeBytes != b.SizeBytes || a.Sum == nil || b.Sum == nil || *a.Sum != *b.Sum)
	}
	return f
}

func sameXattrs(a, b []tarstream.Xattr) bool {
	if len(a) != len(b) {
		return false
	}
	byName := func(x, y tarstream.Xattr) int { return cmp.Compare(x.Name, y.Name) }
	return slices.EqualFunc(slices.SortedFunc(slices.Values(a), byName), slices.SortedFunc(slices.Values(b), byName),
		func(x, y tarstream.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// Compare lists what leads from one tree to another, sorted by name; a directory
// comes before what is in it.
func Compare(from, to *Tree) []Change {
	var changes []Change
	compare(from.root, to.root, &changes)
	return changes
}

func compare(a, b *Node, changes *[]Change) {
	if f := Differs(a.file, b.file); f != 0 {
		*changes = append(*changes, Change{Changed, b.Name(), a.file, b.file, f})
	}
	for base := range merged(a.children, b.children) {
		was, is := a.children[base], b.children[base]
		switch {
		case is == nil:
			for n := range was.All() {
				*changes = append(*changes, Change{Kind: Deleted, Name: n.Name(), Before: n.file})
			}
		case was == nil:
			for n := range is.All() {
				*changes = append(*changes, Change{Kind: Added, Name: n.Name(), After: n.file})
			}
		default:
			compare(was, is, changes)
		}
	}
}

// merged are the keys of both, sorted.
func merged(a, b map[string]*Node) iter.Seq[string] {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, both := a[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Values(keys)
}

// Changes lists what the layer has made of the tree so far, in the order of
// Compare. A file that the layer brings although it was there just so is listed
// too, with no Fields: it takes its space once more.
func (l *Layer) Changes() []Change {
	var changes []Change
	for name, was := range l.before {
		n, err := l.tree.walk(name)
		switch {
		case err != nil && was == nil: // brought and removed again
		case err != nil:
			changes = append(changes, Change{Kind: Deleted, Name: name, Before: was})
		case was == nil:
			changes = append(changes, Change{Kind: Added, Name: name, After: n.file})
		default:
			changes = append(changes, Change{Changed, name, was, n.file, Differs(was, n.file)})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return comparePaths(a.Name, b.Name) })
	return changes
}

// comparePaths orders names as a walk through directories meets them: a/b
// before a-b.
func comparePaths(a, b string) int {
	if a == "." || b == "." {
		return cmp.Compare(btoi(a != "."), btoi(b != "."))
	}
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
