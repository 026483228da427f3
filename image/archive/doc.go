// Package archive reads and writes images in tar archives, in two forms.
//
// An OCI archive is an image layout (Image Spec 1.1.1, image-layout.md) in tar:
//
//	oci-layout                 index.json               blobs/ALGORITHM/HEX
//
// A docker archive is what docker save writes. Three generations of it are
// read, and the last one is written, which is an OCI archive as well:
//
//	repositories  ID/json  ID/layer.tar  ID/VERSION     before Docker 1.10
//	manifest.json  HEX.json  ID/layer.tar               since then
//	manifest.json  index.json  blobs/sha256/HEX         since Docker 25
//
// Nothing is unpacked to disk: an archive is read where it lies, by the offsets
// of its members, whose names are keys and never paths. What comes from a pipe
// or is compressed as a whole is first put into an unnamed file.
package archive
