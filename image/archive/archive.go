package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

// Form is which of the two forms an archive is read or written in.
type Form uint8

const (
	Any    Form = iota // to read: OCI where an archive is both
	OCI                // an image layout
	Docker             // what docker save writes
)

// maxIndexBytes bounds index.json, manifest.json and repositories.
const maxIndexBytes = 16 << 20

// Archive is an archive to be read. Its methods may be called concurrently.
type Archive struct {
	members *members
	names   []layout.Name
	made    map[digest.Digest][]byte // documents that a docker archive does not have
	blobs   map[digest.Digest]member // by digest, in a docker archive
	oci     bool

	madeBytes int
	hashes    map[int64]digest.Digest // of members that were read, by their offsets
}

// Open opens the archive at path.
func Open(ctx context.Context, path string, form Form, o Options) (*Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return Read(ctx, path, f, form, o)
}

// Read is Open for an open file or pipe, which is the archive's from then on;
// name is what messages call it.
func Read(ctx context.Context, name string, file *os.File, form Form, o Options) (*Archive, error) {
	m, err := openMembers(ctx, name, file, o)
	if err != nil {
		return nil, err
	}
	a := &Archive{members: m}
	switch isOCI := m.has(v1.ImageLayoutFile); {
	case form == Docker || form == Any && !isOCI:
		err = a.readDocker(ctx)
	default:
		err = a.readOCI()
	}
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return a, nil
}

// readOCI reads the names of an image layout.
func (a *Archive) readOCI() error {
	a.oci = true
	header, err := a.members.read(v1.ImageLayoutFile, maxIndexBytes)
	if err == nil {
		err = layout.CheckHeader(header)
	}
	if err != nil {
		return a.in(err)
	}
	data, err := a.members.read(v1.ImageIndexFile, maxIndexBytes)
	if err != nil {
		return err
	}
	a.names, err = layout.DecodeNames(data)
	return a.in(err)
}

// in says which archive an error is about, unless it does itself.
func (a *Archive) in(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("archive %s: %w", a.members.name, err)
}

// Names lists what is in the archive, in its order. Something with several
// names is there several times, something without one once.
func (a *Archive) Names() []layout.Name { return a.names }

// IsAt says whether the archive is an OCI archive and was read from the file at
// path.
func (a *Archive) IsAt(path string) bool {
	mine, err := os.Stat(a.members.name)
	other, oerr := os.Stat(path)
	return a.oci && err == nil && oerr == nil && os.SameFile(mine, other)
}

// Close closes the archive's file.
func (a *Archive) Close() error { return a.members.file.Close() }

// locate finds a blob.
func (a *Archive) locate(desc v1.Descriptor) (member, error) {
	if err := image.CheckDigest(desc.Digest); err != nil {
		return member{}, a.in(err)
	}
	if !a.oci {
		found, ok := a.blobs[desc.Digest]
		if !ok {
			return member{}, a.in(fmt.Errorf("blob %s: %w", desc.Digest, fs.ErrNotExist))
		}
		return found, nil
	}
	name := blobName(desc.Digest)
	found, err := a.members.find(name)
	if err == nil && found.sizeBytes != desc.Size {
		err = a.members.memberError(name, fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, found.sizeBytes, desc.Size))
	}
	return found, err
}

// blobName is the member that holds a blob in a layout. The digest was checked.
func blobName(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + string(d.Algorithm()) + "/" + d.Encoded()
}

// Source is something in an archive, to be copied from there: a
// transfer.Source.
type Source struct {
	*Archive
	root  v1.Descriptor
	close func() error
}

// Source opens what desc describes, which is one of Names. Closing it closes the
// archive too if owned says so.
func (a *Archive) Source(desc v1.Descriptor, owned bool) *Source {
	s := &Source{a, desc, func() error { return nil }}
	if owned {
		s.close = a.Close
	}
	return s
}

// Root is what the source was opened for.
func (s *Source) Root() v1.Descriptor { return s.root }

// Fetch reads a document, checked against desc.
func (s *Source) Fetch(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	if data, ok := s.made[desc.Digest]; ok {
		return data, nil
	}
	if desc.Size > image.MaxDocumentBytes {
		return nil, s.in(fmt.Errorf("%s %s: %d bytes, more than the %d that a document may have",
			image.KindOf(desc), desc.Digest, desc.Size, image.MaxDocumentBytes))
	}
	found, err := s.locate(desc)
	if err != nil {
		return nil, err
	}
	data := make([]byte, found.sizeBytes)
	if _, err := s.members.file.ReadAt(data, found.offset); err != nil {
		return nil, s.in(fmt.Errorf("blob %s: %w", desc.Digest, err))
	}
	if err := image.CheckContent(desc, data); err != nil {
		return nil, s.in(fmt.Errorf("blob %s: %w", desc.Digest, err))
	}
	return data, nil
}

// Blob opens a blob from offset on.
func (s *Source) Blob(_ context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if data, ok := s.made[desc.Digest]; ok && offset >= 0 && offset <= int64(len(data)) {
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	}
	found, err := s.locate(desc)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > found.sizeBytes {
		return nil, s.in(fmt.Errorf("blob %s: offset %d of %d bytes", desc.Digest, offset, found.sizeBytes))
	}
	return s.members.open(found, offset), nil
}

// Close closes what the source was opened with.
func (s *Source) Close() error { return s.close() }
