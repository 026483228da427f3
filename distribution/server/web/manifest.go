package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// document is a manifest or index, as far as there is something to show of it.
type document struct {
	MediaType    string
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Blobs        []ocispec.Descriptor `json:"blobs"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// parseDocument shows what it can of a manifest with fields of other types than ours.
func parseDocument(m storage.Manifest) document {
	var doc document
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		doc.Subject = nil // a part may have been read
	}
	doc.MediaType = m.MediaType
	return doc
}

func (d *document) isIndex() bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == distribution.MediaTypeDockerManifestList
}

func (d *document) isImage() bool {
	return d.ArtifactType == "" && d.Config != nil &&
		(d.Config.MediaType == ocispec.MediaTypeImageConfig || d.Config.MediaType == "application/vnd.docker.container.image.v1+json")
}

// kind is a word for what it is.
func (d *document) kind() string {
	switch {
	case d.isIndex():
		return "index"
	case d.isImage():
		return "image"
	}
	return "artifact"
}

// sizeBytes adds up what a manifest names; an index only names manifests.
func (d *document) sizeBytes() (sum int64) {
	if d.Config != nil {
		sum = max(d.Config.Size, 0)
	}
	for _, desc := range slices.Concat(d.Layers, d.Blobs) {
		if sum += max(desc.Size, 0); sum < 0 { // more than there can be
			return 0
		}
	}
	return sum
}

// manifestPage is all about a manifest.
type manifestPage struct {
	Tag       string // that it was asked for by
	Digest    digest.Digest
	MediaType string
	Kind      string
	Type      string // of an artifact
	SizeBytes int64  // of all that it names
	Subject   digest.Digest

	Platforms   []platformRow
	Image       *imagePart
	Layers      []layerRow
	Hidden      int // of those two lists
	Annotations []pair
	Referrers   []referrerRow
	Unread      bool // there are more referrers
}

type platformRow struct {
	Platform string
	Type     string
	Digest   digest.Digest
	Here     bool
	Bytes    int64 // of all that it names, 0 if that is not here
	Note     string
}

type layerRow struct {
	Digest  digest.Digest
	Type    string
	Bytes   int64
	Title   string // of an artifact's file
	Command string // that made it
}

type referrerRow struct {
	Type    string
	Digest  digest.Digest
	Bytes   int64
	Created string
}

// imagePart is what an image's config says.
type imagePart struct {
	Platform string
	Created  *time.Time
	Author   string
	Facts    []pair
	Labels   []pair
}

type pair struct{ Key, Value string }

const (
	maxRows        = 500
	maxPairs       = 200
	maxConfigBytes = 4 << 20
	// maxReferrersBytes is how much of the list of referrers is read.
	maxReferrersBytes = 128 << 10
)

func (h *Handler) manifest(q *request, target string) (*page, error) {
	m, err := h.opts.Store.Manifest(q.Context(), q.name, target)
	if err != nil {
		return nil, err
	}
	doc := parseDocument(m)
	p := &manifestPage{
		Digest: m.Digest, MediaType: m.MediaType, Kind: doc.kind(), SizeBytes: doc.sizeBytes(),
		Annotations: pairs(doc.Annotations),
	}
	title := q.name + "@" + shortDigest(m.Digest)
	if !strings.Contains(target, ":") {
		p.Tag, title = target, q.name+":"+target
	}
	if p.Kind == "artifact" {
		p.Type = doc.ArtifactType
		if p.Type == "" && doc.Config != nil {
			p.Type = doc.Config.MediaType
		}
	}
	if doc.Subject != nil {
		if d, err := distribution.ParseDigest(doc.Subject.Digest.String()); err == nil {
			p.Subject = d
		}
	}
	if err := h.platforms(q, doc, p); err != nil {
		return nil, err
	}
	var history []ocispec.History
	if doc.isImage() {
		if p.Image, history, err = h.image(q, doc.Config.Digest); err != nil {
			return nil, err
		}
	}
	p.layers(slices.Concat(doc.Layers, doc.Blobs), history)
	if err := h.referrers(q, m.Digest, p); err != nil {
		return nil, err
	}
	return &page{Title: title, Name: q.name, Manifest: p}, nil
}

// platforms lists what an index names.
func (h *Handler) platforms(q *request, doc document, p *manifestPage) error {
	for i, desc := range doc.Manifests {
		if i == maxRows {
			p.Hidden += len(doc.Manifests) - maxRows
			return nil
		}
		row := platformRow{Platform: platformText(desc.Platform), Type: cmp.Or(desc.ArtifactType, desc.MediaType), Note: desc.Annotations["vnd.docker.reference.type"]}
		if d, err := distribution.ParseDigest(desc.Digest.String()); err == nil {
			row.Digest = d
			m, err := h.opts.Store.Manifest(q.Context(), q.name, d.String())
			if err != nil && !errors.Is(err, storage.ErrNotExist) {
				return err
			}
			if row.Here = err == nil; row.Here {
				child := parseDocument(m)
				row.Bytes, row.Type = child.sizeBytes(), cmp.Or(desc.ArtifactType, child.kind())
			}
		}
		p.Platforms = append(p.Platforms, row)
	}
	return nil
}

// image reads a config; one that is not here, as a copy's may not be, is nil.
func (h *Handler) image(q *request, d digest.Digest) (*imagePart, []ocispec.History, error) {
	config, err := h.config(q.Context(), q.name, d)
	if err != nil || config == nil {
		return nil, nil, err
	}
	c := config.Config
	part := &imagePart{Platform: platformText(&config.Platform), Created: config.Created, Author: config.Author, Labels: pairs(c.Labels)}
	add := func(key string, values ...string) {
		if len(values) > maxPairs {
			values = append(slices.Clone(values[:maxPairs]), "…")
		}
		for _, value := range values {
			if value != "" {
				part.Facts = append(part.Facts, pair{key, value})
			}
			key = ""
		}
	}
	add("Entrypoint", jsonText(c.Entrypoint))
	add("Command", jsonText(c.Cmd))
	add("User", c.User)
	add("Directory", c.WorkingDir)
	add("Ports", strings.Join(slices.Sorted(maps.Keys(c.ExposedPorts)), " "))
	add("Volumes", strings.Join(slices.Sorted(maps.Keys(c.Volumes)), " "))
	add("Stop signal", c.StopSignal)
	add("Environment", c.Env...)
	return part, config.History, nil
}

func (h *Handler) config(ctx context.Context, repo string, d digest.Digest) (*ocispec.Image, error) {
	if _, err := distribution.ParseDigest(d.String()); err != nil {
		return nil, nil
	}
	r, size, err := h.opts.Store.Blob(ctx, repo, d)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxConfigBytes {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, maxConfigBytes))
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if json.Unmarshal(data, &config) != nil {
		return nil, nil // whoever made it, it is no config
	}
	return &config, nil
}

// layers lists blobs, with the commands that made them where there is one for each.
func (p *manifestPage) layers(blobs []ocispec.Descriptor, history []ocispec.History) {
	history = slices.DeleteFunc(slices.Clone(history), func(h ocispec.History) bool { return h.EmptyLayer })
	for i, desc := range blobs {
		if i == maxRows {
			p.Hidden += len(blobs) - maxRows
			return
		}
		row := layerRow{Digest: desc.Digest, Type: desc.MediaType, Bytes: desc.Size, Title: desc.Annotations[ocispec.AnnotationTitle]}
		if len(history) == len(blobs) {
			row.Command = history[i].CreatedBy
		}
		p.Layers = append(p.Layers, row)
	}
}

func (h *Handler) referrers(q *request, d digest.Digest, p *manifestPage) error {
	list, more, err := h.opts.Store.Referrers(q.Context(), q.name, d, "", nil, maxReferrersBytes)
	if err != nil {
		return err
	}
	p.Unread = more
	for i, desc := range list {
		if i == maxRows {
			p.Unread = true
			break
		}
		p.Referrers = append(p.Referrers, referrerRow{
			Type: cmp.Or(desc.ArtifactType, desc.MediaType), Digest: desc.Digest, Bytes: desc.Size,
			Created: desc.Annotations[ocispec.AnnotationCreated],
		})
	}
	return nil
}

func pairs(values map[string]string) (list []pair) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if len(list) == maxPairs {
			return append(list, pair{"…", ""})
		}
		list = append(list, pair{key, values[key]})
	}
	return list
}
