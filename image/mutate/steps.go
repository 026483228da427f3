package mutate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Step is one entry of an image's history, with the layer that it made, if any.
// An image is its steps and its configuration.
type Step struct {
	History v1.History
	Desc    *v1.Descriptor // nil where there is no layer
	DiffID  digest.Digest
}

// Steps takes an image apart.
func Steps(img *image.Image) []Step {
	n := 0
	var steps []Step
	for _, h := range fullHistory(img.Config) {
		s := Step{History: h}
		if !h.EmptyLayer && n < len(img.Manifest.Layers) {
			desc := img.Manifest.Layers[n]
			s.Desc, s.DiffID = &desc, img.Config.RootFS.DiffIDs[n]
			n++
		}
		steps = append(steps, s)
	}
	return steps
}

// fullHistory is the history with an entry for every layer. It is optional, but
// where it is, other tools count it against the layers.
func fullHistory(cfg v1.Image) []v1.History {
	history := slices.Clone(cfg.History)
	for n := layersIn(history); n < len(cfg.RootFS.DiffIDs); n++ {
		history = append(history, v1.History{Created: cfg.Created, Comment: "not recorded"})
	}
	return history
}

func layersIn(history []v1.History) int {
	n := 0
	for _, h := range history {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

func splitSteps(steps []Step) (diffIDs []digest.Digest, history []v1.History) {
	diffIDs = []digest.Digest{}
	for _, s := range steps {
		if s.Desc != nil {
			diffIDs = append(diffIDs, s.DiffID)
		}
		s.History.EmptyLayer = s.Desc == nil
		history = append(history, s.History)
	}
	return diffIDs, history
}

func stepLayers(steps []Step) (layers []v1.Descriptor) {
	for _, s := range steps {
		if s.Desc != nil {
			layers = append(layers, *s.Desc)
		}
	}
	return layers
}

// cutSteps divides steps behind those that n layers belong to: entries without a
// layer go with the layer before them, as far as base, the history of a base
// image, has them too.
func cutSteps(steps []Step, n int, base []v1.History) (below, above []Step) {
	layers, i := 0, 0
	for ; i < len(steps) && (layers < n || steps[i].Desc == nil && i < len(base) && base[i].EmptyLayer); i++ {
		if steps[i].Desc != nil {
			layers++
		}
	}
	return steps[:i], steps[i:]
}

// Rebase says how to put what an image has above its old base on a new one. The
// layers of the old base must be the first of the image's, by DiffID. The
// configuration stays the image's but for the platform, which is the new base's,
// as crane rebase has it.
func Rebase(img, oldBase, newBase *image.Image) (Change, error) {
	have, old := img.Config.RootFS.DiffIDs, oldBase.Config.RootFS.DiffIDs
	if len(old) > len(have) {
		return Change{}, fmt.Errorf("image %s has %d layers, and its old base %s has %d", img.Descriptor.Digest, len(have),
			oldBase.Descriptor.Digest, len(old))
	}
	for i := range old {
		if have[i] != old[i] {
			return Change{}, fmt.Errorf("%s is not the base of image %s: layer %d is %s, and that of the base is %s",
				oldBase.Descriptor.Digest, img.Descriptor.Digest, i+1, have[i], old[i])
		}
	}
	_, above := cutSteps(Steps(img), len(old), fullHistory(oldBase.Config))
	return Change{
		Steps:  slices.Concat(Steps(newBase), above),
		Config: func(c *v1.Image) { c.Platform = newBase.Config.Platform },
	}, nil
}

// Squash says how to put one layer in place of those above the lowest keep
// layers. The entries of the history stay, as entries without a layer.
func Squash(img *image.Image, keep int, squashed Layer) Change {
	layers := 0
	steps := []Step{}
	for _, s := range Steps(img) {
		if s.Desc != nil {
			if layers++; layers > keep {
				s.Desc, s.DiffID = nil, ""
			}
		}
		steps = append(steps, s)
	}
	return Change{Steps: steps, Layers: []Layer{squashed}}
}

// Recompress says how to give the layers other blobs of the same content, in
// their order.
func Recompress(img *image.Image, blobs []v1.Descriptor) Change {
	steps := Steps(img)
	n := 0
	for i := range steps {
		if steps[i].Desc != nil {
			desc := blobs[n]
			desc.Annotations = plainAnnotations(steps[i].Desc.Annotations)
			if desc.Digest == steps[i].Desc.Digest {
				desc = *steps[i].Desc
			}
			steps[i].Desc = &desc
			n++
		}
	}
	return Change{Steps: steps}
}

// plainAnnotations are those of a layer that do not speak of how its blob is
// compressed: tables of contents of eStargz and zstd:chunked.
func plainAnnotations(all map[string]string) map[string]string {
	kept := maps.Clone(all)
	maps.DeleteFunc(kept, func(name, _ string) bool {
		return strings.HasPrefix(name, "containerd.io/snapshot/stargz/") || strings.HasPrefix(name, "io.github.containers.zstd-chunked.") ||
			strings.HasPrefix(name, "io.containers.estargz.")
	})
	if len(kept) == 0 {
		return nil
	}
	return kept
}
