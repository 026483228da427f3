package dbus

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// scalars are the words that give a number in a variant's text its type.
var scalars = [...]struct{ word, signature string }{
	{"byte", "y"}, {"int16", "n"}, {"uint16", "q"}, {"int32", "i"}, {"uint32", "u"}, {"int64", "x"}, {"uint64", "t"}, {"double", "d"},
	{"objectpath", "o"}, {"signature", "g"}, {"boolean", "b"}, {"string", "s"},
}

// ParseVariant reads a variant from GVariant's text format, which runc's annotations org.systemd.property.* are in: true, 12 (an int32), 1.5,
// 'text', uint64 12, ['a', 'b'], @as [], and arrays of these.
func ParseVariant(text string) (Variant, error) {
	p := &parser{rest: text}
	v, err := p.variant("", 0)
	if p.space(); err == nil && p.rest != "" {
		err = fmt.Errorf("%q is left over", p.rest)
	}
	if err != nil {
		return Variant{}, fmt.Errorf("value %q: %w", text, err)
	}
	return v, nil
}

type parser struct{ rest string }

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *parser) skip(prefix string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, prefix)
	if ok {
		p.rest = rest
	}
	return ok
}

// variant reads a value. want is its type where that is known, else the text tells.
func (p *parser) variant(want string, depth int) (Variant, error) {
	p.space()
	switch {
	case depth > maxDepth:
		return Variant{}, errSignature
	case p.rest == "":
		return Variant{}, errors.New("no value")
	case p.rest[0] == '@':
		return p.typed(depth)
	case p.rest[0] == '[':
		return p.array(want, depth)
	case p.rest[0] == '\'' || p.rest[0] == '"':
		s, err := p.quoted()
		return textVariant(want, s, err)
	}
	word := p.word()
	for _, s := range scalars {
		if s.word == word {
			return p.variant(s.signature, depth+1)
		}
	}
	return scalar(want, word)
}

// typed reads "@as []".
func (p *parser) typed(depth int) (Variant, error) {
	p.rest = p.rest[1:]
	sig, rest, err := next(strings.TrimSuffix(p.word(), "["))
	if err != nil || rest != "" {
		return Variant{}, errSignature
	}
	return p.variant(sig, depth+1)
}

// word reads until a space, a comma or a bracket.
func (p *parser) word() string {
	end := strings.IndexAny(p.rest, " \t\r\n,[]")
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

func (p *parser) array(want string, depth int) (Variant, error) {
	elem := strings.TrimPrefix(want, "a")
	if want != "" && elem == want {
		return Variant{}, fmt.Errorf("an array is not of type %q", want)
	}
	p.skip("[")
	list := []any{}
	for !p.skip("]") {
		if len(list) > 0 && !p.skip(",") {
			return Variant{}, errors.New("want ',' or ']'")
		}
		v, err := p.variant(elem, depth+1)
		if err != nil {
			return Variant{}, err
		}
		elem = v.Signature
		list = append(list, v.Value)
	}
	if elem == "" {
		return Variant{}, errors.New("an empty array needs its type, as @as []")
	}
	return Variant{"a" + elem, list}, nil
}

// quoted reads a string between quotes, with backslashes as in C.
func (p *parser) quoted() (string, error) {
	quote := p.rest[0]
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case quote:
			text := p.rest[1:i]
			p.rest = p.rest[i+1:]
			if quote == '\'' {
				text = strings.ReplaceAll(strings.ReplaceAll(text, `\'`, `'`), `"`, `\"`)
			}
			return strconv.Unquote(`"` + text + `"`)
		}
	}
	return "", errors.New("a string does not end")
}

func textVariant(want, s string, err error) (Variant, error) {
	switch {
	case err != nil:
		return Variant{}, fmt.Errorf("a string: %w", err)
	case want == "":
		want = "s"
	case want != "s" && want != "o" && want != "g":
		return Variant{}, fmt.Errorf("a string is not of type %q", want)
	}
	return Variant{want, s}, nil
}

// scalar reads a word as a number or a truth.
func scalar(want, word string) (Variant, error) {
	if want == "" {
		switch {
		case word == "true" || word == "false":
			want = "b"
		case strings.ContainsAny(word, ".eE") && !strings.HasPrefix(word, "0x"):
			want = "d"
		default:
			want = "i"
		}
	}
	bits := map[string]int{"y": 8, "n": 16, "q": 16, "i": 32, "u": 32, "x": 64, "t": 64}[want]
	switch want {
	case "b":
		if word == "true" || word == "false" {
			return Variant{want, word == "true"}, nil
		}
	case "d":
		if f, err := strconv.ParseFloat(word, 64); err == nil && !math.IsNaN(f) {
			return Variant{want, f}, nil
		}
	case "n", "i", "x":
		if n, err := strconv.ParseInt(word, 0, bits); err == nil {
			return Variant{want, map[string]any{"n": int16(n), "i": int32(n), "x": n}[want]}, nil
		}
	case "y", "q", "u", "t":
		if n, err := strconv.ParseUint(word, 0, bits); err == nil {
			return Variant{want, map[string]any{"y": byte(n), "q": uint16(n), "u": uint32(n), "t": n}[want]}, nil
		}
	}
	return Variant{}, fmt.Errorf("%q is not of type %q", word, want)
}
