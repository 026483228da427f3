package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
)

// Composed is a Source of what is new, an image that is being made, over others
// that it is made of. What is new is kept in memory, if it is a document, or in
// files without a name, which are gone with this process whatever happens to it.
// It is also a mutate.Store.
type Composed struct {
	dir     string // for files
	mu      sync.Mutex
	sources []Source
	root    v1.Descriptor
	docs    map[digest.Digest][]byte
	blobs   map[digest.Digest]*os.File
}

// Compose begins with nothing new. New blobs are kept in dir; it has to have
// room for them.
func Compose(dir string, sources ...Source) *Composed {
	return &Composed{dir: dir, sources: sources, docs: map[digest.Digest][]byte{}, blobs: map[digest.Digest]*os.File{}}
}

// Add takes one more source, which Close closes.
func (c *Composed) Add(s Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources = append(c.sources, s)
}

// Sources are those that it is made of.
func (c *Composed) Sources() []Source {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sources)
}

// SetRoot says what Root is from now on.
func (c *Composed) SetRoot(desc v1.Descriptor) { c.root = desc }

// Root implements Source.
func (c *Composed) Root() v1.Descriptor { return c.root }

// Put keeps a document.
func (c *Composed) Put(_ context.Context, mediaType string, data []byte) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.docs[desc.Digest] = slices.Clone(data)
	return desc, nil
}

// Fetch implements Source.
func (c *Composed) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	c.mu.Lock()
	data, ok := c.docs[desc.Digest]
	c.mu.Unlock()
	if ok {
		return data, nil
	}
	return first(c, desc, func(s Source) ([]byte, error) { return s.Fetch(ctx, desc) })
}

// first asks the sources in their order until one has it.
func first[T any](c *Composed, desc v1.Descriptor, get func(Source) (T, error)) (found T, err error) {
	err = fmt.Errorf("%s %s: %w", image.KindOf(desc), desc.Digest, fs.ErrNotExist)
	for _, s := range c.Sources() {
		if found, err = get(s); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
	}
	return found, err
}

// Blob implements Source.
func (c *Composed) Blob(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	c.mu.Lock()
	data, isDoc := c.docs[desc.Digest]
	file := c.blobs[desc.Digest]
	c.mu.Unlock()
	switch {
	case offset < 0 || offset > desc.Size:
		return nil, fmt.Errorf("blob %s: offset %d of %d bytes", desc.Digest, offset, desc.Size)
	case isDoc && int64(len(data)) == desc.Size:
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	case file != nil:
		return io.NopCloser(io.NewSectionReader(file, offset, desc.Size-offset)), nil
	}
	return first(c, desc, func(s Source) (io.ReadCloser, error) { return s.Blob(ctx, desc, offset) })
}

// Write keeps a new blob: make writes it, and says what it has written.
func (c *Composed) Write(make func(io.Writer) (v1.Descriptor, error)) (v1.Descriptor, error) {
	f, err := UnnamedFile(c.dir)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("new blob: %w", err)
	}
	desc, err := make(f)
	if err != nil {
		return v1.Descriptor{}, errors.Join(err, f.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.blobs[desc.Digest]; old != nil {
		return desc, f.Close()
	}
	c.blobs[desc.Digest] = f
	return desc, nil
}

// UnnamedFile makes a file in dir that no directory shows: it is gone when it is
// closed, or with this process.
func UnnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.ENOENT { // file systems, and kernels, without O_TMPFILE
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, ".tare-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// Close closes the sources and drops what is new.
func (c *Composed) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, s := range c.sources {
		errs = append(errs, s.Close())
	}
	for f := range maps.Values(c.blobs) {
		errs = append(errs, f.Close())
	}
	c.sources, c.blobs = nil, nil
	return errors.Join(errs...)
}
