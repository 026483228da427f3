package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Bounds on what one copy takes: the documents are held in memory.
const (
	maxIndexDepth     = 8
	maxDocuments      = 16384
	maxDocumentsBytes = 256 << 20
)

// document is a manifest or an index to be copied.
type document struct {
	desc v1.Descriptor
	data []byte
}

// plan is all that has to be at the destination in the end.
type plan struct {
	documents []document // children before parents, the root last
	blobs     []v1.Descriptor
}

func (p *plan) root() document { return p.documents[len(p.documents)-1] }

// planner makes a plan by walking down from a root.
type planner struct {
	plan
	source Source
	sparse bool                   // what an index lists and the source does not have is left out
	wanted map[digest.Digest]bool // of what indexes list; nil for all
	seen   map[digest.Digest]bool
	bytes  int64
}

// makePlan decides what to copy of what the source has.
func makePlan(ctx context.Context, src Source, o Options) (*plan, error) {
	p := &planner{source: src, sparse: o.Sparse, seen: map[digest.Digest]bool{}}
	root := src.Root()
	chosen, err := choose(ctx, src, o)
	switch {
	case err != nil:
		return nil, err
	case o.Sparse && len(chosen) > 0:
		p.wanted = map[digest.Digest]bool{}
		for _, img := range chosen {
			p.wanted[img.Descriptor.Digest] = true
			for _, x := range img.Indexes {
				p.wanted[x.Digest] = true
			}
		}
	case len(chosen) == 1:
		root = chosen[0].Descriptor
	}
	if kind := image.KindOf(root); kind != image.KindManifest && kind != image.KindIndex {
		return nil, image.CheckDocument(root, image.KindManifest)
	}
	if err := p.add(ctx, root, 0); err != nil {
		return nil, err
	}
	return &p.plan, nil
}

// choose finds the images for the platforms that the options name; none, if
// all is to be copied. By itself an index stands for this machine's platform,
// while a manifest is what was asked for, whatever it is.
func choose(ctx context.Context, src Source, o Options) ([]*image.Image, error) {
	platforms := o.Platforms
	switch {
	case len(platforms) > 0 && o.All:
		return nil, errors.New("all platforms and only some cannot be had at once")
	case len(platforms) > 1 && !o.Sparse:
		return nil, errors.New("several platforms need a sparse index")
	case o.All, len(platforms) == 0 && image.KindOf(src.Root()) != image.KindIndex:
		return nil, nil
	case len(platforms) == 0:
		platforms = []v1.Platform{image.HostPlatform()}
	}
	var chosen []*image.Image
	for _, platform := range platforms {
		img, err := image.Select(ctx, src, src.Root(), platform)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, img)
	}
	return chosen, nil
}

// add puts a document and all below it into the plan.
func (p *planner) add(ctx context.Context, desc v1.Descriptor, depth int) error {
	if p.seen[desc.Digest] {
		return nil
	}
	p.seen[desc.Digest] = true
	if depth > maxIndexDepth {
		return fmt.Errorf("index %s: nested more than %d deep", desc.Digest, maxIndexDepth)
	}
	data, refs, err := p.read(ctx, desc)
	if errors.Is(err, fs.ErrNotExist) && p.sparse && depth > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range refs {
		if err := p.follow(ctx, desc, r, depth); err != nil {
			return err
		}
	}
	p.documents = append(p.documents, document{desc, data})
	return nil
}

func (p *planner) read(ctx context.Context, desc v1.Descriptor) ([]byte, []image.Reference, error) {
	if err := image.CheckDocument(desc, image.KindOf(desc)); err != nil {
		return nil, nil, err
	}
	p.bytes += desc.Size
	if len(p.documents) >= maxDocuments || p.bytes > maxDocumentsBytes {
		return nil, nil, fmt.Errorf("%s %s: more than %d documents, or %d bytes of them, to copy", image.KindOf(desc), desc.Digest,
			maxDocuments, maxDocumentsBytes)
	}
	data, err := p.source.Fetch(ctx, desc)
	if err != nil {
		return nil, nil, err
	}
	refs, err := image.References(desc, data)
	return data, refs, err
}

// follow plans for one reference of a document.
func (p *planner) follow(ctx context.Context, parent v1.Descriptor, r image.Reference, depth int) error {
	fromIndex := image.KindOf(parent) == image.KindIndex
	switch kind := image.KindOf(r.Desc); {
	case r.Field == "subject":
		return nil // what an artifact is about is a thing of its own
	case fromIndex && p.wanted != nil && !p.wanted[r.Desc.Digest]:
		return nil
	case kind == image.KindManifest, kind == image.KindIndex:
		if !fromIndex { // a layer or config that is a manifest is content like any other
			break
		}
		return p.add(ctx, r.Desc, depth+1)
	case elsewhere(r.Desc):
		return nil
	}
	if !p.seen[r.Desc.Digest] {
		p.seen[r.Desc.Digest] = true
		p.blobs = append(p.blobs, r.Desc)
	}
	return nil
}

// elsewhere says whether a layer is one that its publisher allows to be had
// from certain URLs only (layer.md, "Non-Distributable Layers").
func elsewhere(desc v1.Descriptor) bool {
	return image.LookupMediaType(desc.MediaType).Foreign && len(desc.URLs) > 0
}
