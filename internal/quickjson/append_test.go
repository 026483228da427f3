package quickjson_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tare-oci/tare/internal/quickjson"
)

type document struct {
	Text string            `json:"text"`
	List []string          `json:"list"`
	Map  map[string]string `json:"map"`
	Size int               `json:"size"`
}

func (v *document) append(b []byte) []byte {
	b = quickjson.AppendString(append(b, `{"text":`...), v.Text)
	b = quickjson.AppendStrings(append(b, `,"list":`...), v.List)
	b = quickjson.AppendMap(append(b, `,"map":`...), v.Map)
	return append(b, `,"size":-5}`...)
}

func decode(d *quickjson.Decoder, v *document) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "text":
			quickjson.String(d, &v.Text)
		case "list":
			quickjson.Slice(d, &v.List, quickjson.String)
		case "map":
			quickjson.Map(d, &v.Map, quickjson.String)
		case "size":
			quickjson.Signed(d, &v.Size)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

// What is appended means the same to encoding/json and to ourselves, and is
// indented as json.Indent does.
func FuzzAppend(f *testing.F) {
	f.Add("", "a", "b\"\\")
	f.Add("\xff\x00\u2028", "{}[],:", `\"`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		v := document{Text: a, List: []string{b, c}, Map: map[string]string{b: c, c: a}, Size: -5}
		if a == "" {
			v.List, v.Map = []string{}, map[string]string{}
		}
		compact := v.append(nil)
		var want document
		if err := json.Unmarshal(compact, &want); err != nil {
			t.Fatalf("%v: %s", err, compact)
		}
		got, err := quickjson.Decode("document", compact, decode)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%v: %+v, want %+v", err, got, want)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, compact, "", "  "); err != nil {
			t.Fatal(err)
		}
		if ours := quickjson.AppendIndented(nil, compact); string(ours) != indented.String() {
			t.Errorf("got  %s\nwant %s", ours, indented.String())
		}
	})
}
