// Package changeset finds what has changed in a file tree and writes it as a layer: Image Spec 1.1.1, layer.md, "Change Types"
// and "Creating".
//
// What there was before is known in one of two ways:
//
//	Scan ─▶ Record ─┐                        a tree that was unpacked flat, and what it looked like then
//	tree now ───────┴─ Compare ───▶ Set ─┐
//	                                     ├─▶ Changes (A, C, D)   Write ─▶ tar archive
//	upper ──────────┬─ CompareUpper ▶ Set┘
//	lower layers ───┘                        overlayfs's upper directory, and the layers below it
//
// A record has each file's inode number, change time, size and modification time, so that nothing is read of what is as it
// was. The kernel moves the change time with every change of content or attributes, and nobody can set it.
//
// Trees are not trusted, and may change while they are read. They are walked by descriptors, through safepath; what is found
// to be another file, or another content, than a moment ago is an error that names it. The archive of a set is the same on
// every machine: sorted names, whiteouts first in each directory, and nothing in it that the tree does not have.
package changeset
