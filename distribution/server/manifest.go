package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// maxTagParams bounds the tags one push may set by parameter.
const maxTagParams = 32

func (g *Registry) getManifest(q *request) error {
	m, err := g.reader.Manifest(q.Context(), q.Name, q.Argument)
	if err = q.stale(err); err != nil {
		return notExist(err, distribution.CodeManifestUnknown)
	}
	q.describe(m.MediaType, m.Digest)
	if match := q.Header.Get("If-None-Match"); match != "" && strings.Contains(match, `"`+m.Digest.String()+`"`) {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	q.w.Header()["Content-Length"] = []string{strconv.Itoa(len(m.Body))}
	if q.Method == http.MethodGet {
		q.w.Write(m.Body)
	}
	return nil
}

func (g *Registry) deleteManifest(q *request) error {
	var err error
	if strings.Contains(q.Argument, ":") {
		q.digest = digest.Digest(q.Argument)
		err = g.store.DeleteManifest(q.Context(), q.Name, q.digest)
	} else {
		err = g.store.DeleteTag(q.Context(), q.Name, q.Argument)
	}
	if err != nil {
		return notExist(err, distribution.CodeManifestUnknown)
	}
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (g *Registry) putManifest(q *request) error {
	if err := g.writable(q); err != nil {
		return err
	}
	body, err := readManifest(q, g.opts.MaxManifestBytes)
	if err != nil {
		return err
	}
	m, doc, err := parseManifest(q.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	tags := q.URL.Query()["tag"]
	if strings.Contains(q.Argument, ":") {
		m.Digest = digest.Digest(q.Argument)
		if m.Digest.Algorithm().FromBytes(body) != m.Digest {
			return distribution.Errorf(distribution.CodeDigestInvalid, "the manifest has another digest")
		}
	} else {
		m.Digest = digest.FromBytes(body)
		tags = append(tags, q.Argument)
	}
	if len(tags) > maxTagParams {
		return distribution.Errorf(distribution.CodeManifestInvalid, "more than %d tags", maxTagParams)
	}
	for _, tag := range tags {
		if distribution.ValidateTag(tag) != nil {
			return distribution.Errorf(distribution.CodeManifestInvalid, "parameter tag")
		}
	}
	m.Subject, m.Referrer = doc.referrer(m)
	complete := func() error {
		if err := g.writable(q); err != nil { // it may have become a copy just now
			return err
		}
		return g.checkDescriptors(q, doc)
	}
	if err := g.store.PutManifest(q.Context(), q.Name, m, tags, q.grant.CreateOnly, complete); err != nil {
		return err
	}
	q.digest, q.mediaType = m.Digest, m.MediaType
	header := q.w.Header()
	header.Set("Location", q.path(distribution.RouteManifest, m.Digest.String()))
	header.Set(distribution.HeaderContentDigest, m.Digest.String())
	if m.Subject != "" {
		header.Set(distribution.HeaderSubject, m.Subject.String())
	}
	for _, tag := range q.URL.Query()["tag"] {
		header.Add(distribution.HeaderTag, tag)
	}
	header.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
	return nil
}

func readManifest(q *request, limitBytes int64) ([]byte, error) {
	tooLarge := statusError{http.StatusRequestEntityTooLarge,
		distribution.Errorf(distribution.CodeManifestInvalid, "more than %d bytes", limitBytes)}
	if q.ContentLength > limitBytes {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(q.Body, limitBytes+1))
	switch {
	case err != nil:
		return nil, distribution.Errorf(distribution.CodeManifestInvalid, "the request's body ended early")
	case int64(len(body)) > limitBytes:
		return nil, tooLarge
	}
	return body, nil
}

// manifestDoc is what a registry needs to know of a manifest, image or index.
type manifestDoc struct {
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	ArtifactType string               `json:"artifactType"`
	Annotations  map[string]string    `json:"annotations"`
}

func parseManifest(contentType string, body []byte) (storage.Manifest, manifestDoc, error) {
	var doc manifestDoc
	mediaType, err := distribution.ManifestType(contentType, body)
	if err == nil && !distribution.ValidMediaType(mediaType) {
		err = errors.New("bad media type")
	}
	if err == nil {
		err = json.Unmarshal(body, &doc)
	}
	if err != nil {
		return storage.Manifest{}, doc, distribution.Errorf(distribution.CodeManifestInvalid, "%v", err)
	}
	if doc.Subject != nil {
		if _, err := distribution.ParseDigest(doc.Subject.Digest.String()); err != nil {
			return storage.Manifest{}, doc, distribution.Errorf(distribution.CodeManifestInvalid, "subject: bad digest")
		}
	}
	return storage.Manifest{MediaType: mediaType, Body: body}, doc, nil
}

// NewManifest is a manifest from another registry as a store takes it.
func NewManifest(contentType string, d digest.Digest, body []byte) (storage.Manifest, error) {
	m, doc, err := parseManifest(contentType, body)
	if err != nil {
		return m, err
	}
	m.Digest = d
	m.Subject, m.Referrer = doc.referrer(m)
	return m, nil
}

// referrer describes m for the list of its subject's referrers ("Listing
// Referrers": the config's media type stands in for a missing artifact type).
func (doc *manifestDoc) referrer(m storage.Manifest) (subject digest.Digest, desc ocispec.Descriptor) {
	if doc.Subject == nil {
		return "", desc
	}
	desc = ocispec.Descriptor{
		MediaType:    m.MediaType,
		Digest:       m.Digest,
		Size:         int64(len(m.Body)),
		ArtifactType: doc.ArtifactType,
		Annotations:  doc.Annotations,
	}
	if desc.ArtifactType == "" && doc.Config != nil {
		desc.ArtifactType = doc.Config.MediaType
	}
	return doc.Subject.Digest, desc
}

// checkDescriptors refuses a manifest whose parts are missing or of another
// size than it says; its subject may come later.
func (g *Registry) checkDescriptors(q *request, doc manifestDoc) error {
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append([]ocispec.Descriptor{*doc.Config}, blobs...)
	}
	for _, desc := range blobs {
		if foreign(desc) {
			continue
		}
		if err := g.checkDescriptor(q, desc, g.store.StatBlob); err != nil {
			return err
		}
	}
	for _, desc := range doc.Manifests {
		if err := g.checkDescriptor(q, desc, g.store.StatManifest); err != nil {
			return err
		}
	}
	return nil
}

// foreign layers live elsewhere (Image Spec, "Non-Distributable Layers").
func foreign(desc ocispec.Descriptor) bool {
	return len(desc.URLs) > 0 || strings.Contains(desc.MediaType, ".nondistributable.") || strings.Contains(desc.MediaType, ".foreign.")
}

type statFunc func(ctx context.Context, repo string, d digest.Digest) (sizeBytes int64, err error)

func (g *Registry) checkDescriptor(q *request, desc ocispec.Descriptor, stat statFunc) error {
	d, err := distribution.ParseDigest(desc.Digest.String())
	if err != nil {
		return distribution.Errorf(distribution.CodeManifestInvalid, "a descriptor has a bad digest")
	}
	sizeBytes, err := stat(q.Context(), q.Name, d)
	switch {
	case errors.Is(err, storage.ErrNotExist) && g.opts.AllowSparse:
		return nil
	case errors.Is(err, storage.ErrNotExist):
		return distribution.Errorf(distribution.CodeManifestBlobUnknown, "%s", d)
	case err != nil:
		return err
	case sizeBytes != desc.Size:
		return distribution.Errorf(distribution.CodeManifestInvalid, "%s has %d bytes, not %d", d, sizeBytes, desc.Size)
	}
	return nil
}
