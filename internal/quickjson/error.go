package quickjson

import (
	"strconv"
	"strings"
)

// Error tells what is wrong with a document, and where.
type Error struct {
	File   string // as the caller named it: "config.json", or a path
	Path   string // JSON path of the value, "mounts[0].options[2]"; "" for the whole document
	Offset int    // of the value or byte that is wrong; -1 where only the decoded document is known (Validate)
	Msg    string // "want a string, got a number"

	kind errorKind
}

type errorKind byte

const (
	kindType errorKind = iota
	kindSyntax
)

// Error prints file, path and cause, and for a syntax error the offset, because there the path says too little:
//
//	config.json: mounts[0].options[2]: want a string, got a number
//	config.json: mounts[0]: want ',' or '}', got ']' at byte 217
func (e *Error) Error() string {
	var b strings.Builder
	for _, s := range [...]string{e.File, e.Path} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Msg)
	if e.kind == kindSyntax {
		b.WriteString(" at byte ")
		b.WriteString(strconv.Itoa(e.Offset))
	}
	return b.String()
}

// addIndex, addMapKey and prefix put one more element before the path.

func (e *Error) addIndex(i int) { e.prefix("[" + strconv.Itoa(i) + "]") }

func (e *Error) addMapKey(key string) { e.prefix("[" + strconv.Quote(short(key)) + "]") }

func (e *Error) prefix(elem string) {
	if e.Path != "" && e.Path[0] != '[' {
		elem += "."
	}
	e.Path = elem + e.Path
}
