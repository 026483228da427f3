package main

import (
	"bytes"
	"os"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestGeneratedFileIsCurrent(t *testing.T) {
	want, err := generate(reflect.TypeFor[specs.Spec]())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../decode_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("decode_gen.go is not what gen writes: run go generate ./runtime/spec")
	}
}

func TestGenerateRefusesWhatItCannotDecode(t *testing.T) {
	for name, typ := range map[string]reflect.Type{
		"bytes": reflect.TypeFor[struct {
			A []byte `json:"a"`
		}](),
		"no tag": reflect.TypeFor[struct{ A string }](),
		"quoted number": reflect.TypeFor[struct {
			A int `json:"a,string"`
		}](),
		"float": reflect.TypeFor[struct {
			A float64 `json:"a"`
		}](),
		"integer keys": reflect.TypeFor[struct {
			A map[int]string `json:"a"`
		}](),
		"decodes itself": reflect.TypeFor[struct {
			A reflect.Value          `json:"a"`
			B struct{ bytes.Buffer } `json:"b"`
		}](),
	} {
		if _, err := generate(typ); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
