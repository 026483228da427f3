package layout

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
)

// maxLayerBytes bounds what is unpacked of one layer.
const maxLayerBytes = 128 << 30

// unpackedLayer is a layer and what an image says is in it.
type unpackedLayer struct {
	desc   v1.Descriptor
	diffID digest.Digest
}

// checkImage notes the layers of an image, to be unpacked, and judges what
// manifest and config say of each other.
func (c *check) checkImage(ctx context.Context, desc v1.Descriptor) {
	if c.layers == nil || image.KindOf(desc) != image.KindManifest || c.images[desc.Digest] {
		return
	}
	c.images[desc.Digest] = true
	desc.Size = c.sizes[desc.Digest]
	if !c.isImage(ctx, desc) {
		return
	}
	img, err := image.Load(ctx, c.store, desc)
	if err != nil {
		if c.problems[desc.Digest] == nil && !c.damagedBelow(ctx, desc) {
			c.problem(desc.Digest, err.Error())
		}
		return
	}
	for i, l := range img.Manifest.Layers {
		key := unpackedLayer{v1.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}, img.Config.RootFS.DiffIDs[i]}
		from := fmt.Sprintf("manifest %s: layers[%d]", desc.Digest, i)
		at := slices.IndexFunc(c.layers, func(u usedLayer) bool { return u.sameAs(key) })
		if at < 0 {
			at = len(c.layers)
			c.layers = append(c.layers, usedLayer{unpackedLayer: key})
		}
		c.layers[at].users = append(c.layers[at].users, from)
	}
}

// isImage tells an image from an artifact, which may have any config and layers.
func (c *check) isImage(ctx context.Context, desc v1.Descriptor) bool {
	refs, err := c.store.references(ctx, desc)
	return err == nil && !slices.ContainsFunc(refs, func(r image.Reference) bool {
		want := image.KindLayer
		if r.Field == "config" {
			want = image.KindConfig
		}
		return r.Field != "subject" && image.KindOf(r.Desc) != want
	})
}

// damagedBelow says whether a config's own damage is why an image can't be read.
func (c *check) damagedBelow(ctx context.Context, desc v1.Descriptor) bool {
	refs, err := c.store.references(ctx, desc)
	return err == nil && slices.ContainsFunc(refs, func(r image.Reference) bool {
		size, there := c.sizes[r.Desc.Digest]
		return c.problems[r.Desc.Digest] != nil || !there || size != r.Desc.Size
	})
}

// usedLayer is a layer with the manifests that have it.
type usedLayer struct {
	unpackedLayer
	users []string
}

func (u usedLayer) sameAs(other unpackedLayer) bool {
	return u.desc.Digest == other.desc.Digest && u.desc.MediaType == other.desc.MediaType && u.diffID == other.diffID
}

// unpackLayers computes the DiffIDs of the layers that are there and whole.
func (c *check) unpackLayers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, u := range c.layers {
		size, there := c.sizes[u.desc.Digest]
		if !there || size != u.desc.Size || c.problems[u.desc.Digest] != nil {
			continue // this has been told
		}
		if layer.IsEncrypted(u.desc.MediaType) {
			c.report.Encrypted++ // nothing is wrong with it, as far as one can see
			continue
		}
		c.report.Layers++
		group.Go(func() error {
			err := c.store.checkDiffID(ctx, u.unpackedLayer)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.report.Problems = append(c.report.Problems, Problem{Blob: u.desc.Digest, What: err.Error(), Referrers: u.users})
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Store) checkDiffID(ctx context.Context, u unpackedLayer) error {
	b, err := s.Open(ctx, u.desc)
	if err != nil {
		return err
	}
	defer b.Close()
	h, err := image.NewHash(u.diffID)
	if err != nil {
		return err
	}
	r, err := layer.Decompress(b, u.desc.MediaType)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := copyContext(ctx, h, io.LimitReader(r, maxLayerBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("unpack: %w", err)
	case n > maxLayerBytes:
		return fmt.Errorf("%w: more than %d bytes", layer.ErrLimit, int64(maxLayerBytes))
	case image.CheckSum(u.diffID, h) != nil:
		return fmt.Errorf("%w, which is %s", layer.ErrDiffID, u.diffID)
	}
	return nil
}
