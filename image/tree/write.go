package tree

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Spool is where the contents of files wait for their turn: a file.
type Spool interface {
	io.Writer
	io.ReaderAt
}

// WriteLayer writes the archive of the one layer that makes t of base: both are
// trees of img, base of its lower layers. What is deleted has whiteouts; of what
// is there once more just as it was, nothing. The layers are read again, for the
// contents of files, which the spool has to hold. The same image gives the same
// bytes: entries are in the order of a walk through the directories.
func (t *Tree) WriteLayer(ctx context.Context, w *tarstream.Writer, base *Tree, img *image.Image, open Opener, spool Spool, o Options) error {
	s := layerWriter{spool: spool, names: map[*File]string{}, contents: map[int]map[int]*File{}, offsets: map[*File]int64{}}
	limitBytes := o.Layers.SizeBytes
	if limitBytes <= 0 {
		limitBytes = maxArchiveBytes
	}
	if err := s.plan(base, t, limitBytes); err != nil {
		return err
	}
	for n, desc := range img.Manifest.Layers {
		if len(s.contents[n]) == 0 {
			continue
		}
		if _, err := scan(ctx, desc, img.Config.RootFS.DiffIDs[n], open, o.Layers, s.keep(s.contents[n])); err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	for _, e := range s.entries {
		if err := s.write(ctx, w, e); err != nil {
			return err
		}
	}
	return w.Close()
}

const maxArchiveBytes = 128 << 30 // as of any layer

// layerWriter decides what is written, then collects contents, then writes.
type layerWriter struct {
	spool    Spool
	used     int64
	entries  []layerEntry
	names    map[*File]string      // of a file, for hard links to lead to
	contents map[int]map[int]*File // regular files by their layer and entry
	offsets  map[*File]int64       // of contents in the spool
}

type layerEntry struct {
	header tarstream.Header
	file   *File // whose content follows; nil if none does
}

func (s *layerWriter) plan(base, t *Tree, limitBytes int64) error {
	changes := Compare(base, t)
	s.keepNames(t, changes)
	for _, c := range changes {
		f := c.After
		if c.Kind == Deleted {
			if dir, _ := safepath.SplitBase(c.Name); t.isDir(dir) {
				s.add(layerEntry{header: tarstream.Header{Name: layer.WhiteoutOf(c.Name), Type: tarstream.TypeReg, Mode: 0o644}})
			}
			continue
		}
		h := headerOf(c.Name, f)
		target, linked := s.names[f]
		switch {
		case f.Type == tarstream.TypeDir:
			s.add(layerEntry{header: h})
		case linked:
			h.Type, h.Linkname, h.Size, h.Xattrs = tarstream.TypeLink, target, 0, nil
			s.add(layerEntry{header: h})
		case f.Type != tarstream.TypeReg:
			s.names[f] = c.Name
			s.add(layerEntry{header: h})
		default:
			if limitBytes -= f.SizeBytes; limitBytes < 0 {
				return fmt.Errorf("%w: files of too many bytes for one layer", layer.ErrLimit)
			}
			s.names[f] = c.Name
			s.add(layerEntry{h, f})
			if s.contents[f.Layer] == nil {
				s.contents[f.Layer] = map[int]*File{}
			}
			s.contents[f.Layer][f.Entry] = f
		}
	}
	return nil
}

func (s *layerWriter) add(e layerEntry) { s.entries = append(s.entries, e) }

func (t *Tree) isDir(name string) bool {
	n, err := t.walk(name)
	return err == nil && n.IsDir()
}

// keepNames finds, for the files that get new names, one that they have in the
// lower layers already: a hard link leads there.
func (s *layerWriter) keepNames(t *Tree, changes []Change) {
	written := map[string]bool{}
	files := map[*File]bool{}
	for _, c := range changes {
		if c.After != nil && c.After.Type != tarstream.TypeDir {
			written[c.Name], files[c.After] = true, true
		}
	}
	for n := range t.root.All() {
		if !files[n.file] || s.names[n.file] != "" {
			continue
		}
		if name := n.Name(); !written[name] {
			s.names[n.file] = name
		}
	}
}

func headerOf(name string, f *File) tarstream.Header {
	if name == "." {
		name = "./"
	}
	return tarstream.Header{
		Name: name, Linkname: f.Linkname, Type: f.Type, Mode: f.Mode, UID: int64(f.UID), GID: int64(f.GID), Size: f.SizeBytes,
		ModTime: f.ModTime, AccessTime: f.ModTime, Major: int64(f.Major), Minor: int64(f.Minor), Xattrs: slices.Clone(f.Xattrs),
	}
}

// keep puts the contents that are wanted of a layer into the spool.
func (s *layerWriter) keep(wanted map[int]*File) layer.Visit {
	entry := -1
	return func(r *tarstream.Reader, h *tarstream.Header) error {
		entry++
		f := wanted[entry]
		if f == nil {
			return nil
		}
		s.offsets[f] = s.used
		n, err := io.Copy(s.spool, layer.Content(r, h))
		s.used += n
		return err
	}
}

func (s *layerWriter) write(ctx context.Context, w *tarstream.Writer, e layerEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.WriteHeader(&e.header); err != nil || e.file == nil {
		return err
	}
	_, err := io.Copy(w, io.NewSectionReader(s.spool, s.offsets[e.file], e.file.SizeBytes))
	return err
}
