// Package transfer copies images between the forms that they are kept in: an
// image layout, an archive, a registry (Image Spec 1.1.1: manifest.md,
// image-index.md). It knows the forms by two interfaces, Source and
// Destination, and decides what goes over:
//
//	Source ── documents ──▶ plan ── blobs, in parallel ──▶ Destination
//	                          └──── manifests, children before parents, the root last
//
// No byte is changed, so digests stay, except where a form cannot hold what
// there is: a Destination that is an ImageWriter makes its own of an image.
// Because the name comes last, whoever looks at the destination before the end
// of a copy, or after it was killed, sees no part of it under the name.
package transfer
