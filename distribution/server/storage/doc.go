// Package storage keeps what a registry of the OCI Distribution Spec 1.1
// serves. Store knows repositories, blobs, uploads, manifests, tags and
// referrers; it turns each into objects with a key, and an Objects driver
// keeps those: in files (storage/fs), in memory, in a bucket. All state is in
// the objects, so that any number of registries can serve the same ones.
//
//	blobs/sha256/4f/4f53…/data              the bytes, once for all repositories
//	blobs/sha256/4f/4f53…/in/library,debian that repository has it ("/" written ",")
//	repositories/library/debian/
//	    _manifests/sha256-7c1f…             a line with the media type, then the bytes
//	    _tags/12                            the digest of a manifest
//	    _upstream                       of what the repository is a copy, if it is one
//	    _referrers/sha256-7c1f…/sha256-9a…  descriptor of a manifest with that subject
//	quarantine/sha256-4f53….N6C…            bytes of a blob that did not have its digest
//	usage/library                           what a namespace with a quota has: see usage.go
//	scrub                                   how far the scrubber is
//	sessions/0b9f6d1e-…                     an upload under way: repository, offset, hash
//
// A component of a repository's name never begins with "_", and none has a
// comma in it, so no two things share a key. Every object is written whole and
// replaced atomically; a blob's data is written only after its digest has been
// verified. A repository has a blob when both its "in" entry and the data are
// there; a manifest is written only after all that it names. While a manifest is
// being pushed it is also below "_pending", and while the collector is at work in
// a repository or on a blob there is a "_gate" or "gate": see gate.go.
package storage
