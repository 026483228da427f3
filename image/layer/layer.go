// Package layer applies and writes image layers: Image Spec 1.1.1, layer.md.
//
// A layer is a tar archive, often compressed, of what changed against the layers below it. Apply puts one into a directory:
// either over what the lower layers made of it, or alone, as one of the directories that overlayfs stacks. Nothing in a
// layer is trusted:
//
//	blob ─▶  ahead  ─▶ inflate ─▶  hash ─▶ tarstream ─▶ applier ─▶ tree ─▶ *at system calls on directory descriptors
//	      (goroutine)(goroutine)(goroutine)            whiteouts,  open directories,
//	                                                   types       names resolved beneath the root
//
// Buffers travel down that line and back; the contents of large files are written straight from them. Small files are made
// by the applier and finished in one more goroutine, so that two processors have work whatever is in the layer.
package layer

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// Errors that callers may want to tell apart. A name that leads out of the root is safepath.ErrEscapes, a malformed
// archive tarstream.ErrHeader, a lack of space unix.ENOSPC.
var (
	// ErrLimit says that a layer is larger than Options.Limits allow.
	ErrLimit = errors.New("layer exceeds a limit")
	// ErrDiffID says that the uncompressed layer is not the one that the image's config names.
	ErrDiffID = errors.New("layer's content does not match its diffID")
	// ErrDevice says that a layer holds a device node where none is allowed.
	ErrDevice = errors.New("device nodes are not allowed here")
	// ErrCompression says that a layer is compressed in a way that is not supported.
	ErrCompression = errors.New("unsupported compression")
	// ErrEncrypted says that a layer is encrypted, and that there is nothing to decrypt it.
	ErrEncrypted = errors.New("layer is encrypted")
)

// Form is what Apply makes of a layer.
type Form int

const (
	// Flat puts the layer over what is in the directory: whiteouts remove what lower layers put there.
	Flat Form = iota
	// Overlay makes the directory one lowerdir of an overlay mount: whiteouts become 0:0 character devices, opaque
	// directories have trusted.overlay.opaque. The directory must be empty at first.
	Overlay
	// OverlayUser is Overlay for mounts with the option userxattr, as they are made in a user namespace (Linux 5.11).
	OverlayUser
)

// opaque is the extended attribute that marks an opaque directory.
func (f Form) opaque() string {
	if f == OverlayUser {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

// Devices says what becomes of block and character devices. FIFOs are not among them.
type Devices int

const (
	DevicesRefuse      Devices = iota // the layer is refused with ErrDevice
	DevicesCreate                     // they are made, which takes CAP_MKNOD
	DevicesPlaceholder                // an empty file is made in their place, for lack of CAP_MKNOD
)

// Limits bound what a layer may take. A zero field stands for its default.
type Limits struct {
	Entries   int   // default 4 Mi
	SizeBytes int64 // of the uncompressed archive; default 128 GiB
	Ratio     int64 // of uncompressed to compressed, once more than 256 MiB have been uncompressed; default 500
	MetaBytes int   // of one extended header; default 1 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 4 << 20
	}
	if l.SizeBytes <= 0 {
		l.SizeBytes = 128 << 30
	}
	if l.Ratio <= 0 {
		l.Ratio = 500
	}
	return l
}

// ratioFloorBytes is how much may be uncompressed before the ratio counts: small archives compress in odd ways.
const ratioFloorBytes = 256 << 20

// Options are how a layer is applied. The zero value applies a layer flat, with the owners it names and without devices.
type Options struct {
	Name      string        // what error messages call the blob: its digest, say
	MediaType string        // as the descriptor has it; may be empty. Content decides how to decompress, this may only refuse.
	DiffID    digest.Digest // what the uncompressed archive must hash to; empty to accept any
	Form      Form
	Devices   Devices
	Limits    Limits

	// MapID turns the owner that an entry names into the one it gets; nil leaves it as it is.
	MapID func(uid, gid uint32) (mappedUID, mappedGID uint32, err error)
	// KeepOwners gives each file that the layer does not say to be root's the extended attribute OwnerXattr. With a MapID
	// that makes everything ours, this is how a layer is applied without privileges.
	KeepOwners bool

	// KeepDirlinks has a directory entry for what is a symbolic link to a directory, in a flat tree, leave both as they
	// are, instead of putting a directory in the link's place: what the layer has in the directory goes through the link.
	KeepDirlinks bool

	// Dropped, if set, is told of each extended attribute that was left out, because the file system or our privileges
	// do not allow it, or because it would speak to overlayfs or the host's security modules.
	Dropped func(entry, xattr string, cause error)
}

// Result is what Apply found.
type Result struct {
	DiffID         digest.Digest // of the uncompressed archive
	Entries        int
	SizeBytes      int64 // of the uncompressed archive
	BlobBytes      int64 // of the blob as it was read
	OpaqueRoot     bool  // Overlay: the layer hides all that is below it, which overlayfs has no mark for at the root
	Pending        Pending
	DroppedXattrs  int
	WhiteoutsTaken int
}

// Pending is what a layer that was applied alone leaves to be looked up in the layers below it: see Complete.
type Pending struct {
	Dirs      []string   // directories the layer has entries in, but does not describe
	Whiteouts []string   // overlayfs's whiteouts
	Links     []HardLink // hard links to files that the layer does not have
}

// HardLink is a name for a file that has another one already.
type HardLink struct {
	Name, Target string
}
