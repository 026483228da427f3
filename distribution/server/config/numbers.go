package config

import (
	"fmt"
	"reflect"

	"github.com/pelletier/go-toml/v2"
)

// checkNumbers refuses a number where a duration belongs, and one below zero where a
// size does. The decoder asks neither's UnmarshalText about numbers: 3600 would be
// 3600 nanoseconds.
func checkNumbers(text []byte) error {
	var file map[string]any
	if err := toml.Unmarshal(text, &file); err != nil {
		return err
	}
	return checkTable(reflect.TypeFor[Config](), file, "")
}

func checkTable(t reflect.Type, table map[string]any, prefix string) error {
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("toml")
		if value, ok := table[key]; ok {
			if err := checkValue(t.Field(i).Type, value, prefix+key); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkValue(t reflect.Type, value any, key string) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := value.(type) {
	case int64:
		switch t {
		case reflect.TypeFor[Duration]():
			return fmt.Errorf("%s: %d has no unit: want a duration such as \"90s\", \"12h\" or \"30d\"", key, value)
		case reflect.TypeFor[Size]():
			if value < 0 {
				return fmt.Errorf("%s: %d is no size such as 512, \"4MiB\" or \"10GB\"", key, value)
			}
		}
	case map[string]any:
		if t.Kind() == reflect.Struct {
			return checkTable(t, value, key+".")
		}
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for _, element := range value {
			if err := checkValue(t.Elem(), element, key); err != nil {
				return err
			}
		}
	}
	return nil
}
