package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Unmarshal decodes one JSON document into v. Two readers of the same bytes
// must see the same image, so what the JSON specification leaves open is
// refused: an object with the same key twice, and text that is not UTF-8.
// encoding/json takes the last of several keys and ignores their case; other
// parsers take the first, and do not.
func Unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return explainJSON(err)
	}
	return checkKeys(data)
}

// explainJSON puts the path of the field first and leaves Go's types out.
func explainJSON(err error) error {
	var typeErr *json.UnmarshalTypeError
	var syntaxErr *json.SyntaxError
	switch {
	case errors.As(err, &typeErr) && typeErr.Field == "":
		return fmt.Errorf("not a JSON object but a %s", typeErr.Value)
	case errors.As(err, &typeErr):
		return fmt.Errorf("%s: a JSON %s, want %s", typeErr.Field, typeErr.Value, typeErr.Type)
	case errors.As(err, &syntaxErr):
		return fmt.Errorf("not JSON: %s at byte %d", syntaxErr, syntaxErr.Offset)
	}
	return err
}

// keyScope is an object or array that the scan is inside of.
type keyScope struct {
	object bool
	exact  bool // a map of free-form keys, in which case makes a difference
	seen   map[string]struct{}
}

// checkKeys finds an object with two keys that encoding/json would take for the
// same. The data is known to be valid JSON, so the scan need not look for
// anything but strings and brackets.
func checkKeys(data []byte) error {
	var stack []keyScope
	var lastKey string
	wantKey := false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			inObject := len(stack) > 0 && stack[len(stack)-1].object
			wantKey = data[i] == '{'
			stack = append(stack, keyScope{object: wantKey, exact: inObject && freeForm(lastKey)})
		case '}', ']':
			stack = stack[:len(stack)-1]
		case ',':
			wantKey = stack[len(stack)-1].object
		case '"':
			end := stringEnd(data, i)
			if wantKey {
				wantKey = false
				lastKey = string(data[i+1 : end])
				if err := stack[len(stack)-1].add(data[i : end+1]); err != nil {
					return err
				}
			}
			i = end
		}
	}
	return nil
}

func (s *keyScope) add(quoted []byte) error {
	var key string
	if err := json.Unmarshal(quoted, &key); err != nil {
		return err
	}
	folded := key
	if !s.exact {
		// encoding/json folds U+212A to k and U+017F to s as well.
		folded = strings.ToLower(strings.ToUpper(key))
	}
	if _, twice := s.seen[folded]; twice {
		return fmt.Errorf("ambiguous: the key %s is there twice", quote(key))
	}
	if s.seen == nil {
		s.seen = make(map[string]struct{})
	}
	s.seen[folded] = struct{}{}
	return nil
}

// freeForm names the fields whose objects are maps, not structures.
func freeForm(key string) bool {
	switch strings.ToLower(key) {
	case "annotations", "labels", "volumes", "exposedports":
		return true
	}
	return false
}

// stringEnd is the index of the quote that ends the string begun at i.
func stringEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i
}
