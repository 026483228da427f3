package mutate

import (
	"bytes"
	"encoding/json"
)

// merge makes to a JSON document the change that leads from before to after.
// Before is raw seen through a Go type, which has lost what the type does not
// know; where before and after agree, raw is left as it is, to the byte if they
// agree in all.
func merge(raw, before, after json.RawMessage) (json.RawMessage, error) {
	if bytes.Equal(before, after) {
		return raw, nil
	}
	rawFields, ok1 := object(raw)
	oldFields, ok2 := object(before)
	newFields, ok3 := object(after)
	if !ok1 || !ok2 || !ok3 {
		return after, nil
	}
	for key := range oldFields {
		if _, kept := newFields[key]; !kept {
			delete(rawFields, key)
		}
	}
	for key, field := range newFields {
		was, had := oldFields[key]
		have, there := rawFields[key]
		switch {
		case had && bytes.Equal(was, field): // also when raw lacks it: the type adds empty fields
		case had && there:
			merged, err := merge(have, was, field)
			if err != nil {
				return nil, err
			}
			rawFields[key] = merged
		default:
			rawFields[key] = field
		}
	}
	return json.Marshal(rawFields) // in the order of the keys
}

// object returns the fields of a JSON object, and false for anything else.
func object(raw json.RawMessage) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(raw, &fields)
	return fields, err == nil && fields != nil
}
