package transfer

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Retyped is a Destination that takes images in other media types than they
// have: those of OCI or those of Docker (Image Manifest Version 2, Schema 2).
// Configs and layers keep their bytes; the manifest does not, so its digest
// changes where its types do.
func Retyped(d Destination, docker bool) ImageWriter { return &retyped{d, docker} }

type retyped struct {
	Destination
	docker bool
}

func (d *retyped) convert(mediaType string) string {
	m := image.LookupMediaType(mediaType)
	if d.docker {
		return m.DockerType().Name
	}
	return m.OCI().Name
}

// PutImage implements ImageWriter.
func (d *retyped) PutImage(ctx context.Context, src Source, img *image.Image, p Progress) (v1.Descriptor, error) {
	data, err := src.Fetch(ctx, img.Descriptor)
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, desc := img.Manifest, img.Descriptor
	mediaType := d.convert(desc.MediaType)
	changed := manifest.MediaType != mediaType
	manifest.MediaType = mediaType
	for _, l := range manifest.Layers {
		if d.docker && image.LookupMediaType(l.MediaType).Compression == image.Zstd {
			return v1.Descriptor{}, fmt.Errorf("layer %s: %s: no tool of Docker's reads zstd in its own media types", l.Digest, l.MediaType)
		}
	}
	retype := func(l v1.Descriptor) v1.Descriptor {
		to := d.convert(l.MediaType)
		changed = changed || to != l.MediaType
		l.MediaType = to
		return l
	}
	blobs := []v1.Descriptor{img.Manifest.Config}
	manifest.Config = retype(img.Manifest.Config)
	manifest.Layers = make([]v1.Descriptor, len(img.Manifest.Layers))
	for i, l := range img.Manifest.Layers {
		manifest.Layers[i] = retype(l)
		if !elsewhere(l) {
			blobs = append(blobs, l)
		}
	}
	if changed {
		if data, err = json.Marshal(manifest); err != nil {
			return v1.Descriptor{}, err
		}
		desc = v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data)), Platform: desc.Platform}
	}
	c := copier{source: src, destination: d.Destination, progress: p}
	if err := c.putBlobs(ctx, blobs); err != nil {
		return v1.Descriptor{}, err
	}
	return desc, d.PutRoot(ctx, desc, data)
}
