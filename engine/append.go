package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/safepath"
)

// append makes layers of tar archives and directories.
func (d *Edit) append(ctx context.Context, _ *image.Image, m Mutation) (mutate.Change, error) {
	var change mutate.Change
	for _, path := range m.Append {
		l, err := d.layerOf(ctx, path, m)
		if err != nil {
			return mutate.Change{}, fmt.Errorf("append %s: %w", path, err)
		}
		l.History = v1.History{CreatedBy: "tare mutate: append " + filepath.Base(path)}
		change.Layers = append(change.Layers, l)
	}
	return change, nil
}

func (d *Edit) layerOf(ctx context.Context, path string, m Mutation) (mutate.Layer, error) {
	st, err := os.Stat(path)
	if err != nil {
		return mutate.Layer{}, err
	}
	if st.IsDir() {
		return d.newLayer(m.Pack, func(w io.Writer) error { return archiveDir(ctx, path, m.Created, tarstream.NewWriter(w)) })
	}
	f, err := os.Open(path)
	if err != nil {
		return mutate.Layer{}, err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return mutate.Layer{}, err
	}
	packed := compressionOf(head[:n])
	if packed != image.Uncompressed && !m.PackGiven {
		return d.keepBlob(ctx, f, path, packed)
	}
	l, err := d.newLayer(m.Pack, func(w io.Writer) error {
		_, err := layer.Archive(ctx, f, layer.Options{Name: path}, w)
		return err
	})
	if err != nil {
		return mutate.Layer{}, err
	}
	blob, err := d.open(ctx, l.Desc)
	if err != nil {
		return mutate.Layer{}, err
	}
	defer blob.Close()
	_, err = layer.Scan(ctx, blob, layer.Options{Name: path, DiffID: l.DiffID}, checkEntry)
	return l, err
}

func compressionOf(head []byte) image.Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return image.Gzip
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return image.Zstd
	}
	return image.Uncompressed
}

// keepBlob takes a compressed archive just as it is.
func (d *Edit) keepBlob(ctx context.Context, f io.Reader, path string, packed image.Compression) (mutate.Layer, error) {
	var l mutate.Layer
	desc, err := d.Write(func(w io.Writer) (v1.Descriptor, error) {
		sum := digest.Canonical.Digester()
		count := &counter{}
		r := io.TeeReader(f, io.MultiWriter(w, sum.Hash(), count))
		result, err := layer.Scan(ctx, r, layer.Options{Name: path}, checkEntry)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		l.DiffID = result.DiffID
		return v1.Descriptor{MediaType: image.LayerMediaType(packed), Digest: sum.Digest(), Size: count.n}, err
	})
	l.Desc = desc
	return l, err
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

// checkEntry refuses what no image can be unpacked with.
func checkEntry(_ *tarstream.Reader, h *tarstream.Header) error {
	name, err := safepath.Clean(h.Name)
	if err == nil {
		_, _, err = layer.MarkOf(name)
	}
	return err
}

// archiveDir writes what is in a directory, sorted by name. As in images that
// are built, it belongs to root; nothing is newer than clamp.
func archiveDir(ctx context.Context, dir string, clamp time.Time, w *tarstream.Writer) error {
	type inode struct{ dev, ino uint64 }
	links := map[inode]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if mark, _, err := layer.MarkOf(name); mark != layer.NoMark || err != nil {
			return fmt.Errorf("%s: in a layer, files of such names are whiteouts", path)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		h, err := headerOf(path, name, &st, clamp)
		if h == nil || err != nil {
			return err
		}
		id := inode{st.Dev, st.Ino}
		if first, ok := links[id]; ok && st.Nlink > 1 && h.Type != tarstream.TypeDir {
			h.Type, h.Linkname, h.Size, h.Xattrs = tarstream.TypeLink, first, 0, nil
		} else {
			links[id] = name
		}
		if err := w.WriteHeader(h); err != nil || h.Type != tarstream.TypeReg {
			return err
		}
		return copyFile(w, path, h.Size)
	})
	return errors.Join(err, w.Close())
}

// headerOf describes a file; nil for a socket, which no archive has.
func headerOf(path, name string, st *unix.Stat_t, clamp time.Time) (*tarstream.Header, error) {
	h := &tarstream.Header{Name: name, Mode: st.Mode & 0o7777, ModTime: tarstream.Time{Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	if at := clamp.Unix(); st.Mtim.Sec > at || st.Mtim.Sec == at && st.Mtim.Nsec > int64(clamp.Nanosecond()) {
		h.ModTime = tarstream.Time{Sec: at, Nsec: int64(clamp.Nanosecond())}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Type, h.Size = tarstream.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Type = tarstream.TypeDir
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return nil, err
		}
		h.Type, h.Linkname, h.Mode = tarstream.TypeSymlink, target, 0o777
	case unix.S_IFIFO:
		h.Type = tarstream.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Type, h.Major, h.Minor = tarstream.TypeChar, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Type = tarstream.TypeBlock
		}
	default:
		return nil, nil
	}
	const capability = "security.capability"
	value := make([]byte, 64)
	if n, err := unix.Lgetxattr(path, capability, value); err == nil {
		h.Xattrs = []tarstream.Xattr{{Name: capability, Value: value[:n]}}
	}
	return h, nil
}

// copyFile copies a file that must be as long as it was when it was looked at.
func copyFile(w io.Writer, path string, sizeBytes int64) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyN(w, f, sizeBytes)
	if err == io.EOF {
		err = fmt.Errorf("%s: has become shorter: %d of %d bytes: %w", path, n, sizeBytes, io.ErrUnexpectedEOF)
	}
	if err == nil {
		var one [1]byte
		if n, _ := f.Read(one[:]); n > 0 {
			err = fmt.Errorf("%s: has become longer than %d bytes", path, sizeBytes)
		}
	}
	return err
}
