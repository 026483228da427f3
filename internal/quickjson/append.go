package quickjson

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// AppendString appends s as a JSON string (RFC 8259, section 7).
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			const hex = "0123456789abcdef"
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		default: // what is no UTF-8 comes as U+FFFD
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// AppendStrings appends an array of strings.
func AppendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, s)
	}
	return append(b, ']')
}

// AppendMap appends an object, its keys in order.
func AppendMap(b []byte, m map[string]string) []byte {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(append(AppendString(b, k), ':'), m[k])
	}
	return append(b, '}')
}

// AppendIndented appends valid JSON without white space so that people can read it, as json.Indent does with two blanks.
func AppendIndented(b, compact []byte) []byte {
	depth, quoted := 0, false
	line := func() { b = append(append(b, '\n'), strings.Repeat("  ", max(depth, 0))...) }
	for i, c := range compact {
		closes := c == '}' || c == ']'
		switch {
		case quoted:
			b = append(b, c)
			quoted = c != '"' || escaped(compact[:i])
			continue
		case closes:
			depth--
			if last := compact[max(i-1, 0)]; last != '{' && last != '[' {
				line()
			}
		}
		b = append(b, c)
		switch {
		case c == '"':
			quoted = true
		case c == ':':
			b = append(b, ' ')
		case c == ',':
			line()
		case c == '{' || c == '[':
			depth++
			if i+1 < len(compact) && compact[i+1] != '}' && compact[i+1] != ']' {
				line()
			}
		}
	}
	return b
}

// escaped reports whether before ends with an odd number of backslashes.
func escaped(before []byte) bool {
	n := 0
	for n < len(before) && before[len(before)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}
