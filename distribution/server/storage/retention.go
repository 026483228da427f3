package storage

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Retention says what of a repository goes though nobody deletes it. A tag stays
// that any of the first three keeps, and one that is fixed.
type Retention struct {
	// KeepNewest is how many of the tags stay that KeepTag says nothing of; less
	// than zero is that KeepYounger alone decides. A tag is as new as its last push.
	KeepNewest  int
	KeepYounger time.Duration         // tags pushed since then stay; zero keeps none
	KeepTag     func(tag string) bool // nil keeps none
	// Untagged is after how long manifests go that no tag leads to; where it is
	// shorter than the collector's grace, that holds.
	Untagged time.Duration
}

// removesTags reports whether tags go at all.
func (r *Retention) removesTags() bool { return r.KeepNewest >= 0 || r.KeepYounger > 0 }

// pushedTag is a tag as it was found.
type pushedTag struct {
	name   string
	digest digest.Digest
	pushed time.Time
}

// expired lists those of a repository's tags that go, the oldest first. Of those
// pushed at the same time, the one whose name sorts first is the older one.
func (r *Retention) expired(tags []pushedTag, now time.Time) (gone []pushedTag) {
	var counted []pushedTag
	for _, t := range tags {
		if r.KeepTag == nil || !r.KeepTag(t.name) {
			counted = append(counted, t)
		}
	}
	slices.SortFunc(counted, func(a, b pushedTag) int {
		return cmp.Or(a.pushed.Compare(b.pushed), cmp.Compare(a.name, b.name))
	})
	for _, t := range counted[:max(len(counted)-max(r.KeepNewest, 0), 0)] {
		if r.KeepYounger == 0 || now.Sub(t.pushed) >= r.KeepYounger {
			gone = append(gone, t)
		}
	}
	return gone
}

// removeTags removes the tags that a rule does not keep, behind the repository's
// gate, and returns those that a dry run would remove.
func (c *collector) removeTags(ctx context.Context, repo string, rule *Retention) (would map[string]bool, err error) {
	tags, err := c.pushedTags(ctx, repo)
	if err != nil {
		return nil, err
	}
	tags, lost, err := c.withoutNamed(ctx, repo, rule, tags)
	if err != nil {
		return nil, err
	}
	gone := append(rule.expired(tags, time.Now()), lost...)
	if c.DryRun {
		would = map[string]bool{}
		for _, t := range gone {
			would[t.name] = true
			c.tagRemoved(repo, t)
		}
		return would, nil
	}
	for len(gone) > 0 {
		done, err := c.removeTagsOf(ctx, repo, gone)
		if err != nil {
			return nil, err
		}
		gone = gone[done:]
	}
	return nil, nil
}

// withoutNamed takes out the tags that are named after a manifest of the repository,
// "sha256-HEX.sig", as signatures are where registries know no referrers: they stay
// as long as that, and lost are those that it has left behind.
func (c *collector) withoutNamed(ctx context.Context, repo string, rule *Retention, tags []pushedTag) (others, lost []pushedTag, err error) {
	for _, t := range tags {
		name, _, _ := strings.Cut(t.name, ".")
		d, named := fromFileName(name)
		if !named {
			others = append(others, t)
			continue
		}
		_, err := c.objects.Stat(ctx, manifestKey(repo, d))
		there, err := exists(err)
		if err != nil {
			return nil, nil, err
		}
		if !there && t.pushed.Before(c.before) && (rule.KeepTag == nil || !rule.KeepTag(t.name)) {
			lost = append(lost, t)
		}
	}
	return others, lost, nil
}

func (c *collector) tagRemoved(repo string, t pushedTag) {
	c.report.Tags++
	c.removed(Removal{Repository: repo, Tag: t.name, Digest: t.digest, Pushed: t.pushed})
}

// pushedTags lists a repository's tags that may be removed at all.
func (c *collector) pushedTags(ctx context.Context, repo string) (tags []pushedTag, err error) {
	err = c.each(ctx, tagDir(repo), func(tag string) error {
		if c.fixed(repo, tag) {
			return nil
		}
		// The time first: a push after it makes the tag too old, not too new.
		info, err := c.objects.Stat(ctx, tagKey(repo, tag))
		var data []byte
		if err == nil {
			data, err = c.objects.Get(ctx, tagKey(repo, tag), maxTagBytes)
		}
		if err == nil {
			tags = append(tags, pushedTag{tag, digest.Digest(data), info.Modified})
		}
		_, err = exists(err)
		return err
	})
	return tags, err
}

// removeTagsOf removes as many of the tags as the time behind a gate is enough
// for. One that was pushed since it was listed stays, and so does one that is
// about to be.
func (c *collector) removeTagsOf(ctx context.Context, repo string, tags []pushedTag) (done int, err error) {
	gate, err := c.closeGate(ctx, repoGate(repo))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, gate.open()) }()
	coming, err := c.coming(ctx, repo)
	if err != nil {
		return 0, err
	}
	for _, t := range tags {
		if time.Now().After(gate.until) {
			if done == 0 {
				return len(tags), nil // too slow to remove anything safely; perhaps the next time
			}
			break
		}
		done++
		if coming.tags[t.name] {
			continue
		}
		info, err := c.objects.Stat(ctx, tagKey(repo, t.name))
		if err == nil && info.Modified.Equal(t.pushed) {
			if err = c.objects.Delete(ctx, tagKey(repo, t.name)); err == nil {
				c.tagRemoved(repo, t)
			}
		}
		if _, err := exists(err); err != nil {
			return done, err
		}
	}
	return done, nil
}
