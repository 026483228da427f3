package engine

import (
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

// BenchmarkSecondRun is a run of an image that is here and unpacked, without
// the start of the program.
func BenchmarkSecondRun(b *testing.B) {
	testenv.Root(b)
	e := newEngine(b)
	o := RunOptions{Image: "oci:" + testLayout(b, "medium") + ":latest", Args: []string{"true"}}
	run := func() {
		if status, err := e.Run(b.Context(), o); status != 0 || err != nil {
			b.Fatalf("status %d, %v", status, err)
		}
	}
	run()
	for b.Loop() {
		run()
	}
}
