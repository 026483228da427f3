package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layout"
)

const (
	dockerManifestFile = "manifest.json"
	repositoriesFile   = "repositories"
	maxDockerImages    = 4096
	maxTags            = 1 << 14   // of all images
	maxMadeBytes       = 256 << 20 // of configs and manifests, which are held in memory
)

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// readDocker finds the images of a docker archive and makes the manifests that
// it does not have.
func (a *Archive) readDocker(ctx context.Context) error {
	a.made, a.blobs, a.hashes = map[digest.Digest][]byte{}, map[digest.Digest]member{}, map[int64]digest.Digest{}
	switch {
	case a.members.has(dockerManifestFile):
		return a.readDockerManifest(ctx)
	case a.members.has(repositoriesFile):
		return a.readLegacy(ctx)
	}
	return a.in(fmt.Errorf("neither an OCI archive (%s) nor a docker archive (%s): it has %s", v1.ImageLayoutFile, dockerManifestFile, a.members.some()))
}

// some names a few members, for who has opened the wrong archive.
func (m *members) some() string {
	var names []string
	for name := range m.all {
		names = append(names, fmt.Sprintf("%.60q", name))
	}
	slices.Sort(names)
	if len(names) > 4 {
		names = append(names[:4], "…")
	}
	return strings.Join(names, ", ")
}

func (a *Archive) readDockerManifest(ctx context.Context) error {
	data, err := a.members.read(dockerManifestFile, maxIndexBytes)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return a.members.memberError(dockerManifestFile, fmt.Errorf(format, args...))
	}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")) {
		return bad("not a list of images, as in a docker archive")
	}
	var images []dockerImage
	if err := json.Unmarshal(data, &images); err != nil {
		return bad("%w", err)
	}
	if len(images) > maxDockerImages {
		return bad("%d images, more than %d", len(images), maxDockerImages)
	}
	for i, img := range images {
		if len(img.Layers) > image.MaxLayers {
			return bad("[%d]: %d layers, more than %d", i, len(img.Layers), image.MaxLayers)
		}
		config, err := a.members.read(img.Config, image.MaxDocumentBytes)
		if err != nil {
			return fmt.Errorf("image %d: config: %w", i, err)
		}
		if err := a.addImage(ctx, config, img.Layers, img.RepoTags); err != nil {
			return a.in(fmt.Errorf("%s: image %d: %w", dockerManifestFile, i, err))
		}
	}
	return nil
}

// addImage makes the manifest of an image.
func (a *Archive) addImage(ctx context.Context, config []byte, layers, names []string) error {
	if len(a.names)+len(names) > maxTags {
		return fmt.Errorf("more than %d tags", maxTags)
	}
	configDesc, err := a.make(v1.MediaTypeImageConfig, config)
	if err != nil {
		return err
	}
	decoded, err := image.DecodeConfig(configDesc, config)
	if err != nil {
		return err
	}
	if n, m := len(layers), len(decoded.RootFS.DiffIDs); n != m {
		return fmt.Errorf("%d layers, but the config has %d", n, m)
	}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: configDesc,
		Layers: []v1.Descriptor{}}
	for i, name := range layers {
		desc, err := a.layer(ctx, name, decoded.RootFS.DiffIDs[i])
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		manifest.Layers = append(manifest.Layers, desc)
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	desc, err := a.make(v1.MediaTypeImageManifest, data)
	if err != nil {
		return err
	}
	platform := image.NormalizePlatform(decoded.Platform)
	desc.Platform = &platform
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if name != "" {
			if err := layout.CheckName(name); err != nil {
				return fmt.Errorf("RepoTags: %w", err)
			}
		}
		a.names = append(a.names, layout.Name{Name: name, Desc: desc})
	}
	return nil
}

// make adds a document that the archive does not have in this form.
func (a *Archive) make(mediaType string, data []byte) (v1.Descriptor, error) {
	d := digest.FromBytes(data)
	if _, ok := a.made[d]; !ok {
		a.made[d] = data
		if a.madeBytes += len(data); a.madeBytes > maxMadeBytes {
			return v1.Descriptor{}, fmt.Errorf("%w: configs of more than %d bytes", layer.ErrLimit, maxMadeBytes)
		}
	}
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, nil
}

// layer describes a layer. Of an uncompressed one, as docker save writes them,
// the digest is the DiffID, which is verified when the layer is read; of
// another, as docker load takes them, it has to be computed.
func (a *Archive) layer(ctx context.Context, name string, diffID digest.Digest) (v1.Descriptor, error) {
	found, err := a.members.find(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	head := make([]byte, min(8, found.sizeBytes))
	if _, err := a.members.file.ReadAt(head, found.offset); err != nil {
		return v1.Descriptor{}, a.members.memberError(name, err)
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: diffID, Size: found.sizeBytes}
	if compressed(head) {
		desc.MediaType = image.LayerMediaType(image.Gzip)
		if head[0] != 0x1f {
			desc.MediaType = image.LayerMediaType(image.Zstd)
		}
		if desc.Digest, err = a.hash(ctx, name, found); err != nil {
			return v1.Descriptor{}, err
		}
	}
	if other, ok := a.blobs[desc.Digest]; ok && other.sizeBytes != desc.Size {
		return v1.Descriptor{}, a.members.memberError(name, fmt.Errorf("%d bytes, and %d under another name", desc.Size, other.sizeBytes))
	}
	a.blobs[desc.Digest] = found
	return desc, nil
}

// hash reads a member, once however many images name it.
func (a *Archive) hash(ctx context.Context, name string, found member) (digest.Digest, error) {
	if d, ok := a.hashes[found.offset]; ok {
		return d, nil
	}
	h := digest.Canonical.Digester()
	if _, err := io.Copy(h.Hash(), &contextReader{ctx, a.members.open(found, 0)}); err != nil {
		return "", a.members.memberError(name, err)
	}
	a.hashes[found.offset] = h.Digest()
	return h.Digest(), nil
}

// readLegacy reads an archive from before Docker 1.10: a directory for each
// layer, whose json has the layer's parent and, of the topmost, the config.
func (a *Archive) readLegacy(ctx context.Context) error {
	data, err := a.members.read(repositoriesFile, maxIndexBytes)
	if err != nil {
		return err
	}
	var repositories map[string]map[string]string
	if err := image.Unmarshal(data, &repositories); err != nil {
		return a.members.memberError(repositoriesFile, err)
	}
	names := map[string][]string{} // of the topmost layer's ID
	for repository, tags := range repositories {
		for tag, id := range tags {
			names[id] = append(names[id], repository+":"+tag)
		}
	}
	if len(names) > maxDockerImages {
		return a.members.memberError(repositoriesFile, fmt.Errorf("%d images, more than %d", len(names), maxDockerImages))
	}
	ids := make([]string, 0, len(names))
	for id := range names {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		slices.Sort(names[id])
		config, layers, err := a.legacyImage(ctx, id)
		if err == nil {
			err = a.addImage(ctx, config, layers, names[id])
		}
		if err != nil {
			return a.in(fmt.Errorf("%s: image %.100q: %w", repositoriesFile, id, err))
		}
	}
	return nil
}

// legacyLayer is what matters of a layer's json but the config.
type legacyLayer struct {
	v1.History
	Parent          string `json:"parent"`
	Throwaway       bool   `json:"throwaway"`
	ContainerConfig struct {
		Cmd []string `json:"Cmd"`
	} `json:"container_config"`
}

// legacyImage makes the config that docker load makes of such an image.
func (a *Archive) legacyImage(ctx context.Context, top string) (config []byte, layers []string, err error) {
	var history []v1.History
	var diffIDs []digest.Digest
	var topJSON []byte
	for id := top; id != ""; {
		if len(history) >= image.MaxLayers {
			return nil, nil, fmt.Errorf("more than %d layers, or a circle of parents", image.MaxLayers)
		}
		name := path.Join(id, "json")
		data, err := a.members.read(name, image.MaxDocumentBytes)
		if err != nil {
			return nil, nil, err
		}
		var l legacyLayer
		if err := image.Unmarshal(data, &l); err != nil {
			return nil, nil, a.members.memberError(name, err)
		}
		if topJSON == nil {
			topJSON = data
		}
		h := l.History
		h.CreatedBy, h.EmptyLayer = strings.Join(l.ContainerConfig.Cmd, " "), l.Throwaway
		history = append(history, h)
		if !l.Throwaway {
			tarName := path.Join(id, "layer.tar")
			d, err := a.diffID(ctx, tarName)
			if err != nil {
				return nil, nil, err
			}
			layers, diffIDs = append(layers, tarName), append(diffIDs, d)
		}
		id = l.Parent
	}
	slices.Reverse(history)
	slices.Reverse(layers)
	slices.Reverse(diffIDs)
	config, err = legacyConfig(topJSON, diffIDs, history)
	return config, layers, err
}

func (a *Archive) diffID(ctx context.Context, name string) (digest.Digest, error) {
	found, err := a.members.find(name)
	if err != nil {
		return "", err
	}
	return a.hash(ctx, name, found)
}

// legacyConfig turns the json of the topmost layer into a config.
func legacyConfig(data []byte, diffIDs []digest.Digest, history []v1.History) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	for _, key := range []string{"id", "parent", "Size", "parent_id", "layer_id", "throwaway"} {
		delete(fields, key)
	}
	var err error
	set := func(key string, value any) {
		raw, e := json.Marshal(value)
		fields[key], err = raw, errors.Join(err, e)
	}
	if diffIDs == nil {
		diffIDs = []digest.Digest{}
	}
	set("rootfs", v1.RootFS{Type: "layers", DiffIDs: diffIDs})
	set("history", history)
	for key, value := range map[string]string{"architecture": "amd64", "os": "linux"} { // before Docker 0.10 there was nothing else
		if _, ok := fields[key]; !ok {
			set(key, value)
		}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}
