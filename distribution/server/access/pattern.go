package access

import "strings"

// Match reports whether a pattern covers a name: "*" stands for any characters
// but "/", "**" for any at all, everything else for itself.
func Match(pattern, name string) bool {
	star := strings.IndexByte(pattern, '*')
	if star < 0 {
		return pattern == name
	}
	if !strings.HasPrefix(name, pattern[:star]) {
		return false
	}
	name, rest := name[star:], pattern[star+1:]
	deep := strings.HasPrefix(rest, "*")
	if deep {
		rest = rest[1:]
	}
	for i := 0; ; i++ {
		if Match(rest, name[i:]) {
			return true
		}
		if i == len(name) || !deep && name[i] == '/' {
			return false
		}
	}
}

// maxStars bounds the work of Match.
const maxStars = 4

// ValidPattern reports whether a pattern is one that Match is quick with.
func ValidPattern(pattern string) bool {
	return pattern != "" && len(pattern) <= 255 && strings.Count(strings.ReplaceAll(pattern, "**", "*"), "*") <= maxStars
}
