package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/safepath"
)

// Entry is one file of a layer to be written.
type Entry struct {
	Name     string      // in the form of safepath.Clean
	Mode     fs.FileMode // type and permissions: a file, directory or symbolic link
	UID, GID int
	ModTime  time.Time // the zero time stands for 1970

	Linkname  string // where a symbolic link leads
	Content   []byte // of a file
	SizeBytes int64  // of what Open returns
	// Open, if set, opens a file's content in place of Content.
	Open func() (io.ReadCloser, error)
}

// Written says what was written: what a descriptor and a config need to know.
type Written struct {
	Digest    digest.Digest // of the blob
	SizeBytes int64
	DiffID    digest.Digest // of the uncompressed archive
}

// Write writes a layer of these files as a gzipped tar archive. The same entries in any order give the same bytes (from one
// build of this program): they are sorted by name, and nothing of this machine goes in.
func Write(w io.Writer, entries []Entry) (Written, error) {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	blob, diff := digest.Canonical.Digester(), digest.Canonical.Digester()
	counter := &countingWriter{w: io.MultiWriter(w, blob.Hash())}
	zw := gzip.NewWriter(counter)
	tw := tar.NewWriter(io.MultiWriter(zw, diff.Hash()))
	for i, e := range sorted {
		if i > 0 && sorted[i-1].Name == e.Name {
			return Written{}, fmt.Errorf("write layer: entry %s: it is there twice", quote(e.Name))
		}
		if err := writeEntry(tw, e); err != nil {
			return Written{}, fmt.Errorf("write layer: entry %s: %w", quote(e.Name), err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return Written{}, fmt.Errorf("write layer: %w", err)
	}
	return Written{Digest: blob.Digest(), SizeBytes: counter.n, DiffID: diff.Digest()}, nil
}

func writeEntry(tw *tar.Writer, e Entry) error {
	if clean, err := safepath.Clean(e.Name); err != nil || clean != e.Name {
		return errors.Join(errors.New("name is not in its simplest form"), err)
	}
	h := &tar.Header{Name: e.Name, Mode: tarMode(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: e.ModTime, Format: tar.FormatPAX}
	if e.ModTime.IsZero() {
		h.ModTime = time.Unix(0, 0)
	}
	const known = fs.ModeDir | fs.ModeSymlink | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | fs.ModePerm
	if e.Mode&^known != 0 {
		return fmt.Errorf("mode %v cannot be written", e.Mode)
	}
	switch e.Mode.Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Linkname
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.Content))
		if e.Open != nil {
			h.Size = e.SizeBytes
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	content := io.NopCloser(bytes.NewReader(e.Content))
	if e.Open != nil {
		var err error
		if content, err = e.Open(); err != nil {
			return err
		}
	}
	defer content.Close()
	if _, err := io.CopyN(tw, content, h.Size); err != nil {
		return err
	}
	return nil
}

// tarMode is a mode in tar's bits, which are Unix's.
func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, unixBit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unixBit
		}
	}
	return mode
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
