package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CollectOptions say what a collection takes.
type CollectOptions struct {
	// Grace is how old what nothing refers to must be to be removed.
	Grace time.Duration
	// Untagged also removes manifests that no tag leads to: by itself, through
	// an index, or as a referrer of one that a tag leads to.
	Untagged bool
	// Retention is the rule for a repository; nil is none. Where there is one,
	// untagged manifests go, too.
	Retention func(repo string) *Retention
	// DryRun removes nothing.
	DryRun bool
	// Removed is told of each tag and manifest that is removed, or would be. Nil
	// is nobody.
	Removed func(Removal)
}

// Removal is a tag, or a manifest without one, that a collection removes.
type Removal struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"`
	Digest     digest.Digest `json:"digest"` // of the manifest
	Pushed     time.Time     `json:"pushed"` // last
}

// CollectReport is what a collection found.
type CollectReport struct {
	Repositories int   `json:"repositories"` // looked at
	Blobs        int   `json:"blobs"`        // looked at
	Tags         int   `json:"tagsRemoved"`  // by rules of retention
	Manifests    int   `json:"manifestsRemoved"`
	Links        int   `json:"linksRemoved"` // blobs taken from a repository
	BlobsRemoved int   `json:"blobsRemoved"`
	RemovedBytes int64 `json:"removedBytes"` // of blobs
}

// collector is one collection.
type collector struct {
	*Store
	CollectOptions
	report CollectReport
	before time.Time // what is younger is spared

	// referred has a hash of each repository and blob that belong together. Two
	// with the same hash only mean that something is spared.
	count      *recount // nil if nobody wants to know
	seed       maphash.Seed
	referred   map[uint64]struct{}
	candidates map[string][]digest.Digest // per repository
	held       int
}

// collectLock keeps two from collecting, or counting, at a time.
const collectLock = "collect"

// maxCandidates bounds what is remembered before it is removed.
const maxCandidates = 100_000

// Collect removes blobs that no manifest names. It is safe beside registries at
// work on the same objects. ErrBusy says that another collection is under way.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (CollectReport, error) {
	release, err := s.objects.Lock(ctx, collectLock)
	if err != nil {
		return CollectReport{}, fmt.Errorf("collect: %w", err)
	}
	defer release()
	c := &collector{
		Store: s, CollectOptions: o, before: time.Now().Add(-o.Grace),
		seed: maphash.MakeSeed(), referred: map[uint64]struct{}{}, candidates: map[string][]digest.Digest{},
	}
	if !o.DryRun {
		if c.count, err = s.beginCount(ctx); err != nil {
			return c.report, fmt.Errorf("collect: %w", err)
		}
	}
	var walkErr error
	err = s.walk(ctx, nil, nil, func(repo string) bool {
		walkErr = c.markRepository(ctx, repo)
		return walkErr == nil
	})
	if err = errors.Join(err, walkErr); err == nil {
		err = c.eachBlob(ctx, c.findLinks)
	}
	if err == nil {
		err = c.removeLinks(ctx)
	}
	if err == nil {
		err = c.eachBlob(ctx, c.removeBlob)
	}
	if err == nil && c.count != nil {
		err = c.count.end(ctx)
	}
	if err != nil {
		err = fmt.Errorf("collect: %w", err)
	}
	return c.report, err
}

func (c *collector) hash(repo string, d digest.Digest) uint64 {
	return maphash.String(c.seed, repo+"@"+string(d))
}

func (c *collector) removed(what Removal) {
	if c.Removed != nil {
		c.Removed(what)
	}
}

// markRepository notes what a repository's manifests refer to. Before, it removes
// tags and untagged manifests, if that is wanted.
func (c *collector) markRepository(ctx context.Context, repo string) error {
	c.report.Repositories++
	err := c.removePending(ctx, repo)
	var rule *Retention
	if c.Retention != nil {
		rule = c.Retention(repo)
	}
	var would map[string]bool
	if err == nil && rule != nil && rule.removesTags() {
		would, err = c.removeTags(ctx, repo, rule)
	}
	if err != nil {
		return err
	}
	r, err := c.readRepository(ctx, repo, nil)
	before := c.before
	if rule != nil && rule.Untagged > c.Grace {
		before = time.Now().Add(-rule.Untagged)
	}
	if err == nil && (c.Untagged || rule != nil) {
		err = c.removeUntagged(ctx, repo, r, before, would)
	}
	if err != nil {
		return err
	}
	if c.count != nil {
		if err := c.count.manifests(ctx, repo); err != nil {
			return err
		}
	}
	for d := range r.blobs() {
		c.referred[c.hash(repo, d)] = struct{}{}
	}
	return nil
}

// pendingLife is more than a push of a manifest can take.
const pendingLife = time.Hour

// removePending removes what a registry that died has left.
func (c *collector) removePending(ctx context.Context, repo string) error {
	if c.DryRun {
		return nil
	}
	return c.each(ctx, pendingDir(repo), func(name string) error {
		return c.removeOld(ctx, pendingDir(repo)+"/"+name, time.Now().Add(-pendingLife))
	})
}

// parts is what of a manifest matters here.
type parts struct {
	blobs, manifests []digest.Digest
	subject          digest.Digest
}

// repository is what a repository's manifests refer to.
type repository map[digest.Digest]parts

func (r repository) blobs() func(func(digest.Digest) bool) {
	return func(yield func(digest.Digest) bool) {
		for _, p := range r {
			for _, d := range p.blobs {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// readRepository reads all manifests, also those about to come, without those
// that known has already. What is pending is read first: whatever is no longer
// so when it is looked for is among the manifests by then.
func (c *collector) readRepository(ctx context.Context, repo string, known repository) (repository, error) {
	r := repository{}
	for _, dir := range []string{pendingDir(repo), manifestDir(repo)} {
		err := c.each(ctx, dir, func(name string) error {
			d, ok := fromPendingName(name)
			if !ok {
				return nil
			}
			if p, ok := known[d]; ok {
				r[d] = p
				return nil
			}
			data, err := c.objects.Get(ctx, dir+"/"+name, maxManifestBytes)
			if errors.Is(err, ErrNotExist) {
				return nil // removed, or no longer pending
			}
			if err != nil {
				return err
			}
			if r[d], err = parseParts(data); err != nil {
				return fmt.Errorf("manifest %s of %s: %w", d, repo, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// parseParts fails for what is no JSON: a manifest that cannot be read must not
// count as one that names nothing. A field of another type than ours is none of
// those that a push has checked.
func parseParts(data []byte) (p parts, err error) {
	var doc struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Blobs     []ocispec.Descriptor `json:"blobs"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Subject   *ocispec.Descriptor  `json:"subject"`
	}
	_, body, _ := strings.Cut(string(data), "\n")
	err = json.Unmarshal([]byte(body), &doc)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !ok {
		return p, err
	}
	if doc.Config != nil {
		p.blobs = append(p.blobs, doc.Config.Digest)
	}
	for _, desc := range append(doc.Layers, doc.Blobs...) {
		p.blobs = append(p.blobs, desc.Digest)
	}
	for _, desc := range doc.Manifests {
		p.manifests = append(p.manifests, desc.Digest)
		p.blobs = append(p.blobs, desc.Digest) // an index may name blobs, too
	}
	if doc.Subject != nil {
		p.subject = doc.Subject.Digest
	}
	return p, nil
}

// each calls f for every name below dir.
func (s *Store) each(ctx context.Context, dir string, f func(name string) error) error {
	return s.eachAfter(ctx, dir, "", f)
}

// eachAfter is each for the names that sort after one.
func (s *Store) eachAfter(ctx context.Context, dir, after string, f func(name string) error) error {
	const page = 1000
	for {
		names, err := s.objects.List(ctx, dir, after, page)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
		if len(names) < page {
			return nil
		}
		after = names[len(names)-1]
	}
}

// eachBlob calls f for every blob's directory.
func (s *Store) eachBlob(ctx context.Context, f func(context.Context, digest.Digest) error) error {
	return s.eachBlobAfter(ctx, "", f)
}

// findLinks notes the repositories that have the blob and no use for it.
func (c *collector) findLinks(ctx context.Context, d digest.Digest) error {
	c.report.Blobs++
	err := c.each(ctx, inDir(d), func(name string) error {
		repo := fromInName(name)
		if _, referred := c.referred[c.hash(repo, d)]; referred {
			return nil
		}
		info, err := c.objects.Stat(ctx, inKey(d, repo))
		if err == nil && info.Modified.Before(c.before) {
			c.candidates[repo] = append(c.candidates[repo], d)
			c.held++
		}
		_, err = exists(err)
		return err
	})
	if err == nil && c.held >= maxCandidates {
		err = c.removeLinks(ctx)
	}
	return err
}

func (c *collector) removeLinks(ctx context.Context) error {
	for repo, candidates := range c.candidates {
		if c.DryRun {
			c.report.Links += len(candidates)
			continue
		}
		for len(candidates) > 0 {
			done, err := c.removeLinksOf(ctx, repo, candidates)
			if err != nil {
				return err
			}
			candidates = candidates[done:]
		}
	}
	c.held = 0
	if !c.DryRun {
		clear(c.candidates)
	}
	return nil
}

// removeLinksOf takes blobs from a repository behind its gate, as many as the
// time is enough for.
func (c *collector) removeLinksOf(ctx context.Context, repo string, candidates []digest.Digest) (done int, err error) {
	if err := c.removePending(ctx, repo); err != nil {
		return 0, err
	}
	known, err := c.readRepository(ctx, repo, nil)
	if err != nil {
		return 0, err
	}
	gate, err := c.closeGate(ctx, repoGate(repo))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, gate.open()) }()
	now, err := c.readRepository(ctx, repo, known)
	if err != nil {
		return 0, err
	}
	inUse := map[digest.Digest]bool{}
	for d := range now.blobs() {
		inUse[d] = true
	}
	for _, d := range candidates {
		if time.Now().After(gate.until) {
			if done == 0 {
				return len(candidates), nil // too slow to remove anything safely; perhaps the next time
			}
			break
		}
		done++
		if inUse[d] {
			continue
		}
		info, err := c.objects.Stat(ctx, inKey(d, repo))
		if err == nil && info.Modified.Before(c.before) {
			if err = c.objects.Delete(ctx, inKey(d, repo)); err == nil {
				c.report.Links++
			}
		}
		if _, err := exists(err); err != nil {
			return done, err
		}
	}
	return done, nil
}

// removeBlob removes the bytes that no repository has any more, and counts others.
func (c *collector) removeBlob(ctx context.Context, d digest.Digest) (err error) {
	if c.count != nil {
		if err := c.count.blob(ctx, d); err != nil {
			return err
		}
	}
	info, err := c.objects.Stat(ctx, dataKey(d))
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil || info.Modified.After(c.before) {
		return err
	}
	if unused, err := c.unused(ctx, d); err != nil || !unused {
		return err
	}
	if !c.DryRun {
		gate, err := c.closeGate(ctx, blobGate(d))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, gate.open()) }()
		unused, err := c.unused(ctx, d)
		if err != nil || !unused || time.Now().After(gate.until) {
			return err
		}
		if err := c.objects.Delete(ctx, dataKey(d)); err != nil {
			_, err = exists(err)
			return err
		}
	}
	c.report.BlobsRemoved++
	c.report.RemovedBytes += info.SizeBytes
	return nil
}

// unused reports whether no repository has the blob. In a dry run those do not
// count that would be taken away.
func (c *collector) unused(ctx context.Context, d digest.Digest) (bool, error) {
	unused := true
	err := c.each(ctx, inDir(d), func(name string) error {
		gone := false
		if c.DryRun {
			for _, candidate := range c.candidates[fromInName(name)] {
				gone = gone || candidate == d
			}
		}
		unused = unused && gone
		return nil
	})
	return unused, err
}
