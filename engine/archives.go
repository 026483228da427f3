package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/directory"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/transfer"
)

func archiveSource(ctx context.Context, l transport.Location) (transfer.Source, error) {
	form := archive.OCI
	if l.Kind == transport.DockerArchive {
		form = archive.Docker
	}
	a, err := archive.Open(ctx, l.Path, form, archive.Options{})
	if err != nil {
		return nil, err
	}
	desc, err := pick(a.Names(), l.Name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("archive %s: %w", l.Path, err), a.Close())
	}
	return a.Source(desc, true), nil
}

// pick finds what a name stands for among those of an archive: as it is written
// there, as people write it, or as @N, its number. The empty name is that of
// the only image.
func pick(names []layout.Name, want string) (v1.Descriptor, error) {
	if number, ok := strings.CutPrefix(want, "@"); ok {
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(names) {
			return v1.Descriptor{}, fmt.Errorf("no image %s: it has %d", want, len(names))
		}
		return names[i].Desc, nil
	}
	var found *layout.Name
	for i, n := range names {
		if want != "" && n.Name != want && !sameReference(n.Name, want) && !sameReference(archive.ImageName(n.Desc), want) {
			continue
		}
		if found != nil && found.Desc.Digest != n.Desc.Digest {
			return v1.Descriptor{}, fmt.Errorf("%q is ambiguous; it has %s", want, listNames(names))
		}
		found = &names[i]
	}
	if found == nil {
		return v1.Descriptor{}, fmt.Errorf("no image %q; it has %s: %w", want, listNames(names), fs.ErrNotExist)
	}
	return found.Desc, nil
}

func sameReference(a, b string) bool {
	x, err := distribution.ParseReference(a)
	y, errY := distribution.ParseReference(b)
	return err == nil && errY == nil && x.WithDefaultTag() == y.WithDefaultTag()
}

func listNames(names []layout.Name) string {
	const most = 8
	var all []string
	for i, n := range names {
		if i == most {
			all = append(all, "…")
			break
		}
		if n.Name == "" {
			all = append(all, "@"+strconv.Itoa(i))
			continue
		}
		all = append(all, fmt.Sprintf("%.100q", n.Name))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func archiveDestination(l transport.Location) (transfer.Destination, error) {
	o := archive.WriteOptions{Form: archive.OCI}
	name := archive.Name{Ref: l.Name}
	if l.Kind == transport.DockerArchive {
		o.Form = archive.Docker
		if st, err := os.Stat(l.Path); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			return nil, fmt.Errorf("%s: %w; nothing can be added to a docker archive", l.Path, fs.ErrExist)
		}
		if l.Name != "" {
			ref, err := distribution.ParseReference(l.Name)
			if err != nil {
				return nil, err
			}
			name = archiveName(ref.WithDefaultTag().String())
		}
	} else if l.Name != "" {
		if err := layout.CheckName(l.Name); err != nil {
			return nil, err
		}
	}
	w, err := archive.Create(l.Path, o)
	if err != nil {
		return nil, err
	}
	return w.Destination(name, true), nil
}

// archiveBeside writes an archive again, with all that it has but what l names,
// which is to come.
func archiveBeside(ctx context.Context, a *archive.Archive, l transport.Location) (transfer.Destination, error) {
	if l.Name != "" {
		if err := layout.CheckName(l.Name); err != nil {
			return nil, err
		}
	}
	w, err := archive.Create(l.Path, archive.WriteOptions{Form: archive.OCI})
	if err != nil {
		return nil, err
	}
	for _, n := range a.Names() {
		if n.Name == l.Name {
			continue
		}
		_, err := transfer.Copy(ctx, w.Destination(archive.Name{Ref: n.Name}, false), a.Source(n.Desc, false), transfer.Options{All: true, Sparse: true})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("keep %q, which is in %s too: %w", n.Name, l.Path, err), w.Close())
		}
	}
	return w.Destination(archive.Name{Ref: l.Name}, true), nil
}

// archiveName is what an image of the store is called in an archive.
func archiveName(name string) archive.Name {
	n := archive.Name{Ref: name}
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return n
	}
	if n.Image = name; ref.Digest == "" {
		n.Tag = ref.Familiar()
	}
	return n
}

// SaveFormat is how images are saved. The names are podman's.
type SaveFormat string

const (
	DockerArchive SaveFormat = "docker-archive" // as docker save writes it; it is an OCI archive, too
	OCIArchive    SaveFormat = "oci-archive"    // an image layout in tar
	OCIDir        SaveFormat = "oci-dir"        // dir: of skopeo, with OCI's media types
	DockerDir     SaveFormat = "docker-dir"     // dir: of skopeo, with Docker's media types
)

// SaveFormats are all of them.
func SaveFormats() []string {
	return []string{string(DockerArchive), string(OCIArchive), string(OCIDir), string(DockerDir)}
}

// SaveOptions say how to save.
type SaveOptions struct {
	transfer.Options
	Format      SaveFormat // default DockerArchive
	Compression image.Compression
	// Pipe, if set, is where an archive is written to in place of the path,
	// which then is what messages call it.
	Pipe *os.File
}

func (o SaveOptions) create(path string) (*archive.Writer, error) {
	w := archive.WriteOptions{Form: archive.Docker, Compression: o.Compression}
	if o.Format == OCIArchive {
		w.Form = archive.OCI
	}
	if o.Pipe != nil {
		return archive.CreateOn(path, o.Pipe, w)
	}
	return archive.Create(path, w)
}

// Save writes images of the store to an archive, which appears when it is whole,
// or to a directory.
func (e *Engine) Save(ctx context.Context, names []string, path string, o SaveOptions) error {
	if err := e.save(ctx, names, path, o); err != nil {
		return fmt.Errorf("save to %s: %w", path, err)
	}
	return nil
}

func (e *Engine) save(ctx context.Context, names []string, path string, o SaveOptions) (err error) {
	switch o.Format {
	case OCIDir, DockerDir:
		return e.saveDir(ctx, names, path, o)
	case OCIArchive, DockerArchive, "":
	default:
		return fmt.Errorf("format %q: want one of %s", o.Format, strings.Join(SaveFormats(), ", "))
	}
	for _, name := range names { // before there is anything to be seen of an archive
		if _, err := e.find(ctx, name); err != nil {
			return err
		}
	}
	w, err := o.create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for _, name := range names {
		if err := e.saveOne(ctx, name, o, func(n archive.Name) transfer.Destination { return w.Destination(n, false) }); err != nil {
			return err
		}
	}
	return w.Commit(ctx)
}

// saveOne copies one image to a destination made for its name. What was asked
// for by a digest has no name.
func (e *Engine) saveOne(ctx context.Context, name string, o SaveOptions, to func(archive.Name) transfer.Destination) error {
	src, err := e.storeSource(ctx, name)
	if err != nil {
		return err
	}
	defer src.Close()
	found, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	var called archive.Name
	if found.Name != "" && (found.Name == name || sameReference(found.Name, name)) {
		called = archiveName(found.Name)
	}
	if _, err := transfer.Copy(ctx, to(called), src, o.Options); err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return nil
}

func (e *Engine) saveDir(ctx context.Context, names []string, path string, o SaveOptions) (err error) {
	if len(names) != 1 || o.Compression != image.Uncompressed || o.Pipe != nil {
		return fmt.Errorf("format %s is a directory for one image, uncompressed", o.Format)
	}
	if _, err := e.find(ctx, names[0]); err != nil {
		return err
	}
	d, err := directory.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	to := transfer.Destination(d)
	if !o.All && !o.Sparse {
		to = transfer.Retyped(d, o.Format == DockerDir)
	} else if o.Format == DockerDir {
		return fmt.Errorf("format %s: an index is not converted", o.Format)
	}
	if err := e.saveOne(ctx, names[0], o, func(archive.Name) transfer.Destination { return to }); err != nil {
		return err
	}
	return d.Commit(ctx)
}

// Loaded is what was loaded under one name; empty if it has none.
type Loaded struct {
	Name   string
	Target v1.Descriptor
}

// Load brings all images of an archive, of an image layout or of a directory as
// skopeo writes it into the store. It returns what it has loaded, also when it
// fails in the middle.
func (e *Engine) Load(ctx context.Context, path string, o transfer.Options) ([]Loaded, error) {
	loaded, err := e.load(ctx, path, o)
	if err != nil {
		return loaded, fmt.Errorf("load %s: %w", path, err)
	}
	return loaded, nil
}

func (e *Engine) load(ctx context.Context, path string, o transfer.Options) ([]Loaded, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		if directory.Is(path) {
			return e.loadDirectory(ctx, path, o)
		}
		store, err := layout.Open(path, layout.Options{ReadOnly: true})
		if err != nil {
			return nil, err
		}
		defer store.Close()
		names, err := store.List(ctx)
		if err != nil {
			return nil, err
		}
		return e.loadAll(ctx, names, o, func(d v1.Descriptor) transfer.Source { return store.Source(d) })
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return e.loadArchive(ctx, path, f, o)
}

// LoadFrom is Load for an archive that is an open file or pipe, which it closes;
// name is what messages call it.
func (e *Engine) LoadFrom(ctx context.Context, name string, pipe *os.File, o transfer.Options) ([]Loaded, error) {
	loaded, err := e.loadArchive(ctx, name, pipe, o)
	if err != nil {
		return loaded, fmt.Errorf("load %s: %w", name, err)
	}
	return loaded, nil
}

func (e *Engine) loadArchive(ctx context.Context, name string, f *os.File, o transfer.Options) ([]Loaded, error) {
	a, err := archive.Read(ctx, name, f, archive.Any, archive.Options{})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return e.loadAll(ctx, a.Names(), o, func(d v1.Descriptor) transfer.Source { return a.Source(d, false) })
}

func (e *Engine) loadDirectory(ctx context.Context, path string, o transfer.Options) ([]Loaded, error) {
	src, err := directory.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return e.loadAll(ctx, []layout.Name{{Desc: src.Root()}}, o, func(v1.Descriptor) transfer.Source { return src })
}

func (e *Engine) loadAll(ctx context.Context, names []layout.Name, o transfer.Options, open func(v1.Descriptor) transfer.Source) (all []Loaded, err error) {
	if len(names) == 0 {
		return nil, errors.New("there is no image in it")
	}
	for _, n := range names {
		name := loadName(n)
		desc := n.Desc
		desc.Annotations = maps.Clone(desc.Annotations)
		maps.DeleteFunc(desc.Annotations, func(key, _ string) bool {
			return strings.HasPrefix(key, "io.containerd.") || strings.HasPrefix(key, "containerd.io/")
		})
		dst, err := e.storeDestination(ctx, name)
		if err != nil {
			return all, err
		}
		r, err := transfer.Copy(ctx, dst, open(desc), o)
		if err = errors.Join(err, dst.Close()); err != nil {
			return all, err
		}
		all = append(all, Loaded{name, r.Root})
	}
	return all, nil
}

// loadName is what the store calls something that an archive calls so. A name
// that is a mere tag or word becomes localhost/NAME, as with podman; one that
// cannot be a reference is lost, and the image found by its digest.
func loadName(n layout.Name) string {
	name := n.Name
	if whole := archive.ImageName(n.Desc); whole != "" {
		name = whole
	} else if name != "" && !strings.ContainsAny(name, ":/@") {
		name = "localhost/" + name
	}
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return ""
	}
	return ref.WithDefaultTag().String()
}
