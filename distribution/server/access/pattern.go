package access

import "strings"

// Match reports whether a pattern covers a name: "*" stands for any characters
// but "/", "**" for any at all, everything else for itself. The time it takes is
// that of the product of the two lengths, whatever a client's name is.
func Match(pattern, name string) bool {
	star := strings.IndexByte(pattern, '*')
	if star < 0 {
		return pattern == name
	}
	if !strings.HasPrefix(name, pattern[:star]) {
		return false
	}
	pattern, name = pattern[star:], name[star:]
	covers := make([]bool, len(name)+1) // covers[n]: the pattern up to here covers name[:n]
	covers[0] = true
	for len(pattern) > 0 {
		literal := pattern[0]
		pattern = pattern[1:]
		if literal != '*' {
			for n := len(name); n > 0; n-- {
				covers[n] = covers[n-1] && name[n-1] == literal
			}
			covers[0] = false
			continue
		}
		rest, deep := strings.CutPrefix(pattern, "*")
		pattern = rest
		for n := 1; n <= len(name); n++ {
			covers[n] = covers[n] || covers[n-1] && (deep || name[n-1] != '/')
		}
	}
	return covers[len(name)]
}

// maxStars bounds the work of Match.
const maxStars = 4

// ValidPattern reports whether a pattern is one that Match is quick with.
func ValidPattern(pattern string) bool {
	return pattern != "" && len(pattern) <= 255 && strings.Count(strings.ReplaceAll(pattern, "**", "*"), "*") <= maxStars
}
