package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Challenge is one entry of a WWW-Authenticate header: a scheme, in lower
// case, and its parameters. A token68 value (Negotiate's, NTLM's) is dropped.
type Challenge struct {
	Scheme string
	Params []Param // in the header's order, names in lower case, no name twice
}

// Param is one parameter of a challenge.
type Param struct{ Name, Value string }

const (
	maxChallengeBytes = 8 << 10
	maxParams         = 16
)

// Param returns the value of a parameter, "" when it is absent.
func (c Challenge) Param(name string) string {
	for _, p := range c.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// String is the challenge as a header has it.
func (c Challenge) String() string {
	var b strings.Builder
	b.WriteString(c.Scheme)
	for i, p := range c.Params {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s=\"", p.Name)
		for _, ch := range []byte(p.Value) {
			if ch == '"' || ch == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(ch)
		}
		b.WriteByte('"')
	}
	return b.String()
}

// ParseChallenges reads WWW-Authenticate headers (RFC 9110, 11.6.1). One
// header may hold several challenges, several headers one each. What cannot be
// understood ends its header; the challenges before it stand.
func ParseChallenges(headers []string) []Challenge {
	var all []Challenge
	for _, h := range headers {
		if len(h) > maxChallengeBytes {
			continue
		}
		p := challengeParser{rest: h}
		all = append(all, p.parse()...)
	}
	return all
}

type challengeParser struct{ rest string }

func (p *challengeParser) parse() []Challenge {
	var list []Challenge
	for {
		p.skip(" \t,")
		word := p.token()
		if word == "" {
			return list
		}
		p.skip(" \t")
		switch {
		case !p.next('='): // a scheme begins a challenge
			list = append(list, Challenge{Scheme: strings.ToLower(word)})
			continue
		case len(list) == 0:
			return nil // a parameter before any scheme
		}
		p.skip(" \t")
		value, ok := p.value()
		if !ok {
			// Only a token68 has a "=" without a value after it: its padding.
			p.skip("=")
			if p.rest != "" && p.rest[0] != ',' && p.rest[0] != ' ' {
				return list
			}
			continue
		}
		c := &list[len(list)-1]
		name := strings.ToLower(word)
		known := slices.ContainsFunc(c.Params, func(p Param) bool { return p.Name == name })
		if !known && len(c.Params) < maxParams {
			c.Params = append(c.Params, Param{name, value})
		}
	}
}

func (p *challengeParser) skip(set string) { p.rest = strings.TrimLeft(p.rest, set) }

func (p *challengeParser) next(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *challengeParser) token() string {
	i := 0
	for i < len(p.rest) && isTokenChar(p.rest[i]) {
		i++
	}
	word := p.rest[:i]
	p.rest = p.rest[i:]
	return word
}

// value reads a token or a quoted string.
func (p *challengeParser) value() (string, bool) {
	if !p.next('"') {
		word := p.token()
		return word, word != ""
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		if c == '"' {
			p.rest = p.rest[i+1:]
			return b.String(), true
		}
		if c == '\\' && i+1 < len(p.rest) {
			i++
			c = p.rest[i]
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			break
		}
		b.WriteByte(c)
	}
	return "", false
}

func isTokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~/", c) >= 0 // "/" for the token68 of other schemes
}
