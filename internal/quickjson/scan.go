package quickjson

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// MaxBytes bounds a document. The largest real config.json (hundreds of mounts) is well below 1 MiB.
	MaxBytes = 16 << 20
	// maxDepth bounds nesting; the deepest path of runtime-spec has 8 levels.
	maxDepth = 64
	// maxElements bounds the elements of all arrays and maps together: in memory one takes up to 50 times its bytes in the file. A large
	// seccomp profile has some 500.
	maxElements = 1 << 18
	// maxPresize bounds what a guess at an array's length may allocate.
	maxPresize = 1024
)

// A Decoder reads one JSON document (RFC 8259). The first error sticks: it moves the position to the end, so that every loop
// stops, and each function it passes through on its way out adds its part of the path.
type Decoder struct {
	in    string // strings without escapes are decoded as parts of it, without copying
	pos   int
	depth int
	count int // of elements
	err   *Error
}

// Decode decodes a whole document with f. Errors, of type *Error, name it as file.
func Decode[T any](file string, data []byte, f func(*Decoder, *T)) (*T, error) {
	if len(data) > MaxBytes {
		return nil, &Error{File: file, Offset: MaxBytes, Msg: "longer than " + strconv.Itoa(MaxBytes) + " bytes"}
	}
	d := Decoder{in: string(data)}
	v := new(T)
	f(&d, v)
	if d.err == nil && d.space() {
		d.syntax("end of file")
	}
	if d.err != nil {
		d.err.File = file
		return nil, d.err
	}
	return v, nil
}

// space skips white space and reports whether anything follows.
func (d *Decoder) space() bool {
	for d.pos < len(d.in) {
		switch d.in[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return true
		}
	}
	return false
}

// peek returns the first byte of the next token, 0 at the end.
func (d *Decoder) peek() byte {
	if !d.space() {
		return 0
	}
	return d.in[d.pos]
}

func (d *Decoder) fail(offset int, kind errorKind, msg string) {
	if d.err == nil {
		d.err = &Error{Offset: offset, Msg: msg, kind: kind}
	}
	d.pos = len(d.in)
}

// syntax fails because the next token is not what the grammar wants here.
func (d *Decoder) syntax(want string) {
	if !d.space() {
		d.fail(d.pos, kindSyntax, "want "+want+", got the end of the file")
		return
	}
	r, _ := utf8.DecodeRuneInString(d.in[d.pos:])
	d.fail(d.pos, kindSyntax, "want "+want+", got "+strconv.QuoteRune(r))
}

// mismatch handles a value of another type than want: null leaves the target as it is, anything else is an error.
func (d *Decoder) mismatch(want string) {
	if d.null() || d.err != nil {
		return
	}
	switch c := d.peek(); {
	case c == '"':
		d.fail(d.pos, kindType, "want "+want+", got a string")
	case c == '{':
		d.fail(d.pos, kindType, "want "+want+", got an object")
	case c == '[':
		d.fail(d.pos, kindType, "want "+want+", got an array")
	case c == 't' || c == 'f':
		d.fail(d.pos, kindType, "want "+want+", got a boolean")
	case c == '-' || c >= '0' && c <= '9':
		d.fail(d.pos, kindType, "want "+want+", got a number")
	default:
		d.syntax(want)
	}
}

// null consumes a null if one is next.
func (d *Decoder) null() bool {
	return d.peek() == 'n' && d.literal("null")
}

func (d *Decoder) literal(word string) bool {
	if strings.HasPrefix(d.in[d.pos:], word) {
		d.pos += len(word)
		return true
	}
	d.syntax("a value")
	return false
}

// open enters an object or array. It reports whether there is a first element.
func (d *Decoder) open(open, end byte) bool {
	if d.depth++; d.depth > maxDepth {
		d.fail(d.pos, kindSyntax, "nested more than "+strconv.Itoa(maxDepth)+" deep")
		return false
	}
	d.pos++ // the caller has seen the opening byte
	if d.peek() == end {
		d.pos++
		d.depth--
		return false
	}
	return true
}

// more steps over the comma to the next element; at the end of the object or array it leaves it and reports false.
func (d *Decoder) more(end byte) bool {
	if d.err != nil {
		return false
	}
	switch d.peek() {
	case ',':
		d.pos++
		return true
	case end:
		d.pos++
		d.depth--
		return false
	}
	d.syntax("',' or '" + string(rune(end)) + "'")
	return false
}

// element counts one more element of an array or map.
func (d *Decoder) element() bool {
	if d.count++; d.count > maxElements {
		d.fail(d.pos, kindSyntax, "more than "+strconv.Itoa(maxElements)+" array elements and map entries")
		return false
	}
	return true
}

// Object enters an object and returns its first key; false where there is none, or where another type is.
func (d *Decoder) Object() (key string, ok bool) {
	if d.peek() != '{' {
		d.mismatch("an object")
		return "", false
	}
	if !d.open('{', '}') {
		return "", false
	}
	return d.key()
}

// Next returns the next key of the object, or leaves it.
func (d *Decoder) Next() (key string, ok bool) {
	if !d.more('}') {
		return "", false
	}
	return d.key()
}

// Failed reports whether decoding has failed, which then was in the field key.
func (d *Decoder) Failed(key string) bool {
	if d.err == nil {
		return false
	}
	d.err.prefix(key)
	return true
}

func (d *Decoder) key() (string, bool) {
	if d.peek() != '"' {
		d.syntax("a key")
		return "", false
	}
	k := d.quoted()
	if d.peek() != ':' {
		d.syntax("':'")
		return "", false
	}
	d.pos++
	return k, d.err == nil
}

// quoted reads a string whose opening quote is next.
func (d *Decoder) quoted() string {
	start := d.pos + 1
	for i := start; i < len(d.in); i++ {
		switch c := d.in[i]; {
		case c == '"':
			d.pos = i + 1
			return d.in[start:i]
		case c == '\\' || c < ' ' || c >= utf8.RuneSelf:
			return d.quotedSlow(start, i)
		}
	}
	d.pos = len(d.in)
	d.syntax("'\"'")
	return ""
}

// quotedSlow reads on at i, where the first byte stands that is not plain ASCII. Bytes that are not UTF-8 become U+FFFD, as with
// encoding/json.
func (d *Decoder) quotedSlow(start, i int) string {
	out := append(make([]byte, 0, i-start+64), d.in[start:i]...)
	for i < len(d.in) {
		c := d.in[i]
		switch {
		case c == '"':
			d.pos = i + 1
			return string(out)
		case c == '\\':
			var r rune
			if r, i = d.escape(i); i < 0 {
				return ""
			}
			out = utf8.AppendRune(out, r)
		case c < ' ':
			d.fail(i, kindSyntax, "control character "+strconv.QuoteRune(rune(c))+" in a string")
			return ""
		case c < utf8.RuneSelf:
			out = append(out, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(d.in[i:])
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
	d.pos = len(d.in)
	d.syntax("'\"'")
	return ""
}

// escape reads the escape sequence at i and returns the position after it, -1 after an error.
func (d *Decoder) escape(i int) (rune, int) {
	if i+1 < len(d.in) {
		switch c := d.in[i+1]; c {
		case '"', '\\', '/':
			return rune(c), i + 2
		case 'b':
			return '\b', i + 2
		case 'f':
			return '\f', i + 2
		case 'n':
			return '\n', i + 2
		case 'r':
			return '\r', i + 2
		case 't':
			return '\t', i + 2
		case 'u':
			if r := hex4(d.in[i:]); r >= 0 {
				i += 6
				if utf16.IsSurrogate(r) {
					if pair := utf16.DecodeRune(r, hex4(d.in[i:])); pair != utf8.RuneError {
						return pair, i + 6
					}
					r = utf8.RuneError
				}
				return r, i
			}
		}
	}
	d.fail(i, kindSyntax, "bad escape sequence in a string")
	return 0, -1
}

// hex4 reads \uXXXX at the start of s; -1 where that is not what stands there.
func hex4(s string) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(s[2:6], 16, 32)
	if err != nil {
		return -1
	}
	return rune(n)
}

// number reads a number by the grammar of RFC 8259 and returns its text; "" where none is next.
func (d *Decoder) number() string {
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return ""
	}
	start := d.pos
	i := d.pos
	if d.in[i] == '-' {
		i++
	}
	zero := i < len(d.in) && d.in[i] == '0'
	intEnd := digits(d.in, i)
	ok := intEnd > i && !(zero && intEnd > i+1)
	i = intEnd
	if ok && i < len(d.in) && d.in[i] == '.' {
		end := digits(d.in, i+1)
		ok, i = end > i+1, end
	}
	if ok && i < len(d.in) && (d.in[i] == 'e' || d.in[i] == 'E') {
		i++
		if i < len(d.in) && (d.in[i] == '+' || d.in[i] == '-') {
			i++
		}
		end := digits(d.in, i)
		ok, i = end > i, end
	}
	if !ok {
		d.fail(start, kindSyntax, "malformed number")
		return ""
	}
	d.pos = i
	return d.in[start:i]
}

func digits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// Skip steps over any value: that of an unknown key ("Runtimes MUST otherwise ignore them", config.md, "Extensibility").
func (d *Decoder) Skip() {
	switch c := d.peek(); {
	case c == '"':
		d.quoted()
	case c == '{':
		for _, ok := d.Object(); ok; _, ok = d.Next() {
			d.Skip()
		}
	case c == '[':
		for ok := d.open('[', ']'); ok; ok = d.more(']') {
			d.Skip()
		}
	case c == 't':
		d.literal("true")
	case c == 'f':
		d.literal("false")
	case c == 'n':
		d.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		d.number()
	default:
		d.syntax("a value")
	}
}
