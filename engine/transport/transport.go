// Package transport knows how people say where an image is: the transport
// names of containers-transports(5), as skopeo and podman take them.
//
//	docker://REF              a registry
//	oci:DIR[:NAME]            an image layout (Image Spec 1.1.1, image-layout.md)
//	oci-archive:FILE[:NAME]   the same in a tar archive
//	docker-archive:FILE[:REF] what docker save writes
//	dir:DIR                   what skopeo copy writes to dir:
//	NAME                      the store of tare, or a registry
package transport

import (
	"fmt"
	"strings"
)

// Kind is a way of keeping images.
type Kind uint8

const (
	Plain Kind = iota // a name alone
	Registry
	Layout
	OCIArchive
	DockerArchive
	Dir
)

// transports is the one table of prefixes, in the order of Kind.
var transports = [...]struct {
	prefix string
	path   bool // what follows is a path,
	named  bool // and a colon and a name
}{
	Plain:         {},
	Registry:      {prefix: "docker://"},
	Layout:        {prefix: "oci:", path: true, named: true},
	OCIArchive:    {prefix: "oci-archive:", path: true, named: true},
	DockerArchive: {prefix: "docker-archive:", path: true, named: true},
	Dir:           {prefix: "dir:", path: true},
}

// others are transports that other tools have, and what to do in place of them.
var others = [...]struct{ prefix, instead string }{
	{"docker-daemon:", "docker save and docker-archive:FILE"},
	{"containers-storage:", "podman save and docker-archive:FILE"},
	{"ostree:", "oci:DIR"},
	{"sif:", "oci:DIR"},
	{"docker:", "docker://REF"},
}

// Location is where an image is.
type Location struct {
	Kind Kind
	Path string // of a directory or a file; empty for Plain and Registry
	Name string // within it; may be empty unless for Plain and Registry
}

// Parse reads what String writes. Between path and name is the first colon, so
// a path has none.
func Parse(s string) (Location, error) {
	l := Location{Name: s}
	for kind, t := range transports {
		if rest, ok := strings.CutPrefix(s, t.prefix); ok && t.prefix != "" {
			l = split(Kind(kind), rest)
			if t.path && l.Path == "" || !t.path && l.Name == "" {
				return Location{}, fmt.Errorf("%q: nothing after %q", s, t.prefix)
			}
			break
		}
	}
	if l.Kind == Plain {
		for _, o := range others {
			if strings.HasPrefix(s, o.prefix) && s != o.prefix {
				if !plainName(s, o.prefix) {
					return Location{}, fmt.Errorf("%q: the transport %q is not supported; use %s", s, o.prefix, o.instead)
				}
			}
		}
		if s == "" {
			return Location{}, fmt.Errorf("%q: empty name", s)
		}
	}
	if strings.ContainsRune(s, 0) {
		return Location{}, fmt.Errorf("%q: has a NUL byte", s)
	}
	return l, nil
}

// plainName allows an image that is called as a transport of others is, with a
// tag behind: docker:27.
func plainName(s, prefix string) bool {
	return prefix == "docker:" && !strings.Contains(s, "/")
}

func split(kind Kind, rest string) Location {
	t := transports[kind]
	l := Location{Kind: kind}
	switch {
	case t.named:
		l.Path, l.Name, _ = strings.Cut(rest, ":")
	case t.path:
		l.Path = rest
	default:
		l.Name = rest
	}
	return l
}

// String writes the location as people do.
func (l Location) String() string {
	t := transports[l.Kind]
	switch {
	case t.named && l.Name != "":
		return t.prefix + l.Path + ":" + l.Name
	case t.path:
		return t.prefix + l.Path
	}
	return t.prefix + l.Name
}

// Prefixes are those that Parse knows.
func Prefixes() []string {
	var all []string
	for _, t := range transports {
		if t.prefix != "" {
			all = append(all, t.prefix)
		}
	}
	return all
}
