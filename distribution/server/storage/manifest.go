package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
)

// Manifest is a manifest as it was pushed.
type Manifest struct {
	MediaType string // without a line feed
	Digest    digest.Digest
	Body      []byte
	// Subject, if any, is what the manifest refers to; Referrer describes the
	// manifest in that list.
	Subject  digest.Digest
	Referrer ocispec.Descriptor
}

const (
	maxTagBytes      = 256
	maxManifestBytes = distribution.MaxManifestSizeBytes + 8<<10 // with its media type, or the tags that it will have
	// A descriptor carries its manifest's annotations.
	maxReferrerBytes = distribution.MaxManifestSizeBytes * 2
)

// Manifest returns a manifest by tag or digest, without Subject and Referrer.
func (s *Store) Manifest(ctx context.Context, repo, target string) (Manifest, error) {
	if strings.Contains(target, ":") {
		return s.byDigest(ctx, repo, digest.Digest(target))
	}
	return s.byTag(ctx, repo, target)
}

const (
	maxTaggedBytes = 2 << 20   // of a generation
	maxTagged      = 256 << 10 // one manifest
)

// byTag looks where the tag leads each time, but not what is there: that cannot
// change, and as long as a tag leads to a manifest it is not removed.
func (s *Store) byTag(ctx context.Context, repo, tag string) (Manifest, error) {
	data, err := s.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
	if err != nil {
		return Manifest{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	key := repo + "@" + string(data)
	if m, ok := s.tagged.Get(key); ok {
		return m, nil
	}
	d, err := distribution.ParseDigest(string(data))
	if err != nil {
		return Manifest{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	m, err := s.byDigest(ctx, repo, d)
	if err == nil && len(m.Body) <= maxTagged {
		s.tagged.Put(key, m, len(m.Body))
	}
	return m, err
}

func (s *Store) byDigest(ctx context.Context, repo string, d digest.Digest) (Manifest, error) {
	data, err := s.objects.Get(ctx, manifestKey(repo, d), maxManifestBytes)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	mediaType, body, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return Manifest{}, fmt.Errorf("manifest %s: stored without media type", d)
	}
	return Manifest{MediaType: string(mediaType), Digest: d, Body: body}, nil
}

// StatManifest returns the size of a manifest that repo has.
func (s *Store) StatManifest(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	m, err := s.Manifest(ctx, repo, d.String())
	return int64(len(m.Body)), err
}

// PutManifest stores m, whose digest the caller has verified, and then points
// the tags at it. complete checks that what m names is there; from before its
// call on, the collector spares that. With createOnly, or if the tag is fixed, a
// tag that leads to another manifest is ErrFixed.
func (s *Store) PutManifest(ctx context.Context, repo string, m Manifest, tags []string, createOnly bool, complete func() error) error {
	pending := pendingKey(repo, m.Digest)
	if err := s.objects.PutScratch(ctx, pending, lineAndBody(strings.Join(tags, " "), m.Body)); err != nil {
		return err
	}
	defer s.objects.DeleteScratch(context.WithoutCancel(ctx), pending)
	if err := s.passGate(ctx, repoGate(repo)); err != nil {
		return err
	}
	if err := complete(); err != nil { // it asks for much, so nobody else waits for it
		return err
	}
	return s.commitManifest(ctx, repo, m, tags, createOnly)
}

func lineAndBody(line string, body []byte) []byte {
	data := make([]byte, 0, len(line)+1+len(body))
	data = append(data, line...)
	data = append(data, '\n')
	return append(data, body...)
}

func (s *Store) commitManifest(ctx context.Context, repo string, m Manifest, tags []string, createOnly bool) error {
	defer s.lock(repo).Unlock()
	objects := []Object{{manifestKey(repo, m.Digest), lineAndBody(m.MediaType, m.Body)}}
	if m.Subject != "" {
		entry, err := json.Marshal(m.Referrer)
		if err != nil {
			return err
		}
		objects = append(objects, Object{referrerKey(repo, m.Subject, m.Digest), entry})
	}
	var fixed []string
	for _, tag := range tags {
		if !createOnly && !s.fixed(repo, tag) {
			objects = append(objects, Object{tagKey(repo, tag), []byte(m.Digest)})
			continue
		}
		fixed = append(fixed, tag)
		if err := s.checkTag(ctx, repo, tag, m.Digest); err != nil {
			return err
		}
	}
	if err := s.putCounted(ctx, repo, objects); err != nil {
		return err
	}
	for _, tag := range fixed {
		err := s.objects.PutNew(ctx, tagKey(repo, tag), []byte(m.Digest))
		if errors.Is(err, ErrExist) {
			err = s.checkTag(ctx, repo, tag, m.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putCounted puts a manifest, the first of the objects, and what belongs to it.
func (s *Store) putCounted(ctx context.Context, repo string, objects []Object) error {
	var sizeBytes int64
	if _, ok := s.quota(repo); ok {
		_, err := s.objects.Stat(ctx, objects[0].Key)
		if there, err := exists(err); err != nil {
			return err
		} else if !there {
			sizeBytes = int64(len(objects[0].Data))
		}
	}
	counts, err := s.reserve(ctx, repo, sizeBytes)
	if err != nil {
		return err
	}
	if err := s.objects.PutAll(ctx, objects); err != nil {
		return errors.Join(err, s.giveBack(ctx, repo, sizeBytes, counts))
	}
	return s.stored(ctx, repo, sizeBytes, counts)
}

func (s *Store) fixed(repo, tag string) bool { return s.opts.Fixed != nil && s.opts.Fixed(repo, tag) }

// checkTag reports whether a tag that may not be moved leads elsewhere.
func (s *Store) checkTag(ctx context.Context, repo, tag string, d digest.Digest) error {
	data, err := s.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
	if there, err := exists(err); !there {
		return err
	}
	if string(data) != d.String() {
		return fmt.Errorf("tag %s: %w", tag, ErrFixed)
	}
	return nil
}

// DeleteTag removes a tag and leaves its manifest.
func (s *Store) DeleteTag(ctx context.Context, repo, tag string) error {
	defer s.lock(repo).Unlock()
	if s.fixed(repo, tag) {
		return fmt.Errorf("tag %s: %w", tag, ErrFixed)
	}
	return s.objects.Delete(ctx, tagKey(repo, tag))
}

// DeleteManifest removes a manifest and, before it, whatever points at it:
// tags and its entry among its subject's referrers. It waits for others who are
// pushing the same, or move one of its tags; ErrBusy says that they still do.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return s.patiently(ctx, func() error { return s.tryDeleteManifest(ctx, repo, d) })
}

func (s *Store) tryDeleteManifest(ctx context.Context, repo string, d digest.Digest) (err error) {
	defer s.lock(repo).Unlock()
	info, err := s.objects.Stat(ctx, manifestKey(repo, d))
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	gate, err := s.closeGate(ctx, repoGate(repo))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.open()) }()
	if err := s.keptBy(ctx, repo, d); err != nil {
		return err
	}
	coming, err := s.coming(ctx, repo)
	if err != nil {
		return err
	}
	if slices.Contains(coming.manifests, d) {
		return fmt.Errorf("manifest %s is being pushed: %w", d, ErrBusy)
	}
	if err := s.deleteManifest(ctx, repo, d, gate, coming); err != nil {
		return err
	}
	return s.forget(ctx, repo, info.SizeBytes)
}

// pushes are what is about to come: what passes a gate before it is closed is
// among them until it is there.
type pushes struct {
	manifests []digest.Digest
	tags      map[string]bool // of those manifests
}

// coming lists the pushes under way in a repository, without those that a registry
// which died has left.
func (s *Store) coming(ctx context.Context, repo string) (p pushes, err error) {
	p.tags = map[string]bool{}
	err = s.each(ctx, pendingDir(repo), func(name string) error {
		d, ok := fromPendingName(name)
		if !ok {
			return nil
		}
		key := pendingDir(repo) + "/" + name
		info, err := s.objects.Stat(ctx, key)
		var data []byte
		if err == nil && time.Since(info.Modified) < pendingLife {
			data, err = s.objects.Get(ctx, key, maxManifestBytes)
		}
		if there, err := exists(err); !there || data == nil {
			return err
		}
		p.manifests = append(p.manifests, d)
		line, _, _ := bytes.Cut(data, []byte{'\n'})
		for _, tag := range strings.Fields(string(line)) {
			p.tags[tag] = true
		}
		return nil
	})
	return p, err
}

// keptBy finds a tag that leads to the manifest and may not be removed.
func (s *Store) keptBy(ctx context.Context, repo string, d digest.Digest) error {
	if s.opts.Fixed == nil {
		return nil
	}
	return s.each(ctx, tagDir(repo), func(tag string) error {
		data, err := s.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
		if err == nil && string(data) == d.String() && s.fixed(repo, tag) {
			err = fmt.Errorf("tag %s: %w", tag, ErrFixed)
		}
		_, err = exists(err)
		return err
	})
}

// deleteManifest works behind the repository's gate: a push of the same that came
// after the gate has been opened must not be undone.
func (s *Store) deleteManifest(ctx context.Context, repo string, d digest.Digest, gate closedGate, coming pushes) error {
	m, err := s.Manifest(ctx, repo, d.String())
	if err != nil {
		return err
	}
	if err := s.deleteTagsOf(ctx, repo, d, gate, coming); err != nil {
		return err
	}
	var doc struct {
		Subject *ocispec.Descriptor `json:"subject"`
	}
	if json.Unmarshal(m.Body, &doc) == nil && doc.Subject != nil {
		if subject, err := distribution.ParseDigest(doc.Subject.Digest.String()); err == nil {
			err := s.objects.Delete(ctx, referrerKey(repo, subject, d))
			if _, err := exists(err); err != nil {
				return err
			}
		}
	}
	if err := gate.late(); err != nil {
		return err
	}
	return s.objects.Delete(ctx, manifestKey(repo, d))
}

// deleteTagsOf leaves no tag of a manifest. One that is about to be moved to
// another is ErrBusy: that must not be undone, and until then it leads to this one.
func (s *Store) deleteTagsOf(ctx context.Context, repo string, d digest.Digest, gate closedGate, coming pushes) error {
	return s.each(ctx, tagDir(repo), func(tag string) error {
		data, err := s.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
		switch {
		case err != nil || string(data) != d.String():
		case coming.tags[tag]:
			err = fmt.Errorf("tag %s is being pushed: %w", tag, ErrBusy)
		default:
			if err = gate.late(); err == nil {
				err = s.objects.Delete(ctx, tagKey(repo, tag))
			}
		}
		_, err = exists(err)
		return err
	})
}

// Tags lists up to n tags that sort after last, and whether there are more.
// A repository without any manifest does not exist.
func (s *Store) Tags(ctx context.Context, repo, last string, n int) (tags []string, more bool, err error) {
	tags, err = s.objects.List(ctx, tagDir(repo), last, n+1)
	if err != nil {
		return nil, false, err
	}
	if len(tags) == 0 {
		manifests, err := s.objects.List(ctx, manifestDir(repo), "", 1)
		if err == nil && len(manifests) == 0 {
			err = fmt.Errorf("repository %s: %w", repo, ErrNotExist)
		}
		return nil, false, err
	}
	if len(tags) > n {
		return tags[:n], true, nil
	}
	return tags, false, nil
}

// Referrers lists the manifests with the given subject that sort after last,
// by digest, until their descriptors take more than maxBytes (the first is
// returned in any case), and whether there are more. Those of another artifact
// type are left out if filter is given.
func (s *Store) Referrers(ctx context.Context, repo string, subject, last digest.Digest, filter *string, maxBytes int) (list []ocispec.Descriptor, more bool, err error) {
	const page = 100
	after := ""
	if last != "" {
		after = fileName(last)
	}
	for size := 0; ; {
		names, err := s.objects.List(ctx, referrerDir(repo, subject), after, page)
		if err != nil || len(names) == 0 {
			return list, false, err
		}
		for _, name := range names {
			desc, bytes, err := s.referrer(ctx, repo, subject, name)
			if errors.Is(err, ErrNotExist) || err == nil && filter != nil && *filter != desc.ArtifactType {
				continue
			}
			if err != nil {
				return nil, false, err
			}
			if size += bytes; size > maxBytes && len(list) > 0 {
				return list, true, nil
			}
			list = append(list, desc)
		}
		after = names[len(names)-1]
	}
}

func (s *Store) referrer(ctx context.Context, repo string, subject digest.Digest, name string) (desc ocispec.Descriptor, sizeBytes int, err error) {
	d, ok := fromFileName(name)
	if !ok {
		return desc, 0, ErrNotExist
	}
	data, err := s.objects.Get(ctx, referrerKey(repo, subject, d), maxReferrerBytes)
	if err != nil {
		return desc, 0, err
	}
	if err := json.Unmarshal(data, &desc); err != nil {
		return desc, 0, fmt.Errorf("referrer %s of %s: %w", d, subject, err)
	}
	return desc, len(data), nil
}
