// Package fs keeps a registry's objects in files below one directory, an
// object's key being its path. Implements storage.Objects.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options configure a driver.
type Options struct {
	// NoSync leaves it to the kernel when bytes reach the disk: faster, and a
	// power cut may lose what was acknowledged.
	NoSync bool
}

// Objects is the driver. Besides the objects its directory has three of its own:
// "streams", "locks", and "new" for files that are renamed once they are whole.
type Objects struct {
	root    string
	opts    Options
	buffers sync.Pool
	syncs   syncs
	small   small
}

var _ storage.Objects = (*Objects)(nil)

const (
	streamDir   = "streams"
	newDir      = "new"
	bufferBytes = 256 << 10
)

// New opens the directory root, and makes it if need be.
func New(root string, opts Options) (*Objects, error) {
	o := &Objects{root: root, opts: opts}
	o.small.MaxBytes = maxGenerationBytes
	o.buffers.New = func() any { return new([bufferBytes]byte) }
	for _, dir := range []string{streamDir, newDir, lockDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open storage: %w", err)
		}
	}
	return o, nil
}

// Check implements storage.Objects: the directory has not gone, nor become
// read-only.
func (o *Objects) Check(context.Context) error {
	const readWrite = 0x6 // access(2): R_OK|W_OK
	dir := filepath.Join(o.root, newDir)
	if err := syscall.Access(dir, readWrite); err != nil {
		return &os.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// path is the file of a key. The check costs little and holds whatever a
// caller forgot.
func (o *Objects) path(key string) (string, error) {
	if !iofs.ValidPath(key) || key == "." {
		return "", fmt.Errorf("bad key %q", key)
	}
	return o.root + "/" + key, nil
}

// translate gives the errors of the contract their names.
func translate(err error) error {
	switch {
	case errors.Is(err, iofs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: %w", storage.ErrNotExist, err)
	case errors.Is(err, iofs.ErrExist):
		return fmt.Errorf("%w: %w", storage.ErrExist, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", storage.ErrNoSpace, err)
	}
	return err
}

// Get implements storage.Objects.
func (o *Objects) Get(_ context.Context, key string, limit int64) ([]byte, error) {
	path, err := o.path(key)
	if err != nil {
		return nil, err
	}
	file, err := identify(path)
	if err == syscall.ENOENT {
		return nil, translate(&os.PathError{Op: "open", Path: path, Err: err})
	}
	if err == nil && int64(file.sizeBytes) <= limit {
		if data, ok := o.small.get(path, file); ok {
			return data, nil
		}
	}
	asked := time.Now() // before the file is opened: what changes later is another file
	data, file, err := readFile(path, limit)
	if err != nil {
		return nil, translate(err)
	}
	o.small.put(path, file, data, asked)
	return data, nil
}

// readFile is os.ReadFile with a bound, and without the poller's system calls.
func readFile(path string, limit int64) ([]byte, identity, error) {
	fail := func(op string, err error) ([]byte, identity, error) {
		return nil, identity{}, &os.PathError{Op: op, Path: path, Err: err}
	}
	fd, err := retryInterrupted(func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	})
	if err != nil {
		return fail("open", err)
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return fail("stat", err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fail("open", syscall.ENOENT) // a directory is no object
	}
	if st.Size > limit {
		return fail("read", distribution.ErrTooLarge)
	}
	data := make([]byte, st.Size)
	for n := 0; n < len(data); {
		// Files are replaced, never written in place: the size holds.
		m, err := retryInterrupted(func() (int, error) { return syscall.Read(fd, data[n:]) })
		if err != nil {
			return fail("read", err)
		}
		if m == 0 {
			return fail("read", io.ErrUnexpectedEOF)
		}
		n += m
	}
	return data, identityOf(&st), nil
}

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// Open implements storage.Objects. What it returns is an *os.File, which
// net/http sends with sendfile(2).
func (o *Objects) Open(_ context.Context, key string) (io.ReadSeekCloser, int64, error) {
	path, err := o.path(key)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, translate(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: iofs.ErrNotExist}
	}
	if err != nil {
		f.Close()
		return nil, 0, translate(err)
	}
	return f, info.Size(), nil
}

// Stat implements storage.Objects.
func (o *Objects) Stat(_ context.Context, key string) (storage.Info, error) {
	path, err := o.path(key)
	if err != nil {
		return storage.Info{}, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return storage.Info{}, translate(&os.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return storage.Info{}, translate(&os.PathError{Op: "stat", Path: path, Err: syscall.ENOENT})
	}
	return storage.Info{SizeBytes: st.Size, Modified: time.Unix(st.Mtim.Unix())}, nil
}

// Put implements storage.Objects.
func (o *Objects) Put(ctx context.Context, key string, data []byte) error {
	return o.PutAll(ctx, []storage.Object{{Key: key, Data: data}})
}

// PutAll implements storage.Objects. All bytes are on the disk before the first
// gets its name, so that no crash leaves a name without its bytes.
func (o *Objects) PutAll(_ context.Context, objects []storage.Object) (err error) {
	var temporary []string
	defer func() {
		for _, path := range temporary {
			os.Remove(path)
		}
		err = translate(err)
	}()
	paths := make([]string, len(objects))
	for i, object := range objects {
		if paths[i], err = o.path(object.Key); err != nil {
			return err
		}
		path, err := o.write(object.Data, !o.opts.NoSync)
		if err != nil {
			return err
		}
		temporary = append(temporary, path)
	}
	dirs := map[string]bool{}
	for i := range objects {
		if err := o.place(os.Rename, temporary[0], paths[i], dirs); err != nil {
			return err
		}
		temporary = temporary[1:]
	}
	return o.syncDirs(dirs)
}

// PutScratch implements storage.Objects.
func (o *Objects) PutScratch(_ context.Context, key string, data []byte) error {
	path, err := o.path(key)
	if err != nil {
		return err
	}
	temporary, err := o.write(data, false)
	if err == nil {
		if err = o.place(os.Rename, temporary, path, map[string]bool{}); err != nil {
			os.Remove(temporary)
		}
	}
	return translate(err)
}

// PutNew implements storage.Objects.
func (o *Objects) PutNew(_ context.Context, key string, data []byte) error {
	path, err := o.path(key)
	if err != nil {
		return err
	}
	temporary, err := o.write(data, !o.opts.NoSync)
	if err != nil {
		return translate(err)
	}
	defer os.Remove(temporary)
	dirs := map[string]bool{}
	if err := o.place(os.Link, temporary, path, dirs); err != nil {
		return translate(err)
	}
	return o.syncDirs(dirs)
}

// write makes a temporary file.
func (o *Objects) write(data []byte, sync bool) (path string, err error) {
	f, err := os.CreateTemp(filepath.Join(o.root, newDir), "*")
	if err != nil {
		return "", err
	}
	written, err := f.Write(data)
	if err == nil && written < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return f.Name(), err
}

// Delete implements storage.Objects, and removes directories it left empty.
func (o *Objects) Delete(_ context.Context, key string) error {
	return o.remove(key, !o.opts.NoSync)
}

// DeleteScratch implements storage.Objects.
func (o *Objects) DeleteScratch(_ context.Context, key string) error { return o.remove(key, false) }

func (o *Objects) remove(key string, sync bool) error {
	path, err := o.path(key)
	if err != nil {
		return err
	}
	if err := syscall.Unlink(path); err != nil {
		if err == syscall.EISDIR {
			err = syscall.ENOENT
		}
		return translate(&os.PathError{Op: "delete", Path: path, Err: err})
	}
	dir := filepath.Dir(path)
	if sync {
		err = o.syncs.syncDir(dir)
	}
	o.removeEmpty(dir)
	return err
}

// removeEmpty removes a directory and those above it, as far as they are empty.
func (o *Objects) removeEmpty(dir string) {
	for ; dir != o.root && syscall.Rmdir(dir) == nil; dir = filepath.Dir(dir) {
	}
}

// Move implements storage.Objects.
func (o *Objects) Move(ctx context.Context, from, to string) error {
	if _, err := o.Stat(ctx, from); err != nil {
		return err
	}
	target, err := o.path(to)
	if err != nil {
		return err
	}
	source := o.root + "/" + from
	dirs := map[string]bool{filepath.Dir(source): true}
	if err := o.place(os.Rename, source, target, dirs); err != nil {
		return translate(err)
	}
	err = o.syncDirs(dirs)
	o.removeEmpty(filepath.Dir(source))
	return err
}

// List implements storage.Objects.
func (o *Objects) List(_ context.Context, dir, after string, n int) ([]string, error) {
	path, err := o.path(dir)
	if err != nil {
		return nil, err
	}
	d, err := os.Open(path)
	if err == nil {
		defer d.Close()
		var names []string
		if names, err = d.Readdirnames(-1); err == nil {
			slices.Sort(names)
			i, found := slices.BinarySearch(names, after)
			if found {
				i++
			}
			names = names[i:]
			return names[:min(n, len(names))], nil
		}
	}
	if err = translate(err); errors.Is(err, storage.ErrNotExist) {
		return nil, nil
	}
	return nil, err
}
