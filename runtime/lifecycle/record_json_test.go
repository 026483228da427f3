package lifecycle

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/quickjson"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/rdt"
)

// Whatever is written can be read with encoding/json, and is the same; and so
// it is with our own decoder.
func FuzzRecord(f *testing.F) {
	f.Add("id", "/b\"undle\\", "a\x00\x1f\u2028", uint64(1), 7)
	f.Add("", "\xff", "é", uint64(0), 0)
	f.Fuzz(func(t *testing.T, id, path, value string, ticks uint64, pid int) {
		hooks := []specs.Hook{{Path: path, Args: []string{value, id}, Env: []string{id}, Timeout: &pid}, {Path: id}}
		want := Record{Version: pid, OCIVersion: value, ID: id, PID: pid, StartTime: ticks, HostRoot: ticks, Bundle: path, Rootfs: value,
			Created: time.Unix(int64(ticks%1e9), int64(ticks%1e9)).UTC(), UID: pid,
			Annotations: map[string]string{id: path, "x" + value: value}, Cgroups: map[string]string{"": path}, Unit: value,
			Resctrl:  &rdt.Group{Class: path, Monitor: value, Made: pid%2 == 0},
			Listener: &plan.Listener{Path: path, Metadata: value},
			Tail:     plan.Tail{{Address: ticks, Text: value, Field: path}, {Text: id}}, Poststart: hooks, Poststop: hooks[1:]}
		data, err := json.Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		var viaJSON, got Record
		if err := json.Unmarshal(data, &viaJSON); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(want.appendJSON(nil), &got); err != nil {
			t.Fatalf("%v: %s", err, want.appendJSON(nil))
		}
		if !reflect.DeepEqual(got, viaJSON) {
			t.Errorf("got  %+v\nwant %+v", got, viaJSON)
		}
		ours, err := quickjson.Decode("record", data, decodeRecord)
		if err != nil || !reflect.DeepEqual(*ours, viaJSON) {
			t.Errorf("%v: got  %+v\nwant %+v", err, ours, viaJSON)
		}
	})
}

// A state file that says anything else than a record is an error, or means
// what encoding/json finds in it.
func FuzzDecodeRecord(f *testing.F) {
	full := Record{Version: 1, PID: 2, StartTime: 3, HostRoot: 4, Annotations: map[string]string{"a": "b"}, Cgroups: map[string]string{"": "/x"},
		Tail: plan.Tail{{Address: 1}}, Poststop: []specs.Hook{{Path: "/x", Timeout: new(int)}}}
	f.Add(full.appendJSON(nil))
	f.Add([]byte(`{"version":1,"created":"yesterday"}`))
	f.Add([]byte(`{"version":1e3,"tail":null,"poststop":[{"timeout":null}],"annotations":{"a":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := quickjson.Decode("record", data, decodeRecord)
		if err != nil || foldsKey(data) { // known to encoding/json only
			return
		}
		var want Record
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", data, err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%q: got  %+v\nwant %+v", data, got, want)
		}
	})
}

// foldsKey reports whether a document has a name of the record's in another case.
func foldsKey(data []byte) bool {
	quoted := regexp.MustCompile(`"(?:[^"\\\\]|\\\\.)*"`)
	full := Record{PID: 1, StartTime: 1, Annotations: map[string]string{"": ""}, Cgroups: map[string]string{"": ""},
		Tail: plan.Tail{{Field: "f"}}, Poststart: []specs.Hook{{Args: []string{""}, Env: []string{""}, Timeout: new(int)}}, Poststop: []specs.Hook{{}}}
	for _, known := range quoted.FindAll(full.appendJSON(nil), -1) {
		for _, name := range quoted.FindAll(data, -1) {
			if text, err := strconv.Unquote(string(name)); err == nil {
				name = []byte(strconv.Quote(text))
			}
			if bytes.EqualFold(name, known) && !bytes.Equal(name, known) {
				return true
			}
		}
	}
	return false
}

// Every field of the record is written and read.
func TestRecordHasAllFields(t *testing.T) {
	hooks := []specs.Hook{{Path: "/x"}}
	r := Record{Version: 1, OCIVersion: "1.3.0", ID: "id", PID: 2, StartTime: 3, Bundle: "/b", Rootfs: "/r", Created: time.Unix(1, 2).UTC(),
		UID: 4, Creating: true, SharedPID: true, Annotations: map[string]string{"a": "b"}, Cgroups: map[string]string{"": "/c"},
		HostRoot: 7, NoNewKeyring: true, Unit: "u.scope", Resctrl: &rdt.Group{Class: "/c", Monitor: "/c/m", Made: true}, Listener: &plan.Listener{Path: "/p", Metadata: "m"},
		Tail: plan.Tail{{Address: 1, Text: "t", Field: "f"}}, Poststart: hooks, Poststop: hooks}
	for i := range reflect.TypeFor[Record]().NumField() {
		if reflect.ValueOf(r).Field(i).IsZero() {
			t.Errorf("the test does not set %s", reflect.TypeFor[Record]().Field(i).Name)
		}
	}
	got, err := quickjson.Decode("record", r.appendJSON(nil), decodeRecord)
	if err != nil || !reflect.DeepEqual(*got, r) {
		t.Errorf("%v: got  %+v\nwant %+v", err, got, r)
	}
}

// What the state verb prints is what encoding/json prints of the same.
func TestStateJSON(t *testing.T) {
	c := Container{Record: Record{OCIVersion: "1.3.0", ID: "id", Bundle: "/b\n", Rootfs: "/r", Annotations: map[string]string{"x": "y", "a": "ä"}}}
	want, err := json.Marshal(struct {
		specs.State
		Pid     int       `json:"pid"` // also where it is 0, as runc's
		Rootfs  string    `json:"rootfs"`
		Created time.Time `json:"created"`
		Owner   string    `json:"owner"`
	}{State: c.State(), Rootfs: c.Rootfs, Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	var viaJSON, got any
	if err := json.Unmarshal(want, &viaJSON); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(c.AppendJSON(nil, "me"), &got); err != nil || !reflect.DeepEqual(got, viaJSON) {
		t.Errorf("%v: got  %s\nwant %s", err, c.AppendJSON(nil, "me"), want)
	}
}
