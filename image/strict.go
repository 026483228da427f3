package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	first  int  // of its keys among those collected
}

// checkKeys finds an object with two keys that encoding/json would take for the
// same. The data is known to be valid JSON, so the scan need not look for
// anything but strings and brackets.
func checkKeys(data []byte) error {
	var scopes []keyScope
	var keys [][]byte // of all scopes we are in
	wantKey := false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			inObject := len(scopes) > 0 && scopes[len(scopes)-1].object
			wantKey = data[i] == '{'
			scopes = append(scopes, keyScope{wantKey, inObject && freeForm(keys[len(keys)-1]), len(keys)})
		case '}', ']':
			s := scopes[len(scopes)-1]
			if key := twice(keys[s.first:], s.exact); key != nil {
				return fmt.Errorf("ambiguous: the key %s is there twice", quote(string(key)))
			}
			scopes, keys = scopes[:len(scopes)-1], keys[:s.first]
		case ',':
			wantKey = scopes[len(scopes)-1].object
		case '"':
			end := stringEnd(data, i)
			if wantKey {
				wantKey = false
				keys = append(keys, unquote(data[i:end+1]))
			}
			i = end
		}
	}
	return nil
}

// twice returns a key that is there twice, or nil.
func twice(keys [][]byte, exact bool) []byte {
	same := bytes.EqualFold // folds U+212A to k and U+017F to s, as encoding/json does
	if exact {
		same = bytes.Equal
	}
	if len(keys) <= 32 {
		for i, k := range keys {
			if slices.ContainsFunc(keys[:i], func(other []byte) bool { return same(k, other) }) {
				return k
			}
		}
		return nil
	}
	seen := make(map[string]bool, len(keys))
	for _, k := range keys {
		folded := string(k)
		if !exact {
			folded = strings.ToLower(strings.ToUpper(folded)) // ToUpper for U+017F
		}
		if seen[folded] {
			return k
		}
		seen[folded] = true
	}
	return nil
}

// unquote takes the quotes and escapes off a string.
func unquote(quoted []byte) []byte {
	if !bytes.ContainsRune(quoted, '\\') {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return quoted // can't be: it is valid JSON
	}
	return []byte(s)
}

// freeForm names the fields whose objects are maps, not structures.
func freeForm(key []byte) bool {
	switch strings.ToLower(string(key)) {
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
