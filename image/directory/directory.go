// Package directory reads and writes the form dir: of skopeo and podman: the
// documents and blobs of one image or index (Image Spec 1.1.1, manifest.md,
// image-index.md) as files of one directory.
//
//	DIR/version             "Directory Transport Version: 1.1"
//	DIR/manifest.json       the manifest or the index
//	DIR/HEX.manifest.json   a manifest that the index lists
//	DIR/HEX                 a config or a layer
//
// Names come from digests alone. The manifest comes last, and takes its place
// in one step, so DIR has the old image, or none, until it has the new one.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/internal/newfile"
)

const (
	versionFile    = "version"
	versionPrefix  = "Directory Transport Version: "
	version        = versionPrefix + "1.1\n"
	manifestFile   = "manifest.json"
	manifestSuffix = ".manifest.json"
)

// Is says whether dir is a directory of this form.
func Is(dir string) bool {
	f, err := os.OpenFile(dir+"/"+versionFile, os.O_RDONLY|syscall.O_NONBLOCK, 0) // which could be anything
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(versionPrefix))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == versionPrefix
}

// fileName is where a blob or document is. The digest has been checked.
func fileName(desc v1.Descriptor) string {
	if kind := image.KindOf(desc); kind == image.KindManifest || kind == image.KindIndex {
		return desc.Digest.Encoded() + manifestSuffix
	}
	return desc.Digest.Encoded()
}

// Source is what is in a directory: a transfer.Source.
type Source struct {
	dir  string
	root v1.Descriptor
	data []byte // of root
	os   *os.Root
}

// Open opens a directory to be copied from.
func Open(dir string) (*Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open image directory %s: %w", dir, err)
	}
	s := &Source{dir: dir, os: root}
	if err := s.readManifest(); err != nil {
		return nil, errors.Join(fmt.Errorf("open image directory %s: %w", dir, err), root.Close())
	}
	return s, nil
}

func (s *Source) readManifest() error {
	f, sizeBytes, err := s.open(manifestFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if sizeBytes > image.MaxDocumentBytes {
		return fmt.Errorf("%s: %d bytes, more than the %d that a document may have", manifestFile, sizeBytes, image.MaxDocumentBytes)
	}
	if s.data, err = io.ReadAll(io.LimitReader(f, sizeBytes)); err != nil {
		return err
	}
	mediaType, err := image.DetectMediaType(s.data)
	if err != nil {
		return fmt.Errorf("%s: %w", manifestFile, err)
	}
	s.root = v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(s.data), Size: int64(len(s.data))}
	return nil
}

// open opens a file; nothing but a regular one, and none that is elsewhere.
func (s *Source) open(name string) (*os.File, int64, error) {
	f, err := s.os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// Root is the manifest or index.
func (s *Source) Root() v1.Descriptor { return s.root }

// Fetch reads a document, checked against desc.
func (s *Source) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Digest == s.root.Digest {
		return s.data, nil
	}
	if desc.Size > image.MaxDocumentBytes {
		return nil, s.blobError(desc, fmt.Errorf("%d bytes, more than the %d that a document may have", desc.Size, image.MaxDocumentBytes))
	}
	r, err := s.Blob(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, desc.Size))
	if err == nil {
		err = image.CheckContent(desc, data)
	}
	if err != nil {
		return nil, s.blobError(desc, err)
	}
	return data, nil
}

// Blob opens a blob from offset on.
func (s *Source) Blob(_ context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := image.CheckDigest(desc.Digest); err != nil {
		return nil, err
	}
	f, sizeBytes, err := s.open(fileName(desc))
	if err != nil {
		return nil, s.blobError(desc, err)
	}
	if sizeBytes != desc.Size {
		err = fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, sizeBytes, desc.Size)
	} else {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, s.blobError(desc, errors.Join(err, f.Close()))
	}
	return f, nil
}

func (s *Source) blobError(desc v1.Descriptor, err error) error {
	return fmt.Errorf("image directory %s: blob %s: %w", s.dir, desc.Digest, err)
}

// Close gives the directory up.
func (s *Source) Close() error { return s.os.Close() }

// Destination is a directory to copy to: a transfer.Destination.
type Destination struct {
	dir  string
	os   *os.Root
	root []byte          // manifest.json, at Commit
	put  map[string]bool // files that belong to it
	mu   sync.Mutex      // of put
}

// Create prepares a directory, which must be a new one, an empty one, or one of
// this form, whose image is then replaced.
func Create(dir string) (*Destination, error) {
	d, err := create(dir)
	if err != nil {
		return nil, fmt.Errorf("create image directory %s: %w", dir, err)
	}
	return d, nil
}

func create(dir string) (*Destination, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d := &Destination{dir: dir, os: root, put: map[string]bool{versionFile: true, manifestFile: true}}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 && !Is(dir) {
		err = fmt.Errorf("neither empty nor an image directory: it has %q", entries[0].Name())
	}
	if err == nil && !Is(dir) { // this makes it ours; without a manifest it is no image yet
		err = d.write(versionFile, []byte(version))
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// write makes or replaces a file at one stroke.
func (d *Destination) write(name string, data []byte) error {
	f, err := newfile.Create(d.dir+"/"+name, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Commit()
	}
	return errors.Join(err, f.Close())
}

// keep notes that a file belongs to the image.
func (d *Destination) keep(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put[name] = true
}

// HasBlob says whether the directory has a blob.
func (d *Destination) HasBlob(_ context.Context, desc v1.Descriptor) (bool, error) {
	if err := image.CheckDescriptor(desc); err != nil {
		return false, err
	}
	st, err := d.os.Lstat(fileName(desc))
	if err != nil || !st.Mode().IsRegular() || st.Size() != desc.Size {
		return false, nil
	}
	d.keep(fileName(desc))
	return true, nil
}

// PutBlob writes a blob, which appears when it is whole and verified.
func (d *Destination) PutBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	err := image.CheckDescriptor(desc)
	if err == nil {
		err = d.putBlob(ctx, desc, open)
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", d.dir, err)
	}
	d.keep(fileName(desc))
	return nil
}

func (d *Destination) putBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	r, err := open(0)
	if err != nil {
		return err
	}
	defer r.Close()
	v, err := image.VerifyReader(r, desc)
	if err != nil {
		return err
	}
	f, err := newfile.Create(d.dir+"/"+fileName(desc), 0o644)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, v, make([]byte, 1<<20))
	if err == nil {
		err = f.Commit()
	}
	return errors.Join(err, f.Close())
}

// PutManifest writes a manifest or an index that the index lists.
func (d *Destination) PutManifest(_ context.Context, desc v1.Descriptor, data []byte) error {
	if err := image.CheckContent(desc, data); err != nil {
		return err
	}
	d.keep(fileName(desc))
	return d.write(fileName(desc), data)
}

// PutRoot takes the manifest or index of the directory.
func (d *Destination) PutRoot(_ context.Context, desc v1.Descriptor, data []byte) error {
	if !strings.HasPrefix(string(desc.Digest), "sha256:") {
		return fmt.Errorf("write to %s: the form has no place for the digest %s, only for sha256", d.dir, desc.Digest)
	}
	d.root = data
	return image.CheckContent(desc, data)
}

// Commit puts the manifest in its place and removes what belonged to another
// image.
func (d *Destination) Commit(ctx context.Context) error {
	if d.root == nil {
		return fmt.Errorf("write to %s: no manifest", d.dir)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.write(manifestFile, d.root); err != nil {
		return err
	}
	if err := d.write(versionFile, []byte(version)); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.dir)
	for _, e := range entries {
		if hex, _ := strings.CutSuffix(e.Name(), manifestSuffix); !d.put[e.Name()] && isDigest(hex) {
			err = errors.Join(err, d.os.Remove(e.Name()))
		}
	}
	return err
}

func isDigest(hex string) bool {
	return image.CheckDigest(digest.Digest("sha256:"+hex)) == nil || image.CheckDigest(digest.Digest("sha512:"+hex)) == nil
}

// Close gives the directory up.
func (d *Destination) Close() error { return d.os.Close() }
