// Package tarstream reads tar archives as a stream of pieces, without copying the files' contents: what Image Spec 1.1.1
// (layer.md) calls a layer's "tar archive", in every form that is met there: v7, ustar, GNU and PAX, with long names,
// base-256 numbers and the sparse files of old GNU and PAX 0.0, 0.1 and 1.0.
//
// Where formats leave room for two readings, it takes that of the Go standard library's archive/tar, which is what other
// image tools use; a fuzz test holds the two together. It is stricter in one thing: an archive must end as POSIX says, with
// two blocks of zeros and nothing but zeros after them.
package tarstream
