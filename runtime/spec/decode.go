package spec

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Decode decodes a config.json.
func Decode(data []byte) (*specs.Spec, error) { return run("config.json", data, decSpec) }

// DecodeProcess decodes a process.json, the argument of exec --process.
func DecodeProcess(data []byte) (*specs.Process, error) { return run("process.json", data, decProcess) }

// DecodeResources decodes the resources that update --resources takes.
func DecodeResources(data []byte) (*specs.LinuxResources, error) {
	return run("resources", data, decLinuxResources)
}

// The functions below decode one kind of value each; decode_gen.go calls them with the fields of specs-go's types. As with encoding/json a
// null empties pointers, slices and maps and leaves other values alone, and a repeated key is decoded over what the first one left.

func str[T ~string](d *decoder, p *T) {
	if d.peek() != '"' {
		d.mismatch("a string")
		return
	}
	*p = T(d.quoted())
}

func boolean(d *decoder, p *bool) {
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

func signed[T ~int | ~int8 | ~int16 | ~int32 | ~int64](d *decoder, p *T) {
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

func unsigned[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](d *decoder, p *T) {
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

// short keeps a huge number from filling the message.
func short(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}

func ptr[T any](d *decoder, p **T, f func(*decoder, *T)) {
	if d.null() {
		*p = nil
		return
	}
	if *p == nil {
		*p = new(T)
	}
	f(d, *p)
}

func slice[T any](d *decoder, p *[]T, f func(*decoder, *T)) {
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
func (d *decoder) guessLen() int {
	if d.peek() != '"' {
		return 4
	}
	end := strings.IndexByte(d.in[d.pos:], ']')
	if end < 0 {
		return 1
	}
	return min(1+strings.Count(d.in[d.pos:d.pos+end], ","), maxPresize)
}

func mapping[T any](d *decoder, p *map[string]T, f func(*decoder, *T)) {
	if d.null() {
		*p = nil
		return
	}
	if *p == nil && d.peek() == '{' {
		*p = map[string]T{}
	}
	for key, ok := d.object(); ok; key, ok = d.next() {
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

// anything decodes a value without a type (windows.credentialSpec), as encoding/json does into an empty interface.
func anything(d *decoder, p *any) {
	switch c := d.peek(); {
	case c == '"':
		*p = d.quoted()
	case c == '{':
		var m map[string]any
		mapping(d, &m, anything)
		*p = m
	case c == '[':
		var s []any
		slice(d, &s, anything)
		*p = s
	case c == 't' || c == 'f':
		var b bool
		boolean(d, &b)
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
