// Package image is the model of OCI images: media types, descriptors,
// manifests, indexes, configurations and platforms, decoded strictly and
// within bounds.
//
// It implements the OCI Image Format Specification 1.1.1 (descriptor.md,
// manifest.md, image-index.md, config.md, media-types.md) on the types of
// github.com/opencontainers/image-spec/specs-go/v1, and reads Docker's
// schema 2 documents, which have the same shape under other media types.
//
// Nothing here touches a disk or a network. What has to be fetched comes
// through [Fetcher]; what was fetched is checked against its descriptor before
// a byte of it is believed.
package image
