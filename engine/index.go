package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
)

// NewImage makes an image without layers and gives it a name.
func (e *Engine) NewImage(ctx context.Context, name string, platform v1.Platform, created time.Time, o EditOptions) (_ transfer.Result, err error) {
	d := e.BeginEdit(o)
	defer func() { err = errors.Join(err, d.Close()) }()
	desc, err := mutate.Apply(ctx, d, nil, mutate.Change{Created: &created, Config: func(c *v1.Image) { c.Platform = platform }})
	if err != nil {
		return transfer.Result{}, err
	}
	return d.Finish(ctx, desc, name)
}

// IndexEntry chooses entries of an index: by one or the other.
type IndexEntry struct {
	Platform     *v1.Platform
	DigestPrefix string // "sha256:" and the first digits
}

func (s IndexEntry) String() string {
	if s.Platform != nil {
		return image.PlatformString(*s.Platform)
	}
	return s.DigestPrefix
}

func (s IndexEntry) matches(d v1.Descriptor) bool {
	if s.Platform == nil {
		return strings.HasPrefix(string(d.Digest), s.DigestPrefix)
	}
	if d.Platform == nil {
		return false
	}
	have := *d.Platform
	if s.Platform.OSVersion == "" { // not asked for
		have.OSVersion, have.OSFeatures = "", nil
	}
	return mutate.SamePlatform(*s.Platform, have)
}

// IndexChange says what is to be different about an index.
type IndexChange struct {
	Create      bool              // begin with an empty one, whatever the name stands for
	Annotations map[string]string // of the index, to set, or with an empty value to remove

	Add     []string // images and indexes, by name
	Flat    bool     // of an index, add what it lists
	Replace bool     // what is there for the same platform
	Remove  []IndexEntry

	Annotate         []IndexEntry
	EntryAnnotations map[string]string // of what is added or annotated
	Platform         *v1.Platform      // of what is added or annotated; nil is that of its config, or leaves it
}

// EditIndex changes an index, or makes one, and gives it its name, or that of
// the options.
func (e *Engine) EditIndex(ctx context.Context, name string, c IndexChange, o EditOptions) (transfer.Result, error) {
	r, err := e.editIndex(ctx, name, c, o)
	if err != nil {
		return r, fmt.Errorf("index %s: %w", name, err)
	}
	return r, nil
}

func (e *Engine) editIndex(ctx context.Context, name string, c IndexChange, o EditOptions) (_ transfer.Result, err error) {
	to, err := e.editTarget(ctx, name, o.Tag)
	if err != nil {
		return transfer.Result{}, err
	}
	d := e.BeginEdit(o)
	defer func() { err = errors.Join(err, d.Close()) }()
	x := mutate.NewIndex()
	if !c.Create {
		root, err := d.Open(ctx, name)
		if err == nil {
			x, err = mutate.LoadIndex(ctx, d, root)
		}
		if err != nil {
			return transfer.Result{}, err
		}
	}
	for _, step := range []func(context.Context, *v1.Index, IndexChange) error{d.removeEntries, d.addEntries, d.annotateEntries} {
		if err := step(ctx, &x, c); err != nil {
			return transfer.Result{}, err
		}
	}
	x.Annotations = mutate.Annotate(x.Annotations, c.Annotations)
	desc, err := mutate.PutIndex(ctx, d, x)
	if err != nil {
		return transfer.Result{}, err
	}
	return d.Finish(ctx, desc, to)
}

func (d *Edit) removeEntries(_ context.Context, x *v1.Index, c IndexChange) error {
	for _, s := range c.Remove {
		if err := mutate.EditEntries(x, s.String(), s.matches, func(v1.Descriptor) *v1.Descriptor { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (d *Edit) annotateEntries(_ context.Context, x *v1.Index, c IndexChange) error {
	for _, s := range c.Annotate {
		err := mutate.EditEntries(x, s.String(), s.matches, func(entry v1.Descriptor) *v1.Descriptor {
			entry.Annotations = mutate.Annotate(entry.Annotations, c.EntryAnnotations)
			if c.Platform != nil {
				entry.Platform = c.Platform
			}
			return &entry
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Edit) addEntries(ctx context.Context, x *v1.Index, c IndexChange) error {
	for _, name := range c.Add {
		desc, err := d.Open(ctx, name)
		if err != nil {
			return err
		}
		entries := []v1.Descriptor{desc}
		if c.Flat && image.KindOf(desc) == image.KindIndex {
			other, err := mutate.LoadIndex(ctx, d, desc)
			if err != nil {
				return err
			}
			entries = other.Manifests
		}
		for _, entry := range entries {
			if err := d.addEntry(ctx, x, entry, c); err != nil {
				return fmt.Errorf("add %s: %w", name, err)
			}
		}
	}
	return nil
}

// addEntry adds an entry. One that another index has is taken as it stands
// there, as long as there is something behind it.
func (d *Edit) addEntry(ctx context.Context, x *v1.Index, desc v1.Descriptor, c IndexChange) error {
	if c.Flat && c.Platform == nil && desc.Platform != nil {
		if _, err := d.Fetch(ctx, desc); errors.Is(err, fs.ErrNotExist) {
			return nil // the other index is sparse
		}
		return mutate.AddEntry(x, desc, c.Replace)
	}
	desc.Annotations = nil
	entry, err := mutate.Entry(ctx, d, desc, c.Platform)
	if err != nil {
		return err
	}
	entry.Annotations = mutate.Annotate(entry.Annotations, c.EntryAnnotations)
	return mutate.AddEntry(x, entry, c.Replace)
}

// IndexTree is an index with the indexes in it.
type IndexTree struct {
	Descriptor v1.Descriptor
	Index      v1.Index
	Raw        []byte
	Nested     map[digest.Digest]*IndexTree
}

// InspectIndex reads an index and those in it, as far as they are there.
func (e *Engine) InspectIndex(ctx context.Context, name string, registry Registry) (_ *IndexTree, err error) {
	src, err := e.OpenSource(ctx, name, registry)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	budget := maxIndexDocuments
	x, err := readIndexTree(ctx, src, src.Root(), 0, &budget)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", name, err)
	}
	return x, nil
}

const (
	maxIndexDepth     = 8
	maxIndexDocuments = 256
)

func readIndexTree(ctx context.Context, f image.Fetcher, desc v1.Descriptor, depth int, budget *int) (*IndexTree, error) {
	if *budget--; *budget < 0 || depth > maxIndexDepth {
		return nil, fmt.Errorf("%s: more than %d indexes, or nested more than %d deep", desc.Digest, maxIndexDocuments, maxIndexDepth)
	}
	if err := image.CheckDocument(desc, image.KindIndex); err != nil {
		return nil, err
	}
	data, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	x, err := image.DecodeIndex(desc, data)
	if err != nil {
		return nil, err
	}
	t := &IndexTree{desc, x, data, map[digest.Digest]*IndexTree{}}
	for _, d := range x.Manifests {
		if image.KindOf(d) != image.KindIndex || t.Nested[d.Digest] != nil {
			continue
		}
		n, err := readIndexTree(ctx, f, d, depth+1, budget)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			t.Nested[d.Digest] = n
		}
	}
	return t, nil
}
