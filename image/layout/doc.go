// Package layout keeps images in an OCI Image Layout directory
// (image-spec 1.1.1, image-layout.md): tare's local store is one, and other
// tools' layouts are read the same way.
//
//	DIR/oci-layout                    {"imageLayoutVersion":"1.0.0"}
//	DIR/index.json                    names: entries with the annotation org.opencontainers.image.ref.name
//	DIR/blobs/ALGORITHM/HEX           content, named by its digest
//	DIR/.tare/lease.lock              shared: a Session; exclusive: GC
//	DIR/.tare/index.lock              exclusive: a change of index.json
//	DIR/.tare/partial/ALGORITHM-HEX   a blob that is being written, locked by its writer
//
// What is in DIR/.tare is ours; the specification lets a layout hold unknown
// files. Several processes may use a store at the same time, and any of them
// may be killed at any moment:
//
//   - A blob is written to its partial file, hashed on the way, and renamed to
//     its place when digest and size are right. So what is in blobs/ is whole
//     and verified. A partial file that was left behind is resumed by the next
//     Ingest of that blob.
//   - index.json is replaced by rename, under a lock. A reader sees the old one
//     or the new one.
//   - Blobs come before the name that leads to them. In between, the Session
//     they were written or found through holds the lease shared, and GC, which
//     holds it exclusively, does not run. Locks are flock(2): the kernel drops
//     them with their process.
//
// Names are whole references, such as 127.0.0.1:5000/medium:latest. Other tools
// write them after the directory and a colon (oci:DIR:127.0.0.1:5000/medium:latest),
// which works because skopeo and umoci split at the first colon; DIR can't have
// one. Both allow in a name only alphanumerics joined by one of - . _ : @ + /
// or by two hyphens, so they can't say a reference with __ or ---, with an IPv6
// literal, or with a tag that begins with _. Here those work like any other.
package layout
