package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// recount finds out what each namespace has, while registries go on storing. What
// they add meanwhile is added to what was found: some of that may have been found
// as well, which the next count puts right.
type recount struct {
	*Store
	found map[string]int64
}

// beginCount is nil if there are no quotas.
func (s *Store) beginCount(ctx context.Context) (*recount, error) {
	if s.opts.Quota == nil {
		return nil, nil
	}
	c := &recount{Store: s, found: map[string]int64{}}
	err := s.each(ctx, usageDir, func(name string) error {
		return s.changeUsage(ctx, fromInName(name), func(u *usage) error {
			u.SinceBytes = 0
			u.Counts++
			return nil
		})
	})
	if err == nil {
		err = s.each(ctx, sessionDir, func(id string) error { return c.session(ctx, id) })
	}
	return c, err
}

func (c *recount) add(repo string, sizeBytes int64) {
	if q, ok := c.quota(repo); ok {
		c.found[q.Namespace] += sizeBytes
	}
}

// session counts an upload under way.
func (c *recount) session(ctx context.Context, id string) error {
	data, err := c.objects.Get(ctx, sessionKey(id), maxSessionBytes)
	var u session
	if err == nil && json.Unmarshal(data, &u) == nil {
		c.add(u.Repository, u.Offset)
	}
	_, err = exists(err)
	return err
}

// blob counts a blob once for each namespace that has it.
func (c *recount) blob(ctx context.Context, d digest.Digest) error {
	info, err := c.objects.Stat(ctx, dataKey(d))
	if there, err := exists(err); !there {
		return err
	}
	namespaces := map[string]bool{}
	err = c.each(ctx, inDir(d), func(name string) error {
		if q, ok := c.quota(fromInName(name)); ok && !namespaces[q.Namespace] {
			namespaces[q.Namespace] = true
			c.found[q.Namespace] += info.SizeBytes
		}
		return nil
	})
	return err
}

// end writes what was found into the counters.
func (c *recount) end(ctx context.Context) error {
	err := c.each(ctx, usageDir, func(name string) error {
		if namespace := fromInName(name); c.found[namespace] == 0 {
			c.found[namespace] = 0
		}
		return nil
	})
	for namespace, sizeBytes := range c.found {
		if err != nil {
			return err
		}
		err = c.changeUsage(ctx, namespace, func(u *usage) error {
			u.UsedBytes = sizeBytes + u.SinceBytes
			return nil
		})
	}
	if err == nil {
		err = c.objects.Put(ctx, countedKey, []byte(c.opts.QuotaRules))
	}
	return err
}

// CountUsage counts what namespaces have, if that was never done by the present
// rules. Until it has been, quotas only hold for what is stored from now on.
// ErrBusy says that another registry does it, or collects.
func (s *Store) CountUsage(ctx context.Context) (done bool, err error) {
	if s.opts.Quota == nil {
		return false, nil
	}
	rules, err := s.objects.Get(ctx, countedKey, maxQuotaRulesBytes)
	if err == nil && string(rules) == s.opts.QuotaRules {
		return false, nil
	}
	if _, err := exists(err); err != nil {
		return false, err
	}
	release, err := s.objects.Lock(ctx, collectLock)
	if err != nil {
		return false, fmt.Errorf("count usage: %w", err)
	}
	defer release()
	c, err := s.beginCount(ctx)
	if err != nil {
		return false, err
	}
	var walkErr error
	err = s.walk(ctx, nil, nil, func(repo string) bool {
		walkErr = c.manifests(ctx, repo)
		return walkErr == nil
	})
	if err = errors.Join(err, walkErr); err == nil {
		err = s.eachBlob(ctx, c.blob)
	}
	if err == nil {
		err = c.end(ctx)
	}
	return err == nil, err
}

func (c *recount) manifests(ctx context.Context, repo string) error {
	return c.each(ctx, manifestDir(repo), func(name string) error {
		info, err := c.objects.Stat(ctx, manifestDir(repo)+"/"+name)
		c.add(repo, info.SizeBytes)
		_, err = exists(err)
		return err
	})
}
