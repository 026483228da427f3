// Package distribution holds what both sides of the OCI Distribution Spec 1.1
// share: references, the table of routes ("Endpoints"), the table of error
// codes ("Error Codes"), and the few header grammars of the protocol. The
// client is in distribution/remote, the registry in distribution/server.
package distribution

import (
	// A digest names its own algorithm; these make sha384 and sha512 available
	// to go-digest beside the sha256 that everything uses.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Bounds on what the other side may send. The spec asks for manifests of at
// least 4 MiB to be supported ("Pushing Manifests").
const (
	MaxManifestSizeBytes = 4 << 20
	MaxErrorBodyBytes    = 64 << 10
)

// Header names of the protocol that net/http has no constant for, in the
// canonical form net/http stores them in.
const (
	HeaderContentDigest  = "Docker-Content-Digest"
	HeaderAPIVersion     = "Docker-Distribution-Api-Version"
	HeaderSubject        = "Oci-Subject"
	HeaderFiltersApplied = "Oci-Filters-Applied"
	HeaderTag            = "Oci-Tag"
	HeaderUploadID       = "Docker-Upload-Uuid"
	HeaderChunkMinLength = "Oci-Chunk-Min-Length"
)
