package config

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Quota bounds what each of some namespaces has.
type Quota struct {
	Namespaces []string `toml:"namespaces"`
	Size       Size     `toml:"size"`
}

// maxNamespacePatterns keeps what names the rules small.
const maxNamespacePatterns = 200

func (c *Config) checkQuota() error {
	patterns := 0
	for i, q := range c.Quota {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("quota rule %d: "+format, append([]any{i + 1}, args...)...)
		}
		switch {
		case len(q.Namespaces) == 0:
			return fail("needs namespaces")
		case q.Size <= 0:
			return fail("needs a size")
		}
		for _, pattern := range q.Namespaces {
			if patterns++; patterns > maxNamespacePatterns {
				return fail("more than %d patterns", maxNamespacePatterns)
			}
			if !access.ValidPattern(pattern) {
				return fail("bad pattern %q", pattern)
			}
		}
	}
	return nil
}

// QuotaOf is the quota that a repository is under, by the first rule with a
// pattern for it or for what is above it; its namespace is the shortest such part
// of its name.
func (c *Config) QuotaOf(repo string) (storage.Quota, bool) {
	for _, q := range c.Quota {
		for end := 0; end < len(repo); end++ {
			if next := strings.IndexByte(repo[end:], '/'); next < 0 {
				end = len(repo)
			} else {
				end += next
			}
			if matches(q.Namespaces, repo[:end]) {
				return storage.Quota{Namespace: repo[:end], LimitBytes: int64(q.Size)}, true
			}
		}
	}
	return storage.Quota{}, false
}

// QuotaRules tells by which rules namespaces are counted, whatever they may have.
func (c *Config) QuotaRules() string {
	var patterns [][]string
	for _, q := range c.Quota {
		patterns = append(patterns, q.Namespaces)
	}
	text, err := json.Marshal(patterns)
	if err != nil { // strings always can be
		return ""
	}
	return string(text)
}
