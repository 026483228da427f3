package lifecycle_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/lifecycle"
)

// Whatever is in a state file, Load returns an error or a container of that
// name whose state can be told.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"version": 1, "id": "x"}`, `{"version": 2, "id": "x"}`, `{"version": 1, "id": "y"}`,
		`{"version": 1, "id": "x", "pid": 1, "startTime": 0, "bundle": "/b", "annotations": {"a": "b"}, "cgroups": {"": "/sys/fs/cgroup/x"}}`,
		`{"version": 1, "id": "x", "pid": -1, "tail": [{"address": 1, "text": "t", "field": "f"}]}`,
		`{"version": 1, "id": "x", "pid": 99999999999999999999}`, `{"version": 1, "id": "x", "pid": 4194305, "created": "2026-01-02T03:04:05Z"}`,
	} {
		f.Add([]byte(seed))
	}
	store := lifecycle.Store{Root: f.TempDir()}
	dir := filepath.Join(store.Root, "x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "state.json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := store.Load("x")
		if err != nil {
			return
		}
		if c.ID != "x" {
			t.Errorf("container %q", c.ID)
		}
		switch s := c.State(); s.Status {
		case specs.StateCreating, specs.StateCreated, specs.StateRunning, specs.StateStopped:
			if _, err := json.Marshal(s); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("state %q", s.Status)
		}
	})
}
