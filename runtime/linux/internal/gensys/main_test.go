package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The committed tables are those of the golang.org/x/sys that go.mod names.
func TestTablesAreCurrent(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./runtime/linux", name)
		}
	}
}
