package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

// treePrinter prints what a name stands for, all the way down: indexes,
// manifests, configs and layers with their sizes.
type treePrinter struct {
	ctx context.Context
	src transfer.Source
	w   io.Writer
	all bool // whole digests
}

// maxTreeDepth is deeper than anybody nests indexes.
const maxTreeDepth = 16

func (p treePrinter) print(name string) error {
	fmt.Fprintln(p.w, printable(name))
	return p.node(p.src.Root(), "", "", 0)
}

// node prints a descriptor after the branch, and what it leads to below it.
func (p treePrinter) node(desc v1.Descriptor, branch, below string, depth int) error {
	kind := image.KindOf(desc)
	what := kind.String()
	if kind == image.KindUnknown {
		what = cmp.Or(desc.ArtifactType, desc.MediaType, "unknown")
	}
	line := branch + printable(what)
	if desc.Platform != nil {
		line += " " + image.PlatformString(*desc.Platform)
	}
	line += "  " + p.digest(desc) + "  " + sizeText(desc.Size)
	if kind == image.KindLayer {
		line += "  " + layerText(desc)
	}
	if kind != image.KindIndex && kind != image.KindManifest {
		fmt.Fprintln(p.w, line)
		return nil
	}
	children, note, err := p.children(desc, kind, depth)
	if err != nil {
		return err
	}
	if note != "" {
		line += "  " + printable(note)
	}
	fmt.Fprintln(p.w, line)
	for i, child := range children {
		mark, indent := "├── ", "│   "
		if i == len(children)-1 {
			mark, indent = "└── ", "    "
		}
		if err := p.node(child, below+mark, below+indent, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (p treePrinter) digest(desc v1.Descriptor) string {
	if p.all {
		return string(desc.Digest)
	}
	return shortDigest(desc.Digest)
}

func layerText(desc v1.Descriptor) string {
	m := image.LookupMediaType(desc.MediaType)
	return cmp.Or(m.Compression, "tar").String()
}

// children are what a document leads to, and what else there is to say of it.
func (p treePrinter) children(desc v1.Descriptor, kind image.Kind, depth int) (list []v1.Descriptor, note string, err error) {
	if depth >= maxTreeDepth {
		return nil, "deeper than is shown", nil
	}
	data, err := p.src.Fetch(p.ctx, desc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "not here", nil
	}
	if err != nil {
		return nil, "", err
	}
	if kind == image.KindIndex {
		index, err := image.DecodeIndex(desc, data)
		return index.Manifests, index.ArtifactType, err
	}
	m, err := image.DecodeManifest(desc, data)
	if err != nil {
		return nil, "", err
	}
	note = m.ArtifactType
	if m.Subject != nil {
		note = fmt.Sprintf("%s about %s", note, p.digest(*m.Subject))
	}
	return append([]v1.Descriptor{m.Config}, m.Layers...), note, nil
}
