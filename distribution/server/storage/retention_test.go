package storage

import (
	"strings"
	"testing"
	"time"
)

// TestExpired: what any part of a rule keeps stays.
func TestExpired(t *testing.T) {
	now := time.Now()
	var tags []pushedTag
	for i, name := range []string{"v1", "a", "b", "v2", "c", "d"} { // the last is the newest
		tags = append(tags, pushedTag{name: name, pushed: now.Add(time.Duration(i-6) * time.Hour)})
	}
	same := []pushedTag{{name: "y", pushed: now}, {name: "z", pushed: now}, {name: "x", pushed: now}}
	versions := func(tag string) bool { return strings.HasPrefix(tag, "v") }
	for name, c := range map[string]struct {
		rule Retention
		tags []pushedTag
		want string
	}{
		"newest":              {Retention{KeepNewest: 2}, tags, "v1 a b v2"},
		"newest and by name":  {Retention{KeepNewest: 2, KeepTag: versions}, tags, "a b"},
		"none but by name":    {Retention{KeepTag: versions}, tags, "a b c d"},
		"younger":             {Retention{KeepNewest: -1, KeepYounger: 150 * time.Minute}, tags, "v1 a b v2"},
		"either":              {Retention{KeepNewest: 3, KeepYounger: 5 * time.Hour}, tags, "v1 a"},
		"more than there are": {Retention{KeepNewest: 7}, tags, ""},
		"at the same time":    {Retention{KeepNewest: 1}, same, "x y"},
	} {
		var gone []string
		for _, tag := range c.rule.expired(c.tags, now) {
			gone = append(gone, tag.name)
		}
		if got := strings.Join(gone, " "); got != c.want {
			t.Errorf("%s: %q go, want %q", name, got, c.want)
		}
	}
}
