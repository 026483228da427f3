package quickjson

import (
	"encoding"
	"strconv"
	"strings"
)

// The functions below decode one kind of value each. As with encoding/json a null empties pointers, slices and maps and leaves other
// values alone, and a repeated key is decoded over what the first one left.

// String decodes a string.
func String[T ~string](d *Decoder, p *T) {
	if d.peek() != '"' {
		d.mismatch("a string")
		return
	}
	*p = T(d.quoted())
}

// Bool decodes true or false.
func Bool(d *Decoder, p *bool) {
	switch d.peek() {
	case 't':
		if d.literal("true") {
			*p = true
		}
	case 'f':
		if d.literal("false") {
			*p = false
		}
	default:
		d.mismatch("a boolean")
	}
}

// Signed decodes an integer that fits T.
func Signed[T ~int | ~int8 | ~int16 | ~int32 | ~int64](d *Decoder, p *T) {
	d.peek()
	offset := d.pos
	text := d.number()
	if text == "" {
		d.mismatch("a number")
		return
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || int64(T(n)) != n {
		d.fail(offset, kindType, "number "+short(text)+" is not an integer in range")
		return
	}
	*p = T(n)
}

// Unsigned decodes an integer that fits T.
func Unsigned[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](d *Decoder, p *T) {
	d.peek()
	offset := d.pos
	text := d.number()
	if text == "" {
		d.mismatch("a number")
		return
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || uint64(T(n)) != n {
		d.fail(offset, kindType, "number "+short(text)+" is not an unsigned integer in range")
		return
	}
	*p = T(n)
}

// Text decodes a string into what reads itself from text, such as a time.
func Text[P encoding.TextUnmarshaler](d *Decoder, p P) {
	if d.peek() != '"' {
		d.mismatch("a string")
		return
	}
	offset := d.pos
	text := d.quoted()
	if d.err != nil {
		return
	}
	if err := p.UnmarshalText([]byte(text)); err != nil {
		d.fail(offset, kindType, err.Error())
	}
}

// short keeps a huge number from filling the message.
func short(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}

// Pointer decodes what a pointer points to with f.
func Pointer[T any](d *Decoder, p **T, f func(*Decoder, *T)) {
	if d.null() {
		*p = nil
		return
	}
	if *p == nil {
		*p = new(T)
	}
	f(d, *p)
}

// Slice decodes an array, its elements with f.
func Slice[T any](d *Decoder, p *[]T, f func(*Decoder, *T)) {
	if d.null() {
		*p = nil
		return
	}
	if d.peek() != '[' {
		d.mismatch("an array")
		return
	}
	s, n := *p, 0
	for ok := d.open('[', ']'); ok; ok = d.more(']') {
		if cap(s) == 0 {
			s = make([]T, 0, d.guessLen())
		}
		if n == cap(s) {
			s = append(s, *new(T))
		} else if n == len(s) {
			s = s[:n+1]
		}
		if d.element() {
			f(d, &s[n])
		}
		if d.err != nil {
			d.err.addIndex(n)
			return
		}
		n++
	}
	if *p = s[:n]; n == 0 {
		*p = []T{}
	}
}

// guessLen guesses the length of the array whose first element is next: that of an array of strings is counted, because
// seccomp's lists of system calls are long.
func (d *Decoder) guessLen() int {
	if d.peek() != '"' {
		return 4
	}
	end := strings.IndexByte(d.in[d.pos:], ']')
	if end < 0 {
		return 1
	}
	return min(1+strings.Count(d.in[d.pos:d.pos+end], ","), maxPresize)
}

// Map decodes an object whose keys are data, its values with f.
func Map[T any](d *Decoder, p *map[string]T, f func(*Decoder, *T)) {
	if d.null() {
		*p = nil
		return
	}
	if *p == nil && d.peek() == '{' {
		*p = map[string]T{}
	}
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		var v T
		if d.element() {
			f(d, &v)
		}
		if d.err != nil {
			d.err.addMapKey(key)
			return
		}
		(*p)[key] = v
	}
}

// Any decodes a value without a type (windows.credentialSpec), as encoding/json does into an empty interface.
func Any(d *Decoder, p *any) {
	switch c := d.peek(); {
	case c == '"':
		*p = d.quoted()
	case c == '{':
		var m map[string]any
		Map(d, &m, Any)
		*p = m
	case c == '[':
		var s []any
		Slice(d, &s, Any)
		*p = s
	case c == 't' || c == 'f':
		var b bool
		Bool(d, &b)
		*p = b
	case c == '-' || c >= '0' && c <= '9':
		offset, text := d.pos, d.number()
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			d.fail(offset, kindType, "number "+short(text)+" is out of range")
		}
		*p = n
	default:
		if d.null() {
			*p = nil
		} else if d.err == nil {
			d.syntax("a value")
		}
	}
}
