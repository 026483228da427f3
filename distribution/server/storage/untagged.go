package storage

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

// removeUntagged removes the manifests of a repository that no tag leads to and
// that are older than the given time, behind its gate, from r too. The tags
// without count as if they were not there, for a dry run.
func (c *collector) removeUntagged(ctx context.Context, repo string, r repository, before time.Time, without map[string]bool) (err error) {
	tagged, err := c.tagged(ctx, repo, without)
	if err != nil {
		return err
	}
	lost := unreachable(r, tagged)
	if len(lost) == 0 {
		return nil
	}
	if c.DryRun {
		return c.countOld(ctx, repo, r, lost, before)
	}
	gate, err := c.closeGate(ctx, repoGate(repo))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.open()) }()
	coming, err := c.coming(ctx, repo)
	if err != nil {
		return err
	}
	if tagged, err = c.tagged(ctx, repo, nil); err != nil {
		return err
	}
	now, err := c.readRepository(ctx, repo, r)
	if err != nil {
		return err
	}
	for _, d := range unreachable(now, tagged) {
		info, err := c.objects.Stat(ctx, manifestKey(repo, d))
		if err == nil && info.Modified.Before(before) && time.Now().Before(gate.until) {
			if err = c.deleteManifest(ctx, repo, d, gate, coming); err == nil {
				c.manifestRemoved(repo, r, d, info)
			}
		}
		if errors.Is(err, ErrBusy) {
			continue // the next time
		}
		if _, err := exists(err); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) manifestRemoved(repo string, r repository, d digest.Digest, info Info) {
	delete(r, d)
	c.report.Manifests++
	c.removed(Removal{Repository: repo, Digest: d, Pushed: info.Modified})
}

// countOld is what a dry run would remove.
func (c *collector) countOld(ctx context.Context, repo string, r repository, lost []digest.Digest, before time.Time) error {
	for _, d := range lost {
		info, err := c.objects.Stat(ctx, manifestKey(repo, d))
		if err == nil && info.Modified.Before(before) {
			c.manifestRemoved(repo, r, d, info)
		}
		if _, err := exists(err); err != nil {
			return err
		}
	}
	return nil
}

// tagged lists the manifests that are about to come, and those that have a tag,
// in this order, as in readRepository; but not by the tags without.
func (c *collector) tagged(ctx context.Context, repo string, without map[string]bool) (roots []digest.Digest, err error) {
	err = c.each(ctx, pendingDir(repo), func(name string) error {
		if d, ok := fromPendingName(name); ok {
			roots = append(roots, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.each(ctx, tagDir(repo), func(tag string) error {
		if without[tag] {
			return nil
		}
		data, err := c.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
		if err == nil {
			roots = append(roots, digest.Digest(data))
		}
		_, err = exists(err)
		return err
	})
	return roots, err
}

// unreachable lists the manifests to which no way leads from the roots: down
// from an index to what it lists, and from a subject to its referrers.
func unreachable(r repository, roots []digest.Digest) (lost []digest.Digest) {
	referrers := map[digest.Digest][]digest.Digest{}
	for d, p := range r {
		if p.subject != "" {
			referrers[p.subject] = append(referrers[p.subject], d)
		}
	}
	reached := map[digest.Digest]bool{}
	for len(roots) > 0 {
		d := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if reached[d] {
			continue
		}
		reached[d] = true
		roots = append(append(roots, r[d].manifests...), referrers[d]...)
	}
	for d := range r {
		if !reached[d] {
			lost = append(lost, d)
		}
	}
	return lost
}
