package service

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLines: all lines come out, whole and in their order, at the latest after a
// moment; and one that is not about a request takes those before it along.
func TestLines(t *testing.T) {
	out := &logged{}
	all := &lines{out: out}
	requests := requestLines{all}
	io.WriteString(requests, "one\n")
	if got := out.String(); got != "" {
		t.Errorf("at once: %q", got)
	}
	out.with(t, "one\n")
	time.Sleep(2 * maxPendingTime)
	io.WriteString(requests, "two\n")
	out.with(t, "two\n")
	io.WriteString(requests, "three\n")
	io.WriteString(all, "four\n")
	if got := out.String(); got != "one\ntwo\nthree\nfour\n" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("x", 99) + "\n"
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range maxPendingBytes / 100 {
				io.WriteString(requests, long)
			}
		})
	}
	group.Wait()
	io.WriteString(all, "end\n")
	got := strings.TrimSuffix(strings.TrimPrefix(out.String(), "one\ntwo\nthree\nfour\n"), "end\n")
	if want := strings.Repeat(long, 4*(maxPendingBytes/100)); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}
