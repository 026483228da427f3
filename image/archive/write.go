package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/internal/newfile"
)

// WriteOptions say how to write an archive.
type WriteOptions struct {
	Form Form // OCI or Docker
	// Compression of the archive as a whole; layers keep theirs.
	Compression image.Compression
	// SpoolDir is for what has to be put aside when an archive is written to a
	// pipe; default as in Options.
	SpoolDir string
}

// Writer writes an archive. Its methods, but for Commit and Close, may be
// called concurrently.
type Writer struct {
	name string
	opts WriteOptions
	out  *File          // nil where the file is somebody else's
	file *newfile.File  // nil where it goes to a pipe
	zip  io.WriteCloser // nil if the archive is not compressed

	mu     sync.Mutex
	w      io.Writer // the top of these
	offset int64     // of what comes next, uncompressed
	have   map[string]int64
	names  []v1.Descriptor // index.json
	images []savedImage    // manifest.json
	err    error           // that has made the archive unusable
}

// Create begins an archive at path, which appears at Commit and then takes the
// place of a file that is there. What is there and is no regular file, such as a
// FIFO, is written to as the archive comes.
func Create(path string, o WriteOptions) (*Writer, error) {
	f, err := NewFile(path)
	if err != nil {
		return nil, fmt.Errorf("create archive %s: %w", path, err)
	}
	w := &Writer{name: path, opts: o, out: f, file: f.file}
	return w.begin(f)
}

// CreateOn is Create for an open file or pipe, which stays its owner's; name is
// what messages call it.
func CreateOn(name string, pipe *os.File, o WriteOptions) (*Writer, error) {
	w := &Writer{name: name, opts: o}
	return w.begin(pipe)
}

// File is a file to be written that appears at Commit; if its path is that of a
// FIFO, a device or an open file of ours (/dev/stdout), it is written to as it
// comes.
type File struct {
	io.Writer
	file *newfile.File // or
	pipe *os.File
}

// NewFile prepares to write a file. A symbolic link stays; what it leads to is
// written.
func NewFile(path string) (*File, error) {
	path, opened, err := follow(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return nil, errors.New("is a directory")
	case opened || err == nil && !st.Mode().IsRegular():
		pipe, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		return &File{pipe, nil, pipe}, err
	}
	file, err := newfile.Create(path, 0o644)
	return &File{file, file, nil}, err
}

// follow finds what symbolic links lead to. A link among those of a process's
// open files, as /dev/stdout leads to, is no name that a file could be given.
func follow(path string) (target string, opened bool, err error) {
	const maxLinks = 40
	path = filepath.Clean(path)
	for range maxLinks {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", false, err
		}
		path = filepath.Join(dir, filepath.Base(path))
		to, err := os.Readlink(path)
		switch {
		case err != nil: // no link, or nothing at all yet
			return path, false, nil
		case strings.HasPrefix(dir, "/proc/") && filepath.Base(dir) == "fd":
			return path, true, nil
		case !filepath.IsAbs(to):
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", false, &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}

// Commit gives the file its name.
func (f *File) Commit() error {
	if f.file == nil {
		return nil
	}
	return f.file.Commit()
}

// Close ends the writing. Without a Commit before it, there was never a file.
func (f *File) Close() error {
	if f.file == nil {
		return f.pipe.Close()
	}
	return f.file.Close()
}

func (w *Writer) begin(to io.Writer) (*Writer, error) {
	w.have, w.images, w.w = map[string]int64{}, []savedImage{}, to
	var err error
	switch w.opts.Compression {
	case image.Gzip:
		w.zip = gzip.NewWriter(w.w)
	case image.Zstd:
		if w.zip, err = zstd.NewWriter(w.w); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	if w.zip != nil {
		w.w = w.zip
	}
	return w, nil
}

// header is the header of a member, of the same length for every size.
func header(name string, sizeBytes int64) ([]byte, error) {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: sizeBytes, Format: tar.FormatGNU}
	err := tar.NewWriter(&b).WriteHeader(h)
	return b.Bytes(), err
}

const blockBytes = 512

func padding(sizeBytes int64) []byte { return make([]byte, -sizeBytes&(blockBytes-1)) }

// put writes to the archive. An archive in which a write has failed is lost.
func (w *Writer) put(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	w.offset += int64(n)
	w.err = err
	return n, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// add writes a member whose content is known.
func (w *Writer) add(name string, data []byte) error {
	return w.copy(name, int64(len(data)), bytes.NewReader(data))
}

// copy writes a member, unless it is there, of exactly so many bytes. If r
// fails before them, the archive is lost.
func (w *Writer) copy(name string, sizeBytes int64, r io.Reader) error {
	if _, ok := w.have[name]; ok {
		return nil
	}
	h, err := header(name, sizeBytes)
	if err == nil {
		_, err = w.put(h)
	}
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(writerFunc(w.put), onlyReader{r}, make([]byte, copyBytes))
	if err == nil && n != sizeBytes {
		err = fmt.Errorf("%w: %d of %d bytes", io.ErrUnexpectedEOF, n, sizeBytes)
	}
	if err == nil {
		_, err = w.put(padding(sizeBytes))
	}
	if err != nil {
		w.err = fmt.Errorf("member %s: %w", name, err)
		return err
	}
	w.have[name] = sizeBytes
	return nil
}

// seekable says whether what was written can still be changed.
func (w *Writer) seekable() bool { return w.file != nil && w.zip == nil }

// stream writes a member whose size shows only at the end, from r, and returns it.
func (w *Writer) stream(name string, r io.Reader) (sizeBytes int64, err error) {
	if !w.seekable() {
		return w.spool(name, r)
	}
	start := w.offset
	h, err := header(name, 0)
	if err == nil {
		_, err = w.put(h)
	}
	if err != nil {
		return 0, err
	}
	sizeBytes, err = io.CopyBuffer(writerFunc(w.put), onlyReader{r}, make([]byte, copyBytes))
	if err == nil {
		_, err = w.put(padding(sizeBytes))
	}
	if err == nil {
		if h, err = header(name, sizeBytes); err == nil {
			_, err = w.file.WriteAt(h, start)
		}
	}
	if err != nil {
		// Nothing is lost: who comes next writes over it.
		w.err = errors.Join(w.err, w.rewind(start))
		return 0, err
	}
	w.have[name] = sizeBytes
	return sizeBytes, nil
}

func (w *Writer) rewind(offset int64) error {
	_, err := w.file.Seek(offset, io.SeekStart)
	if err == nil {
		err = w.file.Truncate(offset)
	}
	w.offset = offset
	return err
}

// spool is stream by way of an unnamed file.
func (w *Writer) spool(name string, r io.Reader) (sizeBytes int64, err error) {
	f, err := newfile.Unnamed(Options{SpoolDir: w.opts.SpoolDir}.withDefaults().SpoolDir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sizeBytes, err = io.CopyBuffer(f, onlyReader{r}, make([]byte, copyBytes))
	if err != nil {
		return 0, fmt.Errorf("put aside: %w", err)
	}
	return sizeBytes, w.copy(name, sizeBytes, io.NewSectionReader(f, 0, sizeBytes))
}

// hasBlob and the like are of Destination, which is a Writer and a name.
func (w *Writer) hasBlob(desc v1.Descriptor) (bool, error) {
	if err := image.CheckDescriptor(desc); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	sizeBytes, ok := w.have[blobName(desc.Digest)]
	return ok && sizeBytes == desc.Size, nil
}

func (w *Writer) putBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	if err := image.CheckDescriptor(desc); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := blobName(desc.Digest)
	if _, ok := w.have[name]; ok {
		return nil
	}
	r, err := open(0)
	if err != nil {
		return err
	}
	defer r.Close()
	v, err := image.VerifyReader(&contextReader{ctx, r}, desc)
	if err != nil {
		return err
	}
	if !w.seekable() {
		return w.copy(name, desc.Size, v)
	}
	_, err = w.stream(name, v)
	return err
}

func (w *Writer) putDocument(desc v1.Descriptor, data []byte) error {
	if err := image.CheckContent(desc, data); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.add(blobName(desc.Digest), data)
}

// Commit writes what leads to the images, and gives the archive its name.
func (w *Writer) Commit(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = w.finish()
	}
	if err == nil && w.out != nil {
		err = w.out.Commit()
	}
	if err != nil {
		return fmt.Errorf("write archive %s: %w", w.name, err)
	}
	return nil
}

func (w *Writer) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: w.names}
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{}
	}
	documents := []struct {
		name  string
		value any
	}{{v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}}, {v1.ImageIndexFile, index}, {dockerManifestFile, w.images}}
	if w.opts.Form != Docker {
		documents = documents[:2]
	}
	for _, d := range documents {
		data, err := json.Marshal(d.value)
		if err != nil {
			return err
		}
		if err := w.add(d.name, data); err != nil {
			return err
		}
	}
	if _, err := w.put(make([]byte, 2*blockBytes)); err != nil {
		return err
	}
	if w.zip != nil {
		err := w.zip.Close()
		w.zip = nil
		return err
	}
	return nil
}

// Close ends the writing. Without a Commit before it, there was never an archive.
func (w *Writer) Close() error {
	if w.out == nil {
		return nil
	}
	return w.out.Close()
}

// addName makes an entry of index.json.
func (w *Writer) addName(desc v1.Descriptor, annotations map[string]string) {
	desc.Annotations = maps.Clone(desc.Annotations)
	for key, value := range annotations {
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		desc.Annotations[key] = value
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := desc.Annotations[v1.AnnotationRefName]
	w.names = slices.DeleteFunc(w.names, func(d v1.Descriptor) bool {
		return d.Annotations[v1.AnnotationRefName] == name && (name != "" || d.Digest == desc.Digest)
	})
	w.names = append(w.names, desc)
}

// savedImage is a dockerImage to be written; RepoTags is null for none, as
// docker save has it.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
	digest   digest.Digest
}
