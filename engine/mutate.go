package engine

import (
	"context"
	"fmt"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/tree"
)

// Mutation is what Mutate does to an image, in this order.
type Mutation struct {
	// Rebase puts the image on another base: NewBase and OldBase are the names
	// of images; the image's annotations tell what is empty here.
	Rebase           bool
	NewBase, OldBase string
	// Squash puts one layer in place of those from SquashFrom on, the lowest
	// being 1.
	Squash     bool
	SquashFrom int
	// Append puts layers on top: tar archives, compressed or not, or directories.
	Append []string
	// Recompress has all layers packed as Pack says, if they are not.
	Recompress bool
	Pack       layer.PackOptions // of every layer that is written
	PackGiven  bool              // also of those that are appended and packed already
	// Annotations of the manifest, to set, or with an empty value to remove.
	Annotations map[string]string
	// Config edits the configuration; it may be nil.
	Config func(*v1.Image)
	// Created is the time of the change, which new files are not newer than.
	Created   time.Time
	NoHistory bool // no entries in the history for new layers
}

// Mutate makes a new image of img, and returns its manifest.
func (d *Edit) Mutate(ctx context.Context, img *image.Image, m Mutation) (v1.Descriptor, error) {
	steps := []struct {
		wanted bool
		change func(context.Context, *image.Image, Mutation) (mutate.Change, error)
	}{
		{m.Rebase, d.rebase}, {m.Squash, d.squash}, {len(m.Append) > 0, d.append}, {m.Recompress, d.recompress},
	}
	for _, s := range steps {
		if !s.wanted {
			continue
		}
		change, err := s.change(ctx, img, m)
		if err != nil {
			return v1.Descriptor{}, err
		}
		change.Created = &m.Created
		desc, err := mutate.Apply(ctx, d, &img.Descriptor, change)
		if err == nil {
			img, err = image.Load(ctx, d, desc)
		}
		if err != nil {
			return v1.Descriptor{}, err
		}
	}
	return mutate.Apply(ctx, d, &img.Descriptor, mutate.Change{Config: m.Config, Annotations: m.Annotations})
}

// rebase finds the two bases.
func (d *Edit) rebase(ctx context.Context, img *image.Image, m Mutation) (mutate.Change, error) {
	newName, oldName := m.NewBase, m.OldBase
	noted := img.Manifest.Annotations[v1.AnnotationBaseImageName]
	if newName == "" {
		newName = noted
	}
	if newName == "" {
		return mutate.Change{}, fmt.Errorf("rebase: no new base is named, and the image has no annotation %s", v1.AnnotationBaseImageName)
	}
	oldDigest := img.Manifest.Annotations[v1.AnnotationBaseImageDigest]
	if oldName == "" && oldDigest == "" {
		return mutate.Change{}, fmt.Errorf("rebase: no old base is named, and the image has no annotation %s", v1.AnnotationBaseImageDigest)
	}
	if oldName == "" {
		ref, err := distribution.ParseReference(noted)
		if err != nil {
			return mutate.Change{}, fmt.Errorf("rebase: annotation %s: %w", v1.AnnotationBaseImageName, err)
		}
		parsed, err := distribution.ParseDigest(oldDigest)
		if err != nil {
			return mutate.Change{}, fmt.Errorf("rebase: annotation %s: %w", v1.AnnotationBaseImageDigest, err)
		}
		oldName = transport.Location{Kind: transport.Registry, Name: distribution.Reference{Repository: ref.Repository, Digest: parsed}.String()}.String()
	}
	oldBase, err := d.base(ctx, oldName, img)
	if err != nil {
		return mutate.Change{}, fmt.Errorf("rebase: old base: %w", err)
	}
	newBase, err := d.base(ctx, newName, img)
	if err != nil {
		return mutate.Change{}, fmt.Errorf("rebase: new base: %w", err)
	}
	change, err := mutate.Rebase(img, oldBase, newBase)
	if err != nil {
		return mutate.Change{}, fmt.Errorf("rebase: %w", err)
	}
	change.Annotations = map[string]string{v1.AnnotationBaseImageDigest: string(newBase.Descriptor.Digest), v1.AnnotationBaseImageName: baseName(newName)}
	return change, nil
}

// base opens an image for the platform of another.
func (d *Edit) base(ctx context.Context, name string, img *image.Image) (*image.Image, error) {
	desc, err := d.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return image.Select(ctx, d, desc, img.Config.Platform)
}

// baseName is a name as it stands in annotations: that of a registry's image.
func baseName(name string) string {
	l, err := transport.Parse(name)
	if err != nil || l.Kind != transport.Plain && l.Kind != transport.Registry {
		return ""
	}
	ref, err := distribution.ParseReference(l.Name)
	if err != nil {
		return ""
	}
	return ref.WithDefaultTag().String()
}

func (d *Edit) open(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return d.Blob(ctx, desc, 0)
}

// newLayer writes a layer: archive writes its tar archive.
func (d *Edit) newLayer(o layer.PackOptions, archive func(io.Writer) error) (mutate.Layer, error) {
	var written layer.Written
	desc, err := d.Write(func(w io.Writer) (v1.Descriptor, error) {
		p, err := layer.NewPacker(w, o)
		if err != nil {
			return v1.Descriptor{}, err
		}
		err = archive(p)
		var cerr error
		if written, cerr = p.Close(); err == nil {
			err = cerr
		}
		return written.Descriptor(), err
	})
	return mutate.Layer{Desc: desc, DiffID: written.DiffID}, err
}

func (d *Edit) squash(ctx context.Context, img *image.Image, m Mutation) (mutate.Change, error) {
	n := len(img.Manifest.Layers)
	keep := m.SquashFrom - 1
	if keep < 0 || keep >= n {
		return mutate.Change{}, fmt.Errorf("squash: no layer %d: the image has %d", m.SquashFrom, n)
	}
	base := tree.New(tree.Limits{})
	below := *img
	below.Manifest.Layers = img.Manifest.Layers[:keep]
	o := tree.Options{Sums: true}
	if err := base.Read(ctx, &below, d.open, o); err != nil {
		return mutate.Change{}, fmt.Errorf("squash: %w", err)
	}
	t := base.Clone()
	if err := t.Read(ctx, img, d.open, o); err != nil {
		return mutate.Change{}, fmt.Errorf("squash: %w", err)
	}
	spool, err := transfer.UnnamedFile(d.engine.options.Root)
	if err != nil {
		return mutate.Change{}, fmt.Errorf("squash: %w", err)
	}
	defer spool.Close()
	l, err := d.newLayer(m.Pack, func(w io.Writer) error {
		return t.WriteLayer(ctx, tarstream.NewWriter(w), base, img, d.open, spool, o)
	})
	if err != nil {
		return mutate.Change{}, fmt.Errorf("squash: %w", err)
	}
	l.History = v1.History{CreatedBy: fmt.Sprintf("tare mutate: layers %d to %d in one", m.SquashFrom, n)}
	return mutate.Squash(img, keep, l), nil
}

// recompress packs the layers anew that are packed otherwise. Their archives,
// and so their DiffIDs, stay.
func (d *Edit) recompress(ctx context.Context, img *image.Image, m Mutation) (mutate.Change, error) {
	var blobs []v1.Descriptor
	for i, desc := range img.Manifest.Layers {
		is := image.LookupMediaType(desc.MediaType)
		if is.Foreign || m.Pack.Level == 0 && string(is.Compression) == compressionName(m.Pack.Compression) {
			blobs = append(blobs, desc)
			continue
		}
		l, err := d.newLayer(m.Pack, func(w io.Writer) error {
			blob, err := d.open(ctx, desc)
			if err != nil {
				return err
			}
			defer blob.Close()
			_, err = layer.Archive(ctx, blob, layer.Options{Name: string(desc.Digest), MediaType: desc.MediaType, DiffID: img.Config.RootFS.DiffIDs[i]}, w)
			return err
		})
		if err != nil {
			return mutate.Change{}, fmt.Errorf("change compression: layer %d: %w", i+1, err)
		}
		blobs = append(blobs, l.Desc)
	}
	return mutate.Recompress(img, blobs), nil
}

func compressionName(c layer.Compression) string {
	if c == layer.Uncompressed {
		return string(image.Uncompressed)
	}
	return c.String()
}
