// Package tree tells what the files of an image are without unpacking it: it
// merges the entries of its layers as Image Spec 1.1.1, layer.md, "Applying
// Changesets" has it, in memory and without a file system.
//
//	layer.Scan ──entries──▶ Layer.Add ──▶ Tree ──▶ Lookup, All, Compare
//	(bounded, verified)     whiteouts, links,
//	                        replaced types
//
// A Tree is what layer.Apply would make of the same layers in one directory, and
// refuses what Apply refuses; tests compare the two. It holds names and
// attributes, within limits, and no content: where that is, each File says.
package tree
