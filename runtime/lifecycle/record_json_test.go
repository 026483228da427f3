package lifecycle

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/tare-oci/tare/runtime/plan"
)

// Whatever is written can be read with encoding/json, and is the same.
func FuzzRecord(f *testing.F) {
	f.Add("id", "/b\"undle\\", "a\x00\x1f\u2028", uint64(1), 7)
	f.Add("", "\xff", "é", uint64(0), 0)
	f.Fuzz(func(t *testing.T, id, path, value string, ticks uint64, pid int) {
		want := Record{Version: pid, OCIVersion: value, ID: id, PID: pid, StartTime: ticks, Bundle: path, Rootfs: value,
			Created: time.Unix(int64(ticks%1e9), int64(ticks%1e9)).UTC(), UID: pid,
			Annotations: map[string]string{id: path, "x" + value: value}, Cgroups: map[string]string{"": path},
			Tail: plan.Tail{{Address: ticks, Text: value, Field: path}, {Text: id}}}
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
	})
}
