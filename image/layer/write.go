package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tare-oci/tare/image/layer/tarstream"
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

// Write writes a layer of these files, as gzip. The same entries in any order give the same bytes: they are sorted by name,
// and nothing of this machine goes in.
func Write(w io.Writer, entries []Entry) (Written, error) {
	written, err := writePacked(w, entries, PackOptions{})
	if err != nil {
		return Written{}, fmt.Errorf("write layer: %w", err)
	}
	return written, nil
}

func writePacked(w io.Writer, entries []Entry, o PackOptions) (Written, error) {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	p, err := NewPacker(w, o)
	if err != nil {
		return Written{}, err
	}
	err = writeEntries(tarstream.NewWriter(p), sorted)
	written, cerr := p.Close()
	return written, errors.Join(err, cerr)
}

func writeEntries(tw *tarstream.Writer, sorted []Entry) error {
	for i, e := range sorted {
		if i > 0 && sorted[i-1].Name == e.Name {
			return fmt.Errorf("entry %s: it is there twice", quote(e.Name))
		}
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("entry %s: %w", quote(e.Name), err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tarstream.Writer, e Entry) error {
	if clean, err := safepath.Clean(e.Name); err != nil || clean != e.Name {
		return errors.Join(errors.New("name is not in its simplest form"), err)
	}
	const known = fs.ModeDir | fs.ModeSymlink | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | fs.ModePerm
	if e.Mode&^known != 0 {
		return fmt.Errorf("mode %v cannot be written", e.Mode)
	}
	h := &tarstream.Header{Name: e.Name, Type: tarstream.TypeReg, Mode: tarMode(e.Mode), UID: int64(e.UID), GID: int64(e.GID)}
	if !e.ModTime.IsZero() {
		h.ModTime = tarstream.Time{Sec: e.ModTime.Unix(), Nsec: int64(e.ModTime.Nanosecond())}
	}
	switch e.Mode.Type() {
	case fs.ModeDir:
		h.Type = tarstream.TypeDir
	case fs.ModeSymlink:
		h.Type, h.Linkname = tarstream.TypeSymlink, e.Linkname
	default:
		if h.Size = int64(len(e.Content)); e.Open != nil {
			h.Size = e.SizeBytes
		}
	}
	if err := tw.WriteHeader(h); err != nil || h.Type != tarstream.TypeReg {
		return err
	}
	content := io.NopCloser(bytes.NewReader(e.Content))
	if e.Open != nil {
		var err error
		if content, err = e.Open(); err != nil {
			return err
		}
	}
	defer content.Close()
	_, err := io.CopyN(tw, content, h.Size)
	return err
}

// tarMode is a mode in tar's bits, which are Unix's.
func tarMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unixBit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unixBit
		}
	}
	return mode
}
