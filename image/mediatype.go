package image

import v1 "github.com/opencontainers/image-spec/specs-go/v1"

// Docker's names for the documents and layers that OCI later standardised,
// from the Image Manifest Version 2, Schema 2 specification.
const (
	MediaTypeDockerManifest          = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig            = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer             = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip         = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeDockerLayerZstd         = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	MediaTypeDockerForeignLayer      = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	MediaTypeDockerForeignLayerGzip  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	MediaTypeDockerSchema1           = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1PrettyJWS  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	ociNonDistributableLayerTypeStem = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// Kind says what sort of thing a media type names.
type Kind uint8

const (
	KindUnknown Kind = iota
	KindManifest
	KindIndex
	KindConfig
	KindLayer
	KindSchema1
)

func (k Kind) String() string {
	switch k {
	case KindManifest:
		return "manifest"
	case KindIndex:
		return "index"
	case KindConfig:
		return "config"
	case KindLayer:
		return "layer"
	case KindSchema1:
		return "Docker schema 1 manifest"
	}
	return "blob"
}

// Compression is how a layer's tar stream is wrapped.
type Compression string

const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

func (c Compression) String() string {
	if c == Uncompressed {
		return "uncompressed"
	}
	return string(c)
}

// MediaType is one row of the table of media types that images are made of.
type MediaType struct {
	Name        string
	Kind        Kind
	Compression Compression // of a layer
	Docker      bool        // one of Docker's names, not one of OCI's
	Foreign     bool        // a layer that may have to be fetched from its URLs
	Encrypted   bool        // a layer whose name without "+encrypted" is that of what is in it (the ocicrypt project's)
}

// mediaTypes is the one table, read in both directions and never written.
var mediaTypes = [...]MediaType{
	{Name: v1.MediaTypeImageManifest, Kind: KindManifest},
	{Name: v1.MediaTypeImageIndex, Kind: KindIndex},
	{Name: v1.MediaTypeImageConfig, Kind: KindConfig},
	{Name: v1.MediaTypeImageLayer, Kind: KindLayer},
	{Name: v1.MediaTypeImageLayerGzip, Kind: KindLayer, Compression: Gzip},
	{Name: v1.MediaTypeImageLayerZstd, Kind: KindLayer, Compression: Zstd},
	{Name: ociNonDistributableLayerTypeStem, Kind: KindLayer, Foreign: true},
	{Name: ociNonDistributableLayerTypeStem + "+gzip", Kind: KindLayer, Compression: Gzip, Foreign: true},
	{Name: ociNonDistributableLayerTypeStem + "+zstd", Kind: KindLayer, Compression: Zstd, Foreign: true},
	{Name: v1.MediaTypeImageLayer + "+encrypted", Kind: KindLayer, Encrypted: true},
	{Name: v1.MediaTypeImageLayerGzip + "+encrypted", Kind: KindLayer, Compression: Gzip, Encrypted: true},
	{Name: v1.MediaTypeImageLayerZstd + "+encrypted", Kind: KindLayer, Compression: Zstd, Encrypted: true},
	{Name: ociNonDistributableLayerTypeStem + "+encrypted", Kind: KindLayer, Foreign: true, Encrypted: true},
	{Name: ociNonDistributableLayerTypeStem + "+gzip+encrypted", Kind: KindLayer, Compression: Gzip, Foreign: true, Encrypted: true},
	{Name: ociNonDistributableLayerTypeStem + "+zstd+encrypted", Kind: KindLayer, Compression: Zstd, Foreign: true, Encrypted: true},
	{Name: MediaTypeDockerManifest, Kind: KindManifest, Docker: true},
	{Name: MediaTypeDockerManifestList, Kind: KindIndex, Docker: true},
	{Name: MediaTypeDockerConfig, Kind: KindConfig, Docker: true},
	{Name: MediaTypeDockerLayer, Kind: KindLayer, Docker: true},
	{Name: MediaTypeDockerLayerGzip, Kind: KindLayer, Compression: Gzip, Docker: true},
	{Name: MediaTypeDockerLayerZstd, Kind: KindLayer, Compression: Zstd, Docker: true},
	{Name: MediaTypeDockerForeignLayer, Kind: KindLayer, Docker: true, Foreign: true},
	{Name: MediaTypeDockerForeignLayerGzip, Kind: KindLayer, Compression: Gzip, Docker: true, Foreign: true},
	{Name: MediaTypeDockerSchema1, Kind: KindSchema1, Docker: true},
	{Name: MediaTypeDockerSchema1PrettyJWS, Kind: KindSchema1, Docker: true},
}

// LookupMediaType finds the row of a media type. For one that images do not
// use, it returns a row of KindUnknown with that name.
func LookupMediaType(name string) MediaType {
	for _, m := range mediaTypes {
		if m.Name == name {
			return m
		}
	}
	return MediaType{Name: name}
}

// KindOf is the kind of thing a descriptor points to.
func KindOf(desc v1.Descriptor) Kind { return LookupMediaType(desc.MediaType).Kind }

// LayerMediaType is OCI's name for a layer compressed with c.
func LayerMediaType(c Compression) string {
	return MediaType{Kind: KindLayer, Compression: c}.OCI().Name
}

// OCI is OCI's media type for the same thing; m itself where there is none.
func (m MediaType) OCI() MediaType {
	for _, o := range mediaTypes {
		if o.Kind == m.Kind && o.Compression == m.Compression && o.Foreign == m.Foreign && o.Encrypted == m.Encrypted && !o.Docker {
			return o
		}
	}
	return m
}

// DockerType is Docker's media type for the same thing; m itself where there
// is none.
func (m MediaType) DockerType() MediaType {
	for _, d := range mediaTypes {
		if d.Kind == m.Kind && d.Compression == m.Compression && d.Foreign == m.Foreign && d.Docker {
			return d
		}
	}
	return m
}
