package tree

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// WriteLayer writes the archive of the one layer that makes t of base: both are
// trees of img, base of its lower layers. What is deleted has whiteouts; of what
// is there once more just as it was, nothing. The layers are read again, for the
// contents of files. The same image gives the same bytes: directories and the
// like come first, by name, then files in the order of the layers, then hard
// links.
func (t *Tree) WriteLayer(ctx context.Context, w *tarstream.Writer, base *Tree, img *image.Image, open Opener, o Options) error {
	s := layerWriter{w: w, names: map[*File][]string{}, contents: map[int]map[int]*File{}}
	if err := s.plan(base, t, o.Layers.SizeBytes); err != nil {
		return err
	}
	for _, h := range s.headers {
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
	}
	for n, desc := range img.Manifest.Layers {
		if len(s.contents[n]) == 0 {
			continue
		}
		if _, err := scan(ctx, desc, img.Config.RootFS.DiffIDs[n], open, o.Layers, s.copy(s.contents[n])); err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	for _, h := range s.links {
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
	}
	return w.Close()
}

type layerWriter struct {
	w        *tarstream.Writer
	headers  []tarstream.Header    // without content
	links    []tarstream.Header    // hard links
	names    map[*File][]string    // that are to be written
	contents map[int]map[int]*File // regular files by their layer and entry
}

const maxSquashedBytes = 128 << 30 // as of any layer

// plan decides what is written.
func (s *layerWriter) plan(base, t *Tree, limitBytes int64) error {
	if limitBytes <= 0 {
		limitBytes = maxSquashedBytes
	}
	var files []*File // in the order of their first names
	for _, c := range Compare(base, t) {
		switch {
		case c.Kind == Deleted:
			if dir, _ := safepath.SplitBase(c.Name); t.isDir(dir) {
				s.headers = append(s.headers, tarstream.Header{Name: layer.WhiteoutOf(c.Name), Type: tarstream.TypeReg, Mode: 0o644})
			}
		case c.After.Type == tarstream.TypeDir:
			s.headers = append(s.headers, headerOf(c.Name, c.After))
		default:
			if s.names[c.After] == nil {
				files = append(files, c.After)
			}
			s.names[c.After] = append(s.names[c.After], c.Name)
		}
	}
	kept := s.keptNames(t)
	for _, f := range files {
		if limitBytes -= f.SizeBytes; limitBytes < 0 {
			return fmt.Errorf("%w: files of more than %d bytes", layer.ErrLimit, maxSquashedBytes)
		}
		s.planFile(f, kept[f])
	}
	slices.SortFunc(s.links, func(a, b tarstream.Header) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (t *Tree) isDir(name string) bool {
	n, err := t.walk(name)
	return err == nil && n.IsDir()
}

// keptNames finds, for the files that get new names, one that they have in the
// lower layers already: a hard link leads there.
func (s *layerWriter) keptNames(t *Tree) map[*File]string {
	kept := map[*File]string{}
	for n := range t.root.All() {
		if names, ok := s.names[n.file]; ok && kept[n.file] == "" {
			if name := n.Name(); !slices.Contains(names, name) {
				kept[n.file] = name
			}
		}
	}
	return kept
}

func (s *layerWriter) planFile(f *File, target string) {
	names := s.names[f]
	if target == "" {
		target, names = names[0], names[1:]
		if f.Type != tarstream.TypeReg {
			s.headers = append(s.headers, headerOf(target, f))
		} else {
			if s.contents[f.Layer] == nil {
				s.contents[f.Layer] = map[int]*File{}
			}
			s.contents[f.Layer][f.Entry] = f
		}
	}
	for _, name := range names {
		h := headerOf(name, f)
		h.Type, h.Linkname, h.Size, h.Xattrs = tarstream.TypeLink, target, 0, nil
		s.links = append(s.links, h)
	}
}

func headerOf(name string, f *File) tarstream.Header {
	if name == "." {
		name = "./"
	}
	return tarstream.Header{
		Name: name, Linkname: f.Linkname, Type: f.Type, Mode: f.Mode, UID: int64(f.UID), GID: int64(f.GID), Size: f.SizeBytes,
		ModTime: f.ModTime, AccessTime: f.ModTime, Major: int64(f.Major), Minor: int64(f.Minor), Xattrs: f.Xattrs,
	}
}

// copy writes the files that a layer has the contents of.
func (s *layerWriter) copy(wanted map[int]*File) layer.Visit {
	entry := -1
	return func(r *tarstream.Reader, h *tarstream.Header) error {
		entry++
		f := wanted[entry]
		if f == nil {
			return nil
		}
		out := headerOf(s.names[f][0], f)
		if err := s.w.WriteHeader(&out); err != nil {
			return err
		}
		_, err := io.Copy(s.w, layer.Content(r, h))
		return err
	}
}
