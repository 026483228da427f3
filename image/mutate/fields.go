package mutate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Shape is what a field of the configuration holds, and so how it is edited.
type Shape int

const (
	Text     Shape = iota // a string, set as a whole
	Time                  // a point in time, set as a whole
	Words                 // an argument vector, set as a whole
	List                  // strings, each there once
	Pairs                 // NAME=VALUE strings in an order, each NAME there once
	Set                   // names, in no order
	PairsMap              // names with values, in no order
)

// Field is one field of the configuration (config.md, "Properties") that can be
// edited. RootFS and History are not among them: they go with the layers.
type Field struct {
	Name  string // as config.md spells it, such as "config.Env"
	Short string // as command lines call it, such as "env"
	Shape Shape
	Usage string // what it is, for a person

	ref   func(*v1.Image) any // a pointer to the field
	check func(string) error  // of a value, or a name; nil takes all
}

// Fields is the one table of them, in the order of config.md.
func Fields() []Field {
	return []Field{
		{"created", "created", Time, "when the image was made: RFC 3339, or seconds since 1970", func(c *v1.Image) any { return &c.Created }, nil},
		{"author", "author", Text, "who made it", func(c *v1.Image) any { return &c.Author }, nil},
		{"architecture", "architecture", Text, "the processor it is for, as GOARCH has it", func(c *v1.Image) any { return &c.Architecture }, plain},
		{"os", "os", Text, "the operating system it is for, as GOOS has it", func(c *v1.Image) any { return &c.OS }, plain},
		{"os.version", "os-version", Text, "the version of that", func(c *v1.Image) any { return &c.OSVersion }, nil},
		{"os.features", "os-feature", List, "a feature of the operating system that it needs", func(c *v1.Image) any { return &c.OSFeatures }, plain},
		{"variant", "variant", Text, "the variant of the processor, such as v7", func(c *v1.Image) any { return &c.Variant }, plain},
		{"config.User", "user", Text, "USER[:GROUP] of the process", func(c *v1.Image) any { return &c.Config.User }, nil},
		{"config.ExposedPorts", "port", Set, "a port that it serves: PORT[/tcp|/udp|/sctp]", func(c *v1.Image) any { return &c.Config.ExposedPorts }, checkPort},
		{"config.Env", "env", Pairs, "a variable of the environment: NAME=VALUE", func(c *v1.Image) any { return &c.Config.Env }, nil},
		{"config.Entrypoint", "entrypoint", Words, "the command", func(c *v1.Image) any { return &c.Config.Entrypoint }, nil},
		{"config.Cmd", "cmd", Words, "its arguments, or the command", func(c *v1.Image) any { return &c.Config.Cmd }, nil},
		{"config.Volumes", "volume", Set, "a directory with data of the container's own", func(c *v1.Image) any { return &c.Config.Volumes }, checkVolume},
		{"config.WorkingDir", "workdir", Text, "the working directory of the process", func(c *v1.Image) any { return &c.Config.WorkingDir }, nil},
		{"config.Labels", "label", PairsMap, "a label: NAME=VALUE", func(c *v1.Image) any { return &c.Config.Labels }, nil},
		{"config.StopSignal", "stop-signal", Text, "the signal that ends it, such as SIGTERM", func(c *v1.Image) any { return &c.Config.StopSignal }, checkSignal},
	}
}

// FindField finds a field by either of its names, in any case.
func FindField(name string) (Field, error) {
	for _, f := range Fields() {
		if strings.EqualFold(name, f.Name) || strings.EqualFold(name, f.Short) {
			return f, nil
		}
	}
	return Field{}, fmt.Errorf("no field %q: they are %s", name, strings.Join(FieldNames(), ", "))
}

// FieldNames are the short names of all fields.
func FieldNames() (shorts []string) {
	for _, f := range Fields() {
		shorts = append(shorts, f.Short)
	}
	return shorts
}

// Edit is one change of one field, which has been found to be possible.
type Edit func(*v1.Image)

// Put gives the field a value: in place of what it has, or, where it holds
// several, besides them and in place of the one of the same name. Words take all
// of values, the others each of them.
func (f Field) Put(values ...string) (Edit, error) {
	e, err := f.put(values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return e, nil
}

func (f Field) put(values []string) (Edit, error) {
	for _, v := range values {
		if f.check != nil && v != "" {
			if err := f.check(v); err != nil {
				return nil, err
			}
		}
		if _, _, ok := splitPair(v); !ok && (f.Shape == Pairs || f.Shape == PairsMap) {
			return nil, fmt.Errorf("%q: want NAME=VALUE", v)
		}
		if v == "" && (f.Shape == List || f.Shape == Set) {
			return nil, errors.New("empty")
		}
	}
	if f.Shape == Words {
		words, err := wordsOf(values)
		return func(c *v1.Image) { *f.ref(c).(*[]string) = words }, err
	}
	if f.Shape == Time {
		t, err := ParseTime(values[len(values)-1])
		return func(c *v1.Image) { *f.ref(c).(**time.Time) = &t }, err
	}
	return func(c *v1.Image) {
		for _, v := range values {
			f.putOne(c, v)
		}
	}, nil
}

func (f Field) putOne(c *v1.Image, value string) {
	switch p := f.ref(c).(type) {
	case *string:
		*p = value
	case *[]string:
		*p = slices.Clone(*p)
		i := slices.IndexFunc(*p, func(have string) bool { return f.key(have) == f.key(value) })
		if i < 0 {
			*p = append(*p, value)
			return
		}
		(*p)[i] = value
		// One that is there twice means its last value to some and its first to others.
		rest := slices.DeleteFunc((*p)[i+1:], func(have string) bool { return f.key(have) == f.key(value) })
		*p = (*p)[:i+1+len(rest)]
	case *map[string]struct{}:
		if *p == nil {
			*p = map[string]struct{}{}
		}
		(*p)[value] = struct{}{}
	case *map[string]string:
		if *p == nil {
			*p = map[string]string{}
		}
		name, v, _ := splitPair(value)
		(*p)[name] = v
	}
}

// key is what two values of a list must not have in common.
func (f Field) key(value string) string {
	if f.Shape == Pairs {
		name, _, _ := strings.Cut(value, "=")
		return name
	}
	return value
}

// Remove takes one value out of a field that holds several, by its name. What
// is not there is left out without a word.
func (f Field) Remove(name string) (Edit, error) {
	if f.Shape == Text || f.Shape == Time || f.Shape == Words {
		return nil, fmt.Errorf("%s: has no parts to remove: clear it", f.Name)
	}
	return func(c *v1.Image) {
		switch p := f.ref(c).(type) {
		case *[]string:
			*p = slices.DeleteFunc(slices.Clone(*p), func(have string) bool { return f.key(have) == name })
			if len(*p) == 0 {
				*p = nil
			}
		case *map[string]struct{}:
			delete(*p, name)
		case *map[string]string:
			delete(*p, name)
		}
	}, nil
}

// Clear empties the field.
func (f Field) Clear() Edit {
	return func(c *v1.Image) {
		switch p := f.ref(c).(type) {
		case *string:
			*p = ""
		case **time.Time:
			*p = nil
		case *[]string:
			*p = nil
		case *map[string]struct{}:
			*p = nil
		case *map[string]string:
			*p = nil
		}
	}
}

func splitPair(s string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(s, "=")
	return name, value, ok && name != ""
}

// wordsOf are the words of an argument vector: values as they are, or one value
// that is a list in JSON.
func wordsOf(values []string) ([]string, error) {
	if len(values) != 1 || !strings.HasPrefix(values[0], "[") {
		if len(values) == 1 && values[0] == "" {
			return nil, nil
		}
		return values, nil
	}
	var words []string
	if err := json.Unmarshal([]byte(values[0]), &words); err != nil {
		return nil, fmt.Errorf("%q begins like a list in JSON, and is none: %w", values[0], err)
	}
	return words, nil
}

// ParseTime reads a time in RFC 3339, or as seconds since 1970.
func ParseTime(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(strings.TrimPrefix(s, "@"), 10, 64); err == nil {
		if t := time.Unix(n, 0).UTC(); t.Year() >= 0 && t.Year() <= 9999 { // what RFC 3339 can say
			return t, nil
		}
		return time.Time{}, fmt.Errorf("time %q: out of range", s)
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: want RFC 3339, such as 2025-06-15T12:00:00Z, or seconds since 1970", s)
	}
	return t.UTC(), nil
}

func plain(s string) error {
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || r == '/' {
			return fmt.Errorf("%q: not a plain name", s)
		}
	}
	return nil
}

func checkPort(s string) error {
	port, protocol, given := strings.Cut(s, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || given && protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return fmt.Errorf("%q: want PORT, PORT/tcp, PORT/udp or PORT/sctp", s)
	}
	return nil
}

func checkVolume(s string) error {
	if !strings.HasPrefix(s, "/") && !regexp.MustCompile(`^[A-Za-z]:\\`).MatchString(s) {
		return fmt.Errorf("%q: not an absolute path", s)
	}
	return nil
}

func checkSignal(s string) error {
	if !regexp.MustCompile(`^(SIG[A-Z0-9]+([+-][0-9]+)?|[0-9]{1,2})$`).MatchString(s) {
		return fmt.Errorf("%q: want a name such as SIGTERM or SIGRTMIN+3, or a number", s)
	}
	return nil
}

// Values is what the field holds: one string for each value, none if it is
// empty; names without an order are sorted.
func (f Field) Values(c *v1.Image) []string {
	switch p := f.ref(c).(type) {
	case *string:
		if *p != "" {
			return []string{*p}
		}
	case **time.Time:
		if *p != nil {
			return []string{(*p).UTC().Format(time.RFC3339Nano)}
		}
	case *[]string:
		return *p
	case *map[string]struct{}:
		return slices.Sorted(maps.Keys(*p))
	case *map[string]string:
		var all []string
		for _, name := range slices.Sorted(maps.Keys(*p)) {
			all = append(all, name+"="+(*p)[name])
		}
		return all
	}
	return nil
}
