package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	blobsDir   = v1.ImageBlobsDir
	indexFile  = v1.ImageIndexFile
	headerFile = v1.ImageLayoutFile

	privateDir = ".tare"
	leaseFile  = privateDir + "/lease.lock"
	lockFile   = privateDir + "/index.lock"
	tempFile   = privateDir + "/new" // written under lockFile, then renamed
	partialDir = privateDir + "/partial"

	maxHeaderBytes = 64 << 10
	// maxIndexBytes is above image.MaxDocumentBytes because index.json is ours
	// and has an entry of some 300 bytes for every image of the store.
	maxIndexBytes = 64 << 20
)

// ErrReadOnly is in the chain of errors from changing a store opened read-only.
var ErrReadOnly = errors.New("layout is opened read-only")

// ErrNoLayout is a directory that is no layout, or not yet one.
var ErrNoLayout = errors.New("not an image layout: it has no file " + headerFile)

// Options say how to open a layout.
type Options struct {
	Create   bool // make the layout where there is none: in a new or an empty directory
	ReadOnly bool // take no locks and write nothing: for layouts of others, on media of any kind
	NoSync   bool // leave it to the kernel when blobs and names reach the disk: faster, still safe against kill, not against power loss
}

// Store is an image layout. Its methods may be called concurrently.
type Store struct {
	dir  string
	root *os.Root
	opts Options
}

// Open opens the layout in dir.
func Open(dir string, opts Options) (*Store, error) {
	s, err := open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open image layout %s: %w", dir, plain(err))
	}
	return s, nil
}

func open(dir string, opts Options) (*Store, error) {
	if opts.Create && opts.ReadOnly {
		return nil, ErrReadOnly
	}
	if opts.Create {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, root: root, opts: opts}
	err = s.readHeader()
	if errors.Is(err, fs.ErrNotExist) {
		if err = ErrNoLayout; opts.Create {
			err = s.create()
		}
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// create makes the layout. Oci-layout, which makes it one, comes last; a
// creator that was killed has left a directory with nothing but ours in it.
func (s *Store) create() error {
	if err := s.checkEmpty(); err != nil {
		return err
	}
	unlock, err := s.lock(context.Background(), lockFile, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.root.MkdirAll(blobsDir, 0o755); err != nil {
		return err
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, v1.MediaTypeImageIndex)
	header := fmt.Sprintf(`{"imageLayoutVersion":%q}`, v1.ImageLayoutVersion)
	for _, f := range []struct{ name, text string }{{indexFile, index}, {headerFile, header}} {
		if _, err := s.root.Lstat(f.name); errors.Is(err, fs.ErrNotExist) {
			if err := s.replace(f.name, []byte(f.text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEmpty keeps a store from being made in a directory with other things.
func (s *Store) checkEmpty() error {
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(8)
	if err != nil && err != io.EOF {
		return err
	}
	for _, n := range names {
		switch n {
		case privateDir, blobsDir, indexFile, headerFile, "lost+found":
		default:
			return fmt.Errorf("neither an image layout nor empty: it has %q", n)
		}
	}
	return nil
}

func (s *Store) readHeader() error {
	data, err := s.readFile(headerFile, maxHeaderBytes)
	if err != nil {
		return err
	}
	return CheckHeader(data)
}

// CheckHeader says whether oci-layout is that of a layout we know.
func CheckHeader(data []byte) error {
	var h v1.ImageLayout
	if err := json.Unmarshal(data, &h); err != nil {
		return fmt.Errorf("%s: %w", headerFile, err)
	}
	if h.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%s: imageLayoutVersion: %q, want %q", headerFile, h.Version, v1.ImageLayoutVersion)
	}
	return nil
}

// Dir is the directory that the store was opened with.
func (s *Store) Dir() string { return s.dir }

// Close gives up the store. Sessions and blobs opened from it stay usable.
func (s *Store) Close() error { return s.root.Close() }

// SplitName splits DIR:NAME as other tools do, at the first colon.
func SplitName(s string) (dir, name string) {
	dir, name, _ = strings.Cut(s, ":")
	return dir, name
}

// openRegular opens a file for reading. A layout from elsewhere may hold
// anything under any name; a FIFO must not make us wait.
func (s *Store) openRegular(name string) (*os.File, os.FileInfo, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

func (s *Store) readFile(name string, maxBytes int64) ([]byte, error) {
	f, st, err := s.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > maxBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", name, st.Size(), maxBytes)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// replace gives a file new content at one stroke. The caller holds lockFile.
func (s *Store) replace(name string, data []byte) error {
	// What a killed process has left goes; so does what in a layout from elsewhere
	// leads to another file, or is none.
	if err := s.remove(tempFile); err != nil {
		return err
	}
	f, err := s.root.OpenFile(tempFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = s.sync(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.root.Rename(tempFile, name)
	}
	if err != nil {
		return errors.Join(err, s.remove(tempFile))
	}
	return s.syncDir(filepath.Dir(name))
}

func (s *Store) sync(f *os.File) error {
	if s.opts.NoSync {
		return nil
	}
	return f.Sync()
}

// send has the kernel begin to write a part of a file that sync will wait for: the
// disk is idle else while a large blob arrives, and the blob's end waits for all of it.
func (s *Store) send(f *os.File, from, to int64) {
	if !s.opts.NoSync {
		// A hint: what is wrong with the disk, sync tells.
		unix.SyncFileRange(int(f.Fd()), from, to-from, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// syncDir makes a rename in a directory last.
func (s *Store) syncDir(name string) error {
	if s.opts.NoSync {
		return nil
	}
	d, err := s.root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (s *Store) remove(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// plain takes the path out of an error whose context names the thing better.
func plain(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && error(pathErr) == err {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) && error(linkErr) == err {
		return linkErr.Err
	}
	return err
}
