package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Retention says which tags and manifests of some repositories go by themselves.
type Retention struct {
	Repositories []string `toml:"repositories"`
	KeepNewest   *int     `toml:"keep-newest"` // nil if it is not set: 0 keeps none
	KeepYounger  Duration `toml:"keep-younger"`
	KeepTags     []string `toml:"keep-tags"`
	Untagged     Duration `toml:"untagged"`
}

func (c *Config) checkRetention() error {
	for i, r := range c.Retention {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("retention rule %d: "+format, append([]any{i + 1}, args...)...)
		}
		removesTags := r.KeepNewest != nil || r.KeepYounger > 0
		switch {
		case len(r.Repositories) == 0:
			return fail("needs repositories")
		case len(r.KeepTags) > 0 && !removesTags:
			return fail("keep-tags says what else stays: it needs keep-newest (0 for none) or keep-younger")
		case !removesTags && r.Untagged == 0:
			return fail("needs keep-newest, keep-younger or untagged")
		case r.KeepNewest != nil && *r.KeepNewest < 0:
			return fail("keep-newest: must be 0 or more")
		}
		for _, pattern := range slices.Concat(r.Repositories, r.KeepTags) {
			if !access.ValidPattern(pattern) {
				return fail("bad pattern %q", pattern)
			}
		}
	}
	return nil
}

// RetentionOf is the first rule that covers a repository, as package storage has
// it; nil if there is none.
func (c *Config) RetentionOf(repo string) *storage.Retention {
	for _, r := range c.Retention {
		if !matches(r.Repositories, repo) {
			continue
		}
		rule := &storage.Retention{
			KeepNewest: -1, KeepYounger: time.Duration(r.KeepYounger), Untagged: time.Duration(r.Untagged),
			KeepTag: func(tag string) bool { return matches(r.KeepTags, tag) },
		}
		if r.KeepNewest != nil {
			rule.KeepNewest = *r.KeepNewest
		}
		return rule
	}
	return nil
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return access.Match(p, name) })
}
